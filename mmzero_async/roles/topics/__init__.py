"""What the proposer is asked to invent about: a topic by seed, for a set of templates."""

from mmzero_async.roles.topics import spread
from mmzero_async.seedling import topics as seedling_topics


def topic(templates: str, seed: int) -> str:
    """A reproducible topic: the seedling's own for its templates, else one of `spread`."""
    return seedling_topics.topic(seed) if templates == "seedling" else spread.topic(seed)
