"""The filter: what its text says, what each term holds for, what is wrong with a bad one."""

from pathlib import Path

import pytest
from builders import answered, coded, proposed, records, rendered
from hypothesis import given
from log_builders import SECOND, WHERE, rewarded, step, write

from mmzero_async.log.where import Where, WhereError, parse_where
from mmzero_async.schemas.events import Event, Measured, WorkAbandoned


@given(WHERE)
def test_a_filter_is_what_its_text_says(where: Where) -> None:
    assert parse_where(str(where)) == where


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("verison=3", r"term 1 \('verison=3'\): no such key 'verison'; did you mean version\?"),
        ("role=solver banana", r"term 2 \('banana'\): no such key"),
        ("kind=", r"no value; write kind=answered,rewarded"),
        ("version=three", r"'three' is no whole number.*write it like version=3\.\.9"),
        ("version=9..3", r"the range 9\.\.3 is empty"),
        ("reward=nan", r"'nan' is no number"),
        ("reward=..", r"a range without ends"),
        ("since=yesterday", r"'yesterday' is no time.*since=2026"),
        ("lineage=g01", r"no lineage id.*lineage=g12\.s0"),
        ("outcome=a,,b", r"an empty word between commas"),
        ("role=a role=b", r"role is given twice"),
        ("outcome='open", r"close the quote"),
        ("x" * 5000, r"at most 4096"),
    ],
)
def test_a_filter_that_cannot_be_read_says_which_term_why_and_what_to_write(
    text: str, wanted: str
) -> None:
    with pytest.raises(WhereError, match=wanted):
        parse_where(text)


def test_times_are_read_to_the_nanosecond_and_are_utc_unless_said_otherwise() -> None:
    assert parse_where("since=2026-11-24T10:00").since_ns == 1795514400 * SECOND
    assert parse_where("since=2026-11-24T11:00+01:00").since_ns == 1795514400 * SECOND
    assert parse_where("since=1970-01-01T00:00:01.000000007Z").since_ns == SECOND + 7


@pytest.mark.parametrize(
    ("event", "yes", "no"),
    [
        (answered("g1.s0.d2", "hard", ["4", None], 3), "role=solver", "role=coder"),
        (answered("g1.s0.d2", "hard", ["4", None], 3), "version=..3", "version=4.."),
        (answered("g1.s0.d2", "hard", ["4", None], 3), "outcome=no_answer", "outcome=stale"),
        (answered("g1.s0.d2", "hard", ["4"], 3), "lineage=g1.s0", "lineage=g1.s1"),
        (coded("g11.s0", [True]), "lineage=g11", "lineage=g1"),
        (rendered("g1.s0.d0", ok=False), "outcome=inv*", "outcome=ok"),
        (rewarded("g1", [-1.0, 0.5]), "reward=0.5..", "reward=0.6.."),
        (proposed("g1", [False]), "outcome=missing:*", "outcome=ok"),
        (step("coder", 4, ["g1", "g7.s0"]), "lineage=g7", "lineage=g8"),
        (WorkAbandoned(work="code/g1.s0", reason="r", attempts=1), "role=coder", "role=solver"),
        (Measured(source="s", figures={}), "since=2001-09-09", "until=2001-09-08"),
        (Measured(source="s", figures={}), "kind=answered,measured", "kind=answered"),
    ],
)
def test_each_term_holds_for_what_it_says(event: Event, yes: str, no: str) -> None:
    [record] = records([event])
    assert parse_where(yes).matches(record)
    assert not parse_where(no).matches(record)


def test_staleness_is_how_far_a_sample_was_behind_its_roles_newest_version(tmp_path: Path) -> None:
    old, new = answered("g0.s0.d0", "easy", ["4"], 1), answered("g0.s0.d0", "hard", ["4"], 5)
    writer = write(tmp_path, [old, step("solver", 5, []), step("coder", 9, []), old, new])
    found = {
        text: [r.offset for r in writer.reader().scan(where=parse_where(f"staleness={text}"))]
        for text in ("4", "0", "-1", "..3")
    }
    assert found == {"4": [3], "0": [4], "-1": [0], "..3": [0, 4]}
    writer.close()
