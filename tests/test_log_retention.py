"""`mmzero log archive | restore | compact` from outside, and which pictures compaction keeps."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from builders import coded, proposed, rendered, run_started, whole_tree
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st
from log_contents import databases
from test_cli import CONFIG, mmzero, step_on
from typer.testing import CliRunner

from mmzero_async.filelock import FileLock
from mmzero_async.log.reader import LogReader
from mmzero_async.log.verify import verify
from mmzero_async.log.writer import LogWriter, Submission
from mmzero_async.ops.cli import app
from mmzero_async.projections.retention import Keep, needed_pictures
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import (
    Answered,
    Event,
    GroupRejected,
    Rendered,
    UnknownEvent,
    encode_event,
    kind_of,
)


def picture_of(drawing: str) -> bytes:
    """Each drawing has one of its own."""
    return f"picture of {drawing} ".encode() * 400


def digest_of(drawing: str) -> str:
    return blob_digest(picture_of(drawing))


def with_pictures(event: Event) -> tuple[Event, dict[str, bytes]]:
    match event:
        case Rendered() if event.picture is not None:
            data = picture_of(event.drawing)
            named = Rendered(drawing=event.drawing, renderer="x", picture=blob_digest(data))
            return named, {blob_digest(data): data}
        case Answered():
            event.generation.images.append(digest_of(event.drawing))
            return event, {}
        case _:
            return event, {}


def write_run(folder: Path, events: Sequence[Event]) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(CONFIG.to_json())
    started = run_started(CONFIG, folder.name)
    writer = LogWriter(folder / "log", run=folder.name, map_gib=1, sync="nosync")
    append(writer, [started, *events])
    writer.close()
    return folder


def append(writer: LogWriter, events: Sequence[Event]) -> None:
    for event in events:
        event, blobs = with_pictures(event)
        epoch, following = writer.position("test")
        sent = Submission("test", epoch or 1, following, kind_of(event), encode_event(event), blobs)
        assert not isinstance(writer.append([[sent]])[0], Exception)


def needed(run: Path, keep: Keep) -> set[str]:
    reader = LogReader.open(run / "log")
    try:
        return needed_pictures(reader, keep)
    finally:
        reader.close()


def reject(role: str, group: str) -> GroupRejected:
    return GroupRejected(role=role, group=group, reason="consistency")  # type: ignore[arg-type]


def settled(number: int) -> list[Event]:
    """A tree of two pictures whose every group but the solver's is rejected."""
    group = f"g{number}"
    return [
        *whole_tree(group, proposals=1),
        reject("coder", f"{group}.s0"),
        reject("proposer", group),
    ]


def drawings(*numbers: int) -> set[str]:
    return {digest_of(f"g{n}.s0.d{j}") for n in numbers for j in range(2)}


def two_steps() -> list[Event]:
    """Steps on g0 and g1, a rejected g2, a pending g3, and g4 whose answers are due."""
    return [
        *(event for n in range(4) for event in settled(n)),
        *step_on(["g0.s0.d0", "g0.s0.d1"], step=1),
        *step_on(["g1.s0.d0", "g1.s0.d1"], step=2),
        *(reject("solver", f"g2.s0.d{j}") for j in range(2)),
        proposed("g4", [True]),
        coded("g4.s0", [True, True]),
        rendered("g4.s0.d0"),
        rendered("g4.s0.d1"),
    ]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "runs" / "demo", two_steps())


def log(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["log", *map(str, arguments)])


# --- what is needed -----------------------------------------------------------------------------


def test_pending_groups_due_work_and_the_newest_steps_keep_their_pictures(run: Path) -> None:
    open_ones = drawings(3, 4)
    assert needed(run, 0) == open_ones
    assert needed(run, 1) == open_ones | drawings(1)
    assert needed(run, 2) == needed(run, 50) == needed(run, "trained")
    assert needed(run, "trained") == open_ones | drawings(0, 1)


@settings(max_examples=30)
@given(data=st.data())
def test_whatever_was_trained_or_rejected_a_pending_picture_stays(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Each tree gets a fate for its two solver groups; more steps keep more."""
    fates = data.draw(st.lists(st.sampled_from(["train", "reject", "leave"]), max_size=6))
    events: list[Event] = [event for n in range(len(fates)) for event in settled(n)]
    step = 0
    for n, fate in enumerate(fates):
        if fate == "train":
            step += 1
            events += step_on([f"g{n}.s0.d0", f"g{n}.s0.d1"], step=step)
        elif fate == "reject":
            events += [reject("solver", f"g{n}.s0.d{j}") for j in range(2)]
    run = write_run(tmp_path_factory.mktemp("fates") / "run", events)
    trained = [n for n, fate in enumerate(fates) if fate == "train"]
    pending = [n for n, fate in enumerate(fates) if fate == "leave"]
    for keep in (0, 1, 3):
        newest = trained[len(trained) - keep :] if keep < len(trained) else trained
        assert needed(run, keep) == drawings(*pending, *newest)
    assert needed(run, "trained") == drawings(*pending, *trained)


def test_a_log_with_events_of_a_newer_version_is_not_compacted(run: Path) -> None:
    writer = LogWriter(run / "log", run="demo", map_gib=1)
    event = UnknownEvent("from_the_future", b"\x80")
    epoch, following = writer.position("test")
    writer.append([[Submission("test", epoch, following, event.kind, event.body)]])
    writer.close()
    whole = databases(run / "log")
    refused = log("compact", run, "--drop")
    assert "from_the_future" in str(refused.exception)
    assert databases(run / "log") == whole


# --- the commands -------------------------------------------------------------------------------


def test_an_archive_becomes_a_run_again_with_what_stood_beside_the_log(
    run: Path, tmp_path: Path
) -> None:
    made = mmzero("log", "archive", "demo", tmp_path / "kept", cwd=run.parent.parent)
    assert made.returncode == 0, made.stderr
    assert "10 pictures" in made.stdout and "compared with the log" in made.stdout
    restored = log("restore", tmp_path / "kept", tmp_path / "again")
    assert restored.exit_code == 0 and "10 pictures restored" in restored.stdout
    assert databases(tmp_path / "again" / "log") == databases(run / "log")
    status = CliRunner().invoke(app, ["status", str(tmp_path / "again"), "--json"])
    assert json.loads(status.stdout)["events"] == len(two_steps()) + 1
    assert "exists already" in str(log("restore", tmp_path / "kept", run).exception)
    assert "exists already" in str(log("archive", run, tmp_path / "kept").exception)


def test_compacting_needs_an_archive_or_a_word_and_a_dry_run_changes_nothing(
    run: Path, tmp_path: Path
) -> None:
    whole = databases(run / "log")
    assert "--drop" in str(log("compact", run).exception)
    assert "say a number" in str(log("compact", run, "--keep-pictures", "some").exception)
    told = log("compact", run, "--dry-run", "--keep-pictures", "1").stdout
    assert "4 pictures" in told and "would be dropped; 6 kept" in told
    assert databases(run / "log") == whole


def test_what_was_dropped_is_told_everywhere_and_comes_back_from_the_archive(
    run: Path, tmp_path: Path
) -> None:
    kept, whole = tmp_path / "kept", databases(run / "log")
    done = log("compact", run, "--keep-pictures", "none", "--archive", kept)
    assert done.exit_code == 0, done.exception
    assert "6 pictures" in done.stdout and "to be dropped; 4 kept" in done.stdout
    assert "MB before" in done.stdout and f"archive {kept}" in done.stdout
    assert databases(run / "log")["events"] == whole["events"]
    told = log("verify", run).stdout
    assert "6 more dropped by compaction" in told and "verify: clean" in told
    assert json.loads(log("verify", run, "--json").stdout)["dropped"] == 6
    assert f"6 blobs dropped by compaction, archive {kept}" in log("stat", run).stdout
    assert json.loads(log("stat", run, "--json").stdout)["dropped_to"] == {str(kept): 6}
    traced = CliRunner().invoke(app, ["trace", str(run), "g0.s0.d0"]).stdout
    assert "dropped by compaction at" in traced and f"archive {kept}" in traced
    still = CliRunner().invoke(app, ["trace", str(run), "g3.s0.d0"]).stdout
    assert "picture" in still and "dropped" not in still
    refused = mmzero("dataset", run)
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert f"mmzero log restore {kept} RUN --pictures" in refused.stderr
    back = log("restore", kept, run, "--pictures")
    assert back.exit_code == 0 and "6 pictures put back" in back.stdout
    assert databases(run / "log")["blobs"] == whole["blobs"]
    assert CliRunner().invoke(app, ["dataset", str(run), "--resume"]).exit_code == 0


def test_a_compacted_run_replays_and_audits_as_before_and_goes_on(run: Path) -> None:
    def figures() -> dict[str, object]:
        told = CliRunner().invoke(app, ["replay", str(run), "--audit", "--json"])
        found = json.loads(told.stdout)
        return {name: found[name] for name in ("events", "roles", "rebuilt", "audit")}

    before = figures()
    assert before["audit"]["clean"]  # type: ignore[index]
    assert log("compact", run, "--keep-pictures", "none", "--drop").exit_code == 0
    assert figures() == before
    writer = LogWriter(run / "log", run="demo", map_gib=1)
    append(writer, whole_tree("g5"))
    writer.close()
    assert figures()["audit"]["clean"]  # type: ignore[index]
    assert verify(run / "log").clean
    assert log("compact", run, "--keep-pictures", "none", "--drop").exit_code == 0
    assert needed(run, 0) == drawings(3, 4) | {
        digest_of(f"g5.s{i}.d{j}") for i in range(2) for j in range(2)
    }
    assert verify(run / "log").blobs == 8


def test_a_run_that_is_driven_or_written_is_not_compacted(run: Path) -> None:
    lock = FileLock(run / "run.lock")
    assert "Ctrl-C" in str(log("compact", run, "--drop").exception)
    lock.release()
    writer = LogWriter(run / "log", run="demo", map_gib=1)
    assert "is being written by process" in str(log("compact", run, "--drop").exception)
    writer.close()
    assert log("compact", run, "--drop").exit_code == 0
