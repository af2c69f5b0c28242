"""docs/EVENTS.md, CONFIGURATION.md and TRACKERS.md say what the code says."""

import msgspec
import pytest

from mmzero_async.config import Config
from mmzero_async.ops import reference
from mmzero_async.schemas.events import KINDS
from mmzero_async.trackers.series import TABLE


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return reference.pages()


@pytest.mark.parametrize("name", ["EVENTS.md", "CONFIGURATION.md", "TRACKERS.md"])
def test_a_page_is_as_the_code_makes_it(name: str, pages: dict[str, str]) -> None:
    assert (reference.DOCS / name).read_text() == pages[name], "run `just docs`"


def test_every_kind_of_event_every_field_and_every_value_is_told(pages: dict[str, str]) -> None:
    page = pages["EVENTS.md"]
    assert all(f"\n## {kind}\n" in page for kind in KINDS)
    for field in ("prompt_token_ids", "logprobs", "batch_digest", "hard_kinds"):
        assert f"| `{field}` |" in page
    assert "| float32 [T], behaviour log-probability of each token |" in page


def test_every_section_of_the_configuration_is_told(pages: dict[str, str]) -> None:
    page = pages["CONFIGURATION.md"]
    tree = msgspec.to_builtins(Config())
    for section, keys in tree.items():
        for key in keys if isinstance(keys, dict) else ():
            place = f"{section}.{key}"
            assert f"| `{place}` |" in page or f"\n## {place}\n" in page, place
    assert "| `learner.weight_decay` | `0.0` | `0.01` |" in page  # a default that is another one


def test_every_series_of_a_tracker_is_told(pages: dict[str, str]) -> None:
    assert all(f"| `{name}` |" in pages["TRACKERS.md"] for name in TABLE)
