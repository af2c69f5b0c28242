"""docs/GUARANTEES.md and METHOD.md name tests and files that exist; one promise after another."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
TEXT = (DOCS / "GUARANTEES.md").read_text()
PROOFS = {name: (DOCS / name).read_text() for name in ("GUARANTEES.md", "METHOD.md")}


@pytest.mark.parametrize("name", PROOFS)
def test_every_test_that_is_named_as_proof_exists(name: str) -> None:
    named = set(re.findall(r"(tests/\w+\.py)::(\w+)", PROOFS[name]))
    assert len(named) > 25
    missing = [
        f"{path}::{name}"
        for path, name in sorted(named)
        if not re.search(rf"^(async def|def|class)? ?{name}\b", (ROOT / path).read_text(), re.M)
    ]
    assert missing == []


@pytest.mark.parametrize("name", PROOFS)
def test_every_file_that_keeps_a_promise_exists(name: str) -> None:
    named = set(re.findall(r"`((?:mmzero_async|schemas|workers|ops)/[\w/]+\.py)`", PROOFS[name]))
    assert named and [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_there_are_eight_promises_each_with_who_keeps_it_and_what_proves_it() -> None:
    promises = re.split(r"^## ", TEXT, flags=re.M)[1:]
    assert [promise[:2] for promise in promises] == [f"{i}." for i in range(1, 9)]
    for promise in promises:
        assert "- kept by: " in promise and "- proved by: " in promise
