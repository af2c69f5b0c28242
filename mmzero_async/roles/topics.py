"""What the proposer is asked to invent about: a topic by seed, for a set of templates."""

from mmzero_async.seedling import topics as seedling_topics


def topic(templates: str, seed: int) -> str:
    """A reproducible topic. Every set has the seedling's topics until it has its own."""
    return seedling_topics.topic(seed)
