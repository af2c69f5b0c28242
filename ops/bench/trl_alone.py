"""TRL without vLLM, which it would load beside itself.

A bench of its steps generates nothing, and to load vLLM takes longer than all of them.
"""

from trl import import_utils

import_utils.is_vllm_available = lambda min_version=None: False

from trl import GRPOConfig, GRPOTrainer  # noqa: E402

__all__ = ["GRPOConfig", "GRPOTrainer"]
