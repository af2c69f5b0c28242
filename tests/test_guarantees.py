"""docs/GUARANTEES.md names tests and files that exist, and one promise after another."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "GUARANTEES.md").read_text()


def test_every_test_that_a_guarantee_names_exists() -> None:
    named = set(re.findall(r"(tests/\w+\.py)::(\w+)", TEXT))
    assert len(named) > 30
    missing = [
        f"{path}::{name}"
        for path, name in sorted(named)
        if not re.search(rf"^(async def|def|class)? ?{name}\b", (ROOT / path).read_text(), re.M)
    ]
    assert missing == []


def test_every_file_that_keeps_a_promise_exists() -> None:
    named = set(re.findall(r"`((?:mmzero_async|schemas|workers|ops)/[\w/]+\.py)`", TEXT))
    assert named and [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_there_are_eight_promises_each_with_who_keeps_it_and_what_proves_it() -> None:
    promises = re.split(r"^## ", TEXT, flags=re.M)[1:]
    assert [promise[:2] for promise in promises] == [f"{i}." for i in range(1, 9)]
    for promise in promises:
        assert "- kept by: " in promise and "- proved by: " in promise
