"""Fixtures of more than one file. Heavy imports stand inside, for the tests that need none."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# One thread each, as the supervisor starts its processes: the models are tiny, the tests many.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A busy machine must not fail a property.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Qwen3-VL with random weights, as a model folder."""
    import tiny_model

    return tiny_model.save(tmp_path_factory.mktemp("tiny_model"))


@pytest.fixture(scope="session")
def spec(tiny_folder: Path):
    """What the tiny model wants its tensors to look like."""
    import tiny_model

    return tiny_model.policy(tiny_folder).spec


@pytest.fixture(scope="module")
def deterministic() -> Iterator[None]:
    """A module's steps give the same bits again."""
    import tiny_training

    with tiny_training.deterministically():
        yield
