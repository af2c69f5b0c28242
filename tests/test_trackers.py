"""Trackers: every figure of the log once, whatever dies between, under documented names."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest
from growing import Growing, growing_log
from hypothesis import given, settings
from hypothesis import strategies as st
from learned_run import learned
from test_cli import CONFIG, mmzero, step_on, write_run

from mmzero_async.config import load
from mmzero_async.log.reader import LogReader
from mmzero_async.schemas.events import (
    Evaluated,
    Event,
    GroupRejected,
    Measured,
    Paced,
    Rendered,
    RunFinished,
)
from mmzero_async.trackers import series
from mmzero_async.trackers.follow import WANTED, Follower, opened
from mmzero_async.trackers.port import Point
from mmzero_async.trackers.series import Series

Key = tuple[str, int]


def scored(version: int, mode: str = "greedy") -> Evaluated:
    return Evaluated(
        role="solver",
        version=version,
        moment="after" if version else "before",
        mode=mode,
        by_kind={"bar_sum": (3, 4), "bar_value": (4, 4)},
        hard_kinds=["bar_sum"],
        seed=1,
    )


def measured(seconds: float) -> Measured:
    return Measured(
        source="supervisor", figures={"running_seconds": seconds, "resident_bytes": 1e9}
    )


def story(steps: int) -> list[Event]:
    """Steps with what stands between them; two measurements share a second."""
    events: list[Event] = [scored(0), scored(0, "sampled"), measured(0.2)]
    for step in range(1, steps + 1):
        events += [
            Rendered(drawing=f"g{step}.s0.d0", renderer="r", failure="invalid"),
            GroupRejected(role="solver", group=f"g9{step}.s0.d0", reason="stale"),
            *step_on([f"g{step}.s0.d0"], step),
            measured(step + 0.1),
            measured(step + 0.2),
        ]
    return [
        *events,
        Paced(role="solver", step=steps, eta=2, before=4, reason="calm"),
        scored(steps),
    ]


def points_of(run: Path) -> dict[Key, float]:
    """By the log alone: the first value of a series' step counts."""
    found: dict[Key, float] = {}
    state = Series()
    reader = LogReader.open(run / "log")
    for record in reader.scan(where=WANTED):
        for point in state.apply(record):
            found.setdefault((point.series, point.step), point.value)
    reader.close()
    return found


class Board:
    """A tracker that keeps what it gets, and knows it."""

    def __init__(self, points: list[Point]) -> None:
        self.points, self.flushed = points, len(points)

    def newest(self) -> Mapping[str, int]:
        newest: dict[str, int] = {}
        for point in self.points:
            newest[point.series] = max(point.step, newest.get(point.series, 0))
        return newest

    def log(self, points: Sequence[Point]) -> None:
        self.points += points

    def flush(self) -> None:
        self.flushed = len(self.points)

    def close(self) -> None:
        """Nothing is held back."""


def in_tensorboard(run: Path) -> list[tuple[Key, float]]:
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    return [
        ((value.tag, event.step), value.simple_value)
        for file in sorted((run / "tracker" / "tensorboard").glob("*tfevents*"))
        for event in LegacyEventFileLoader(str(file)).Load()
        for value in event.summary.value
    ]


def assert_shown_once(run: Path) -> None:
    shown = in_tensorboard(run)
    counts = Counter(key for key, _ in shown)
    assert [key for key, count in counts.items() if count > 1] == []
    expected = points_of(run)
    assert dict(shown) == pytest.approx(expected, rel=1e-6)
    assert len(expected) > 20


# --- what the figures are ---------------------------------------------------------------------


def test_a_step_s_figures_are_its_metrics_its_terms_and_what_was_rejected_before_it(
    tmp_path: Path,
) -> None:
    found = points_of(write_run(tmp_path / "r", story(2)))
    assert found["solver/loss", 2] == 0.5
    assert found["solver/term/answer", 1] == pytest.approx(0.45)
    assert found["solver/term/format", 1] == pytest.approx(0.1)
    assert found["solver/rejected/stale", 2] == 1
    assert found["solver/eta", 2] == 2
    assert found["heldout/greedy/hard", 0] == 0.75 and found["heldout/greedy/easy", 2] == 1.0
    assert found["heldout/sampled/kind/bar_sum", 0] == 0.75
    assert found["run/resident_bytes", 1] == 1e9 and found["run/render_success", 2] == 1.0
    assert not any(name.startswith("proposer/") for name, _ in found)


def test_every_figure_has_its_line_in_the_table_and_every_line_a_figure(
    tmp_path: Path, tiny_folder: Path
) -> None:
    run = learned(tmp_path / "demo", tiny_folder)
    with growing_log(run) as growing:
        growing.say(scored(0), measured(3.0))
    names = {name for name, _ in points_of(run)} | {name for name, _ in points_of_story(tmp_path)}
    assert [name for name in names if not series.named_by(name)] == []
    # Not of this run: what settings, ages and losses bring that it does not have.
    absent = {
        *("<role>/sample_ess", "<role>/ranks", "<role>/waited_seconds", "<role>/share_<cause>"),
        *("<role>/picture_effect_mean", "<role>/picture_effect_max"),
        *("<role>/staleness_mean", "<role>/staleness_max", "<role>/seconds"),
        *(name for name in series.TABLE if name.startswith("<role>/last_")),
    }
    told = {line for name in names for line in series.named_by(name)[:1]}
    unused = set(series.TABLE) - told - absent
    assert {name for name in unused if "<age>" not in name and "older" not in name} == set()


def points_of_story(folder: Path) -> dict[Key, float]:
    return points_of(write_run(folder / "story", story(1)))


@pytest.mark.parametrize("wrong", ["solver/nonsense", "painter/loss", "heldout/loudly/easy", "x"])
def test_a_name_that_nobody_wrote_down_is_found_out(wrong: str) -> None:
    assert series.named_by(wrong) == []


# --- once, whatever happens -------------------------------------------------------------------


@settings(max_examples=25)
@given(
    cuts=st.lists(st.tuples(st.integers(1, 12), st.integers(0, 30)), max_size=8),
    steps=st.integers(1, 5),
)
def test_followers_that_come_and_go_hand_on_every_point_once(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[tuple[int, int]], steps: int
) -> None:
    """Each reads what there is, and is cut down with the last few points not yet on disk."""
    run = write_run(tmp_path_factory.mktemp("follow") / "r", [])
    events, kept = story(steps), list[Point]()
    with growing_log(run) as growing:
        for take, lost in [*cuts, (len(events), 0)]:
            growing.say(*events[:take])
            events = events[take:]
            board = Board(kept)
            Follower(growing.writer.reader(), board).catch_up()
            kept = board.points[: max(0, len(board.points) - lost)]
        Follower(growing.writer.reader(), Board(kept)).catch_up()
    counts = Counter((point.series, point.step) for point in kept)
    assert max(counts.values()) == 1
    assert counts.keys() == points_of(run).keys()  # what a cut took came again


def test_a_log_that_is_over_is_shown_in_tensorboard_and_again_adds_nothing(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = write_run(tmp_path / "r", [*story(3), RunFinished(reason="limit")])
    first = mmzero("track", run, "--kind", "tensorboard")
    assert first.returncode == 0, first.stderr
    assert_shown_once(run)
    assert "0 new points" in mmzero("track", run, "--kind", "tensorboard", "--no-follow").stdout
    assert_shown_once(run)


def test_an_event_file_that_was_torn_is_gone_on_from(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = write_run(tmp_path / "r", story(3))
    assert mmzero("track", run, "--kind", "tensorboard", "--no-follow").returncode == 0
    [file] = (run / "tracker" / "tensorboard").glob("*tfevents*")
    file.write_bytes(file.read_bytes()[:-150])
    assert len(in_tensorboard(run)) < len(points_of(run))
    assert mmzero("track", run, "--kind", "tensorboard", "--no-follow").returncode == 0
    assert_shown_once(run)


def start(run: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "mmzero_async.workers.tracker", "--run-dir", run],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def until_shown(run: Path, key: Key) -> None:
    deadline = time.monotonic() + 60
    while key not in dict(in_tensorboard(run)):
        assert time.monotonic() < deadline, f"{key} is not shown"
        time.sleep(0.1)


def test_a_tracker_that_is_killed_is_followed_by_one_that_repeats_nothing(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    config = load("seedling", ["tracker.kind=tensorboard"])
    run = write_run(tmp_path / "r", story(2), config)
    process = start(run)
    until_shown(run, ("heldout/greedy/hard", 2))
    with growing_log(run) as growing:
        killed_while_it_works(run, process, growing)
    assert_shown_once(run)


def killed_while_it_works(run: Path, process: subprocess.Popen[bytes], growing: Growing) -> None:
    growing.say(*step_on(["g7.s0.d0"], 3))
    process.kill()
    process.wait()
    growing.say(*step_on(["g8.s0.d0"], 4))
    again = start(run)
    until_shown(run, ("solver/loss", 4))
    # Asked to stop, it shows what is there by then.
    growing.say(*step_on(["g9.s0.d0"], 5))
    again.send_signal(signal.SIGTERM)
    assert again.wait(60) == 0
    assert ("solver/loss", 5) in dict(in_tensorboard(run))
    growing.say(RunFinished(reason="limit"))
    last = start(run)
    assert last.wait(60) == 0, "it ends by itself with its run"


def test_two_trackers_of_one_run_are_one_too_many(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = write_run(tmp_path / "r", story(1))
    with opened("tensorboard", run, "p"):
        refused = mmzero("track", run, "--kind", "tensorboard", "--no-follow")
    assert refused.returncode == 1 and f"process {os.getpid()} shows" in refused.stderr


def test_a_tracker_that_is_not_installed_or_not_chosen_says_what_to_do(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", story(1), CONFIG)
    assert "choose tensorboard, wandb or trackio" in mmzero("track", run).stderr
    wrong = mmzero("track", run, "--kind", "paper")
    assert wrong.returncode == 1 and "--kind paper" in wrong.stderr
    missing = [kind for kind in ("wandb", "trackio") if find_spec(kind) is None]
    for kind in missing:
        refused = mmzero("track", run, "--kind", kind)
        assert refused.returncode == 1
        assert f"pip install 'mmzero-async[{kind}]'" in refused.stderr
        # In a run the process ends for good, and the run goes on without it.
        (run / "config.json").write_text(load("seedling", [f"tracker.kind={kind}"]).to_json())
        process = start(run)
        assert process.wait(60) == os.EX_CONFIG
        assert process.stderr is not None and b"pip install" in process.stderr.read()


@pytest.mark.skipif(find_spec("wandb") is None, reason="wandb is an extra")
def test_wandb_offline_gets_every_point_once_across_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = write_run(tmp_path / "r", story(2))
    assert mmzero("track", run, "--kind", "wandb", "--no-follow").returncode == 0
    with growing_log(run) as growing:
        growing.say(*step_on(["g9.s0.d0"], 3))
    again = mmzero("track", run, "--kind", "wandb", "--no-follow")
    expected = points_of(run)
    new = sum(step == 3 for (name, step) in expected if name.startswith("solver/"))
    assert f"{new} new points" in again.stdout
    note = json.loads((run / "tracker" / "wandb.json").read_text())
    assert note["solver/loss"] == 3
    assert list((run / "tracker" / "wandb").glob("offline-run-*"))
