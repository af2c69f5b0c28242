"""What lies on disk and goes over the wire: every event comes back, none may change its shape.

`golden/events_v1.json` holds one event of each kind as bytes. A failure there means that logs
written yesterday read differently today: add a field with a default or a new kind, and never
rewrite a line of that file.
"""

import json
import typing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from builders import answered, coded, probed, proposed, rendered
from hypothesis import given, settings
from hypothesis import strategies as st

from mmzero_async.schemas import work
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import (
    KINDS,
    Evaluated,
    Event,
    Finding,
    GroupRejected,
    KnownEvent,
    Measured,
    Paced,
    PolicyPublished,
    Rendered,
    Rewarded,
    RunFinished,
    RunStarted,
    Sampling,
    StageMoved,
    StageStalled,
    StepCommitted,
    UnknownEvent,
    VersionSpan,
    WorkAbandoned,
    WorkerFailed,
    WorkerJoined,
    WorkerLeft,
    decode_event,
    encode_event,
    kind_of,
)
from mmzero_async.schemas.ids import drawing_id, group_id, indices, parent, proposal_id, root
from mmzero_async.schemas.packing import (
    pack_logprobs,
    pack_tokens,
    unpack_logprobs,
    unpack_tokens,
)
from mmzero_async.schemas.record import (
    Envelope,
    RecordDamaged,
    decode_record,
    encode_record,
    envelope,
)

GOLDEN = Path(__file__).parent / "golden" / "events_v1.json"

ONE_OF_EACH: list[Event] = [
    proposed("g3", [True, False], version=2),
    coded("g3.s0", [True, False], version=2),
    rendered("g3.s0.d0"),
    answered("g3.s0.d0", "hard", ["3", None], version=2),
    probed("g3.s0.d0", "hard", ["3", None], version=2),
    Rewarded(
        role="solver",
        group="g3.s0.d0",
        rewards=[1.0, 0.25],
        terms=[{"answer": 0.9, "format": 0.1}, {"answer": 0.25}],
        advantages=[0.5, -0.5],
        step=7,
        facts={"solvability": 0.5},
    ),
    GroupRejected(role="coder", group="g3.s0", reason="stale", detail="9 behind"),
    StepCommitted(
        role="solver",
        step=7,
        version=8,
        groups=["g3.s0.d0"],
        offsets=[0, 300, 70_000],
        checkpoint="checkpoints/solver/8",
        digest="aa",
        batch_digest="bb",
        metrics={"loss": -0.125},
    ),
    Paced(
        role="solver",
        step=7,
        eta=2,
        before=4,
        reason="ess_share",
        figure=0.5,
        bound=0.875,
    ),
    PolicyPublished(
        role="solver", version=8, policy="solver@8", checkpoint="c", digest="aa", seconds=0.5
    ),
    Evaluated(
        role="solver",
        version=8,
        moment="after",
        mode="greedy",
        by_kind={"bars_value": (3, 4)},
        hard_kinds=["bars_sum"],
        seed=777,
        seconds=1.5,
    ),
    RunStarted(
        run="r1",
        config="{}",
        config_digest="cc",
        base_model="seedling",
        base_digest="dd",
        seed=20260310,
        code_version="0.1.0",
        schema_version=1,
    ),
    RunFinished(reason="steps"),
    WorkerJoined(worker="coder-0", role="coder", host="h", pid=4242),
    WorkerLeft(worker="coder-0", role="coder", reason="silent"),
    WorkerFailed(worker="coder-0", role="coder", error="boom", work="code/g3.s0"),
    WorkAbandoned(work="code/g3.s1", reason="poison", attempts=3),
    StageStalled(
        stage="answer",
        seconds=60.5,
        due=3,
        held=1,
        oldest="answer/g3.s0.d0/hard",
        holder="solver-0",
        waits_for="solver-0",
    ),
    StageMoved(stage="answer", seconds=2.5),
    Measured(source="engine", figures={"busy_seconds": 2.5}),
]


# --- golden bytes -----------------------------------------------------------------------------


def test_there_is_one_golden_event_of_every_kind() -> None:
    golden = json.loads(GOLDEN.read_text())
    assert sorted(golden) == sorted(KINDS) == sorted(kind_of(event) for event in ONE_OF_EACH)
    assert len(KINDS) == len(typing.get_args(KnownEvent)) == 20


@pytest.mark.parametrize("event", ONE_OF_EACH, ids=kind_of)
def test_an_event_is_written_as_the_golden_bytes_and_read_from_them(event: Event) -> None:
    golden = bytes.fromhex(json.loads(GOLDEN.read_text())[kind_of(event)])
    assert encode_event(event).hex() == golden.hex()
    assert decode_event(kind_of(event), golden) == event


def test_a_record_lies_on_disk_as_these_bytes() -> None:
    value = envelope(
        RunFinished(reason="steps"), producer="p", epoch=2, sequence=300, time_ns=10**18
    )
    # crc32c, then [1, 10**18, "p", 2, 300, "run_finished", body]
    body = "82a46b696e64ac72756e5f66696e6973686564a6726561736f6ea57374657073"
    payload = f"9701cf0de0b6b3a7640000a17002cd012cac72756e5f66696e6973686564c420{body}"
    assert encode_record(value)[4:].hex() == payload
    assert encode_record(value)[:4].hex() == "cf27ad02"


# --- round trips ------------------------------------------------------------------------------

TEXT = st.text(max_size=8)
HINTS: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXT,
    bytes: st.binary(max_size=8),
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    type(None): st.none(),
}


def any_of(hint: Any) -> st.SearchStrategy[Any]:
    """A strategy for any type that stands in an event, from its annotation alone."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint in HINTS:
        return HINTS[hint]
    if origin is typing.Literal:
        return st.sampled_from(args)
    if origin is list:
        return st.lists(any_of(args[0]), max_size=3)
    if origin is dict:
        return st.dictionaries(any_of(args[0]), any_of(args[1]), max_size=3)
    if origin is tuple:
        return st.tuples(*map(any_of, args))
    if args:  # a union
        return st.one_of(*map(any_of, args))
    return st.builds(hint, **{k: any_of(v) for k, v in typing.get_type_hints(hint).items()})


ANY_EVENT = st.one_of(*(any_of(kind) for kind in typing.get_args(KnownEvent)))


@pytest.mark.parametrize("kind", typing.get_args(KnownEvent), ids=lambda k: k.__name__)
def test_any_event_comes_back_as_it_was(kind: type[Event]) -> None:
    @settings(max_examples=15, deadline=None)
    @given(any_of(kind))
    def comes_back(event: Event) -> None:
        body = encode_event(event)
        assert decode_event(kind_of(event), body) == event
        assert decode_event(kind_of(event), memoryview(body)) == event
        assert encode_event(decode_event(kind_of(event), body)) == body  # type: ignore[arg-type]

    comes_back()


@settings(max_examples=40, deadline=None)
@given(ANY_EVENT, TEXT, st.integers(0, 2**40), st.integers(0, 2**40))
def test_a_record_comes_back_with_its_envelope(event: Event, p: str, e: int, s: int) -> None:
    value = envelope(event, producer=p, epoch=e, sequence=s, time_ns=5)
    record = decode_record(9, encode_record(value))
    assert (record.offset, record.kind, record.envelope) == (9, kind_of(event), value)
    assert record.event() == event


# --- older and newer writers ------------------------------------------------------------------


def test_an_event_of_a_kind_that_is_not_known_is_kept_byte_for_byte() -> None:
    body = msgspec.msgpack.encode({"kind": "dreamed", "of": "sheep"})
    assert decode_event("dreamed", memoryview(body)) == UnknownEvent(kind="dreamed", body=body)
    assert decode_event("dreamed", b"\xc1 no msgpack") == UnknownEvent(
        "dreamed", b"\xc1 no msgpack"
    )


@pytest.mark.parametrize("event", ONE_OF_EACH, ids=kind_of)
def test_fields_of_a_newer_writer_are_skipped(event: Event) -> None:
    tree = msgspec.msgpack.decode(encode_event(event))
    newer = {"a_new_field": {"deep": [1]}, **tree, "another": b"x"}
    if "generation" in newer:
        newer["generation"] = {**newer["generation"], "a_new_field": 1}
    assert decode_event(kind_of(event), msgspec.msgpack.encode(newer)) == event


def test_arrays_of_a_newer_writer_may_be_longer() -> None:
    span = msgspec.msgpack.encode([0, 3, 7, "new"])
    assert msgspec.msgpack.decode(span, type=VersionSpan) == VersionSpan(0, 3, 7)
    value = envelope(RunFinished(reason="x"), producer="p", epoch=1, sequence=1, time_ns=1)
    longer = msgspec.msgpack.encode([*msgspec.structs.astuple(value), "new"])
    assert msgspec.msgpack.decode(longer, type=Envelope) == value


def test_fields_that_an_older_writer_did_not_know_have_defaults() -> None:
    old = {"kind": "rendered", "drawing": "g1.s0.d0", "renderer": "r"}
    assert decode_event("rendered", msgspec.msgpack.encode(old)) == Rendered(
        drawing="g1.s0.d0", renderer="r"
    )
    newer = Finding(detector="answer_text", detail="announces the hard answer")
    now = {**old, "fingerprint": b"\x01\x02", "findings": [msgspec.to_builtins(newer)]}
    assert decode_event("rendered", msgspec.msgpack.encode(now)) == Rendered(
        drawing="g1.s0.d0", renderer="r", fingerprint=b"\x01\x02", findings=[newer]
    )
    assert Sampling(temperature=1.0) == Sampling(temperature=1.0, top_p=1.0, top_k=0, seed=None)
    assert b"top_p" not in msgspec.msgpack.encode(Sampling(temperature=1.0))


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("run_finished", b""),
        ("run_finished", b"\xc1"),
        ("run_finished", msgspec.msgpack.encode({"kind": "run_finished"})),
        ("run_finished", msgspec.msgpack.encode({"kind": "run_finished", "reason": 3})),
        ("run_finished", msgspec.msgpack.encode({"reason": "steps"})),
        ("run_finished", encode_event(ONE_OF_EACH[0])),  # a body of another kind
    ],
)
def test_a_known_kind_whose_body_does_not_fit_is_refused(kind: str, body: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode_event(kind, body)


# --- damage -----------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.sampled_from(ONE_OF_EACH), st.data())
def test_any_changed_byte_of_a_record_is_noticed(event: Event, data: st.DataObject) -> None:
    sound = encode_record(envelope(event, producer="p", epoch=1, sequence=2, time_ns=3))
    place = data.draw(st.integers(0, len(sound) - 1))
    flip = data.draw(st.integers(1, 255))
    damaged = bytearray(sound)
    damaged[place] ^= flip
    with pytest.raises(RecordDamaged, match="offset 77"):
        decode_record(77, bytes(damaged))


@given(st.sampled_from(ONE_OF_EACH), st.data())
def test_a_record_that_is_cut_off_or_too_long_is_noticed(event: Event, data: Any) -> None:
    sound = encode_record(envelope(event, producer="p", epoch=1, sequence=2, time_ns=3))
    for damaged in (sound[: data.draw(st.integers(0, len(sound) - 1))], sound + b"\0"):
        with pytest.raises(RecordDamaged, match="offset 5"):
            decode_record(5, damaged)


def test_a_sound_checksum_over_no_envelope_is_damage_too() -> None:
    import crc32c

    payload = msgspec.msgpack.encode(["not", "an", "envelope"])
    with pytest.raises(RecordDamaged, match="offset 5"):
        decode_record(5, crc32c.crc32c(payload).to_bytes(4, "little") + payload)


# --- arrays, ids, blobs -----------------------------------------------------------------------


def test_arrays_are_little_endian_four_bytes_a_value() -> None:
    assert pack_tokens([1, -1, 2**31 - 1, 258]).hex() == "01000000ffffffffffffff7f02010000"
    assert pack_logprobs([-0.5, 0.0, float("-inf")]).hex() == "000000bf00000000000080ff"
    assert (pack_tokens([]), pack_logprobs([])) == (b"", b"")


@given(st.lists(st.integers(-(2**31), 2**31 - 1)), st.lists(st.floats(width=32)))
def test_packed_arrays_come_back(ids: list[int], logprobs: list[float]) -> None:
    assert unpack_tokens(pack_tokens(ids)).tolist() == ids
    assert np.array_equal(unpack_logprobs(pack_logprobs(logprobs)), logprobs, equal_nan=True)
    assert unpack_tokens(pack_tokens(ids)).dtype == np.int32
    assert not unpack_tokens(pack_tokens([1])).flags.writeable


@pytest.mark.parametrize(
    ("ids", "error"),
    [
        ([2**31], OverflowError),
        ([-(2**31) - 1], OverflowError),
        ([2**70], OverflowError),
        (np.array([2**31], dtype=np.int64), OverflowError),
        ([1.5], TypeError),
        ([True], TypeError),
        (["1"], TypeError),
    ],
)
def test_a_token_id_that_does_not_fit_is_refused_and_never_wrapped(ids: Any, error: type) -> None:
    with pytest.raises(error):
        pack_tokens(ids)


@given(st.integers(0, 10**9), st.integers(0, 99), st.integers(0, 99))
def test_an_id_leads_to_its_parents_and_back_to_its_numbers(g: int, s: int, d: int) -> None:
    proposal = proposal_id(group_id(g), s)
    drawing = drawing_id(proposal, d)
    assert drawing == f"g{g}.s{s}.d{d}"
    assert (parent(drawing), parent(proposal), parent(group_id(g))) == (proposal, f"g{g}", "")
    assert {root(drawing), root(proposal), root(group_id(g))} == {f"g{g}"}
    assert (indices(drawing), indices(proposal), indices(f"g{g}")) == ((g, s, d), (g, s), (g,))


@pytest.mark.parametrize(
    "text", ["", "g", "1", "g1.", "g1.d0", "g1.s0.d0.e0", "g-1", "g01", "g1.s00", "g1\n", "g\u0661"]
)
def test_an_id_has_one_spelling(text: str) -> None:
    with pytest.raises(ValueError, match="is no lineage id"):
        indices(text)


def test_an_event_settles_its_own_work_and_only_stages_do() -> None:
    settled = {kind_of(event): work.completes(event) for event in ONE_OF_EACH}
    assert {kind: key for kind, key in settled.items() if key is not None} == {
        "proposed": "propose/g3",
        "coded": "code/g3.s0",
        "rendered": "render/g3.s0.d0",
        "answered": "answer/g3.s0.d0/hard",
        "probed": "answer/g3.s0.d0/hard/blind",
        "work_abandoned": "code/g3.s1",
    }
    assert work.completes(UnknownEvent("dreamed", b"")) is None


def test_a_blob_is_named_by_its_content() -> None:
    empty = "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8"  # blake2b-256
    assert blob_digest(b"") == empty
    assert blob_digest(memoryview(b"x")) == blob_digest(b"x") != empty
