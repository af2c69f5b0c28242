"""An engine's client that counts what it asks for: requests under way, seconds, tokens."""

import time
from typing import Any

from mmzero_async import metrics as figures
from mmzero_async.engines.client import VllmClient
from mmzero_async.metrics import Metrics
from mmzero_async.schemas.events import Generation
from mmzero_async.schemas.packing import unpack_tokens


class MeasuredClient(VllmClient):
    """As VllmClient, which says what the arguments are."""

    def __init__(self, url: str, metrics: Metrics, **options: Any) -> None:
        super().__init__(url, **options)
        self._metrics = metrics

    async def generate(self, *arguments: Any, **options: Any) -> Generation:
        metrics, began = self._metrics, time.monotonic()
        metrics.add(figures.ENGINE_IN_FLIGHT)
        try:
            generation = await super().generate(*arguments, **options)
        finally:
            metrics.add(figures.ENGINE_IN_FLIGHT, -1)
        metrics.observe(figures.ENGINE_SECONDS, time.monotonic() - began)
        drawn = sum(len(unpack_tokens(sample.token_ids)) for sample in generation.samples)
        metrics.add(figures.ENGINE_TOKENS, drawn, what="generated")
        prompted = len(unpack_tokens(generation.prompt_token_ids))
        metrics.add(figures.ENGINE_TOKENS, prompted, what="prompted")
        return generation
