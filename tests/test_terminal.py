"""What people see of a run: a table on a terminal, lines elsewhere, figures for programs."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from builders import SCORED, records, run_started, whole_tree
from growing import Growing, growing_log
from hypothesis import given
from hypothesis import strategies as st
from terminal import COLOUR, ESCAPE, on_terminal
from test_cli import CONFIG, mmzero, step_on, with_picture, write_run

from mmzero_async.ops import view
from mmzero_async.ops.cli import app
from mmzero_async.projections.rates import SLOT, WINDOW, Rates
from mmzero_async.projections.report import Report
from mmzero_async.schemas.events import (
    Event,
    PolicyPublished,
    RunFinished,
    StageStalled,
)

STALLED = StageStalled(
    stage="answer", seconds=61.0, due=4, held=0, oldest="answer/g0.s0.d0/hard", waits_for="a solver"
)
PUBLISHED = PolicyPublished(role="solver", version=0, policy="solver@0", checkpoint="c", digest="d")
STORY: list[Event] = [
    PUBLISHED,
    SCORED,
    *whole_tree("g0"),
    *step_on(["g0.s0.d0", "g0.s0.d1"]),
    STALLED,
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "runs" / "demo", STORY)


@pytest.fixture
def growing(run: Path) -> Iterator[Growing]:
    with growing_log(run) as growing:
        yield growing


def report_of(events: list[Event]) -> Report:
    report = Report()
    for record in records([run_started(CONFIG, "demo"), *map(with_picture, events)]):
        report.apply(record)
    return report


def test_the_table_tells_backlog_rates_and_staleness_of_every_stage() -> None:
    tree = whole_tree("g1")
    report = report_of([*STORY, *tree[:2]])  # a second prompt, of which one proposal is drawn
    found = {row.stage: row for row in view.rows(report, CONFIG)}
    assert list(found) == [
        *("propose", "code", "render", "answer"),
        *("train/proposer", "train/coder", "train/solver"),
    ]
    assert (found["propose"].done, found["code"].done, found["answer"].done) == (2, 3, 8)
    assert (found["code"].waiting, found["render"].waiting) == (1, 2)
    solver = found["train/solver"]
    assert (solver.done, solver.version, solver.waiting, solver.enough) == (1, 1, 2, 2)
    assert solver.behind == 0 and found["answer"].behind == 1  # version 1 is not published yet
    assert found["answer"].version == 0 and found["render"].version is None
    assert found["code"].per_minute > 0


def test_rates_forget_what_is_older_than_their_window() -> None:
    report = report_of(STORY)
    later = report.newest + 10 * WINDOW
    assert report.rates.per_minute("code", report.newest) > 0
    assert report.rates.per_minute("code", later) == 0


@given(st.lists(st.floats(0, 600), min_size=1, max_size=80).map(sorted), st.floats(0, 120))
def test_a_rate_is_the_count_of_the_last_minute_but_for_a_slot(
    times: list[float], after: float
) -> None:
    start = 1e9
    rates = Rates()
    for seconds in times:
        rates.add("x", start + seconds)
    now = start + times[-1] + after
    lasted = min(WINDOW, max(SLOT, now - (start + times[0])))
    least = sum(now - (start + t) < WINDOW - SLOT for t in times)
    most = sum(now - (start + t) <= WINDOW + SLOT for t in times)
    assert least - 1e-6 <= rates.per_minute("x", now) * lasted / 60 <= most + 1e-6
    assert len(rates.slots) <= WINDOW / SLOT + 2


def test_on_a_terminal_status_is_a_table_in_colour_with_the_last_warning(run: Path) -> None:
    with on_terminal("status", run) as screen:
        assert screen.end() == 0
    for word in ("stage", "per min", "waiting", "train/solver", "held-out before, greedy"):
        assert word in screen.plain, screen.plain
    assert "last warning" in screen.plain and "answer stalled" in screen.plain
    assert COLOUR.search(screen.text)


def test_no_color_is_kept_by_tables_and_by_errors(run: Path) -> None:
    for command in (("status", run), ("status", run.parent / "nothing")):
        with on_terminal(*command, env={"NO_COLOR": "1"}) as screen:
            screen.end()
        assert not COLOUR.search(screen.text), screen.text
        with on_terminal(*command) as screen:
            screen.end()
        assert COLOUR.search(screen.text), screen.text


def test_where_there_is_no_terminal_there_are_plain_lines(run: Path) -> None:
    shown = mmzero("status", run)
    assert not ESCAPE.search(shown.stdout)
    assert "per min" not in shown.stdout and "solver       1 steps" in shown.stdout


def test_a_dumb_terminal_gets_lines_too(run: Path) -> None:
    with on_terminal("status", run, env={"TERM": "dumb"}) as screen:
        assert screen.end() == 0
    assert not ESCAPE.search(screen.text) and "per min" not in screen.text


def test_watch_follows_a_log_that_grows_and_ends_with_its_run(run: Path, growing: Growing) -> None:
    with on_terminal("status", run, "--watch", "--every", "0.1") as screen:
        screen.read_until("train/solver")
        growing.say(*step_on(["g0.s1.d0", "g0.s1.d1"], step=2)[-1:])
        screen.read_until("v2")
        growing.say(RunFinished(reason="limit"))
        assert screen.end() == 0
    assert "solver       2 steps, version 2" in screen.plain
    hidden, shown = screen.text.rfind("\x1b[?25l"), screen.text.rfind("\x1b[?25h")
    assert -1 < hidden < shown, "the cursor is back"


def test_watch_ends_with_ctrl_c_and_leaves_the_terminal_as_it_was(run: Path) -> None:
    with on_terminal("status", run, "--watch", "--every", "0.1") as screen:
        screen.read_until("train/solver")
        screen.process.send_signal(signal.SIGINT)
        assert screen.end() == 0
    assert "Traceback" not in screen.text
    assert screen.text.rfind("\x1b[?25l") < screen.text.rfind("\x1b[?25h")


def test_watch_without_a_terminal_says_a_line_and_for_programs_an_object(
    run: Path, growing: Growing
) -> None:
    growing.say(RunFinished(reason="limit"))
    told = mmzero("status", run, "--watch").stdout
    assert "steps: proposer 0 coder 0 solver 1" in told and not ESCAPE.search(told)
    watching = subprocess.run(
        [sys.executable, "-m", "mmzero_async.ops.cli", "status", run, "--watch", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    [found] = [json.loads(line) for line in watching.stdout.splitlines()]
    assert found["finished"] and found["per_minute"]["code"] > 0
    assert found["last_warning"]["what"].startswith("answer stalled")


# Commands that look and change nothing; those that do something say what they did instead.
READING = (
    *("status", "replay", "tail", "why", "explain", "trace", "metrics", "eval", "run-cluster"),
    *("log verify", "log scan", "log stat", "keys show", "cluster status"),
)


def commands(group: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{above}{name} ")
        else:
            yield f"{above}{name}", command


def test_every_reading_command_has_figures_for_programs() -> None:
    found = {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in commands(typer.main.get_command(app))
    }
    assert [name for name in READING if "--json" not in found[name]] == []


def test_trace_and_metrics_as_json(run: Path) -> None:
    traced = [
        json.loads(line) for line in mmzero("trace", run, "g0.s0.d0", "--json").stdout.splitlines()
    ]
    assert [event["kind"] for event in traced][:2] == ["proposed", "coded"]
    assert traced[-1]["kind"] == "step_committed" and traced[-1]["event"]["step"] == 1
    (run / "metrics").mkdir()
    (run / "metrics" / "solver-0.url").write_text("http://127.0.0.1:9000")
    served = json.loads(mmzero("metrics", run, "--json").stdout)
    assert served == [{"process": "solver-0", "url": "http://127.0.0.1:9000"}]
