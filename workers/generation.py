"""From the configuration's sampling section to the parameters of one request."""

from mmzero_async.config import SamplingConfig
from mmzero_async.schemas.events import Sampling


def sampling(config: SamplingConfig, seed: int) -> Sampling:
    return Sampling(
        temperature=config.temperature,
        top_p=config.top_p,
        max_tokens=config.max_tokens,
        seed=seed,
    )
