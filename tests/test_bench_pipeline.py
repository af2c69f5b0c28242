"""The pipeline's bench: every figure, beside an engine that is asked the same. No times here."""

import json
import subprocess
import sys

import pytest

from mmzero_async.ops.bench import spent
from mmzero_async.ops.bench.pipeline import Went, figures
from mmzero_async.ops.bench.pipeline_run import Turn
from mmzero_async.ops.bench.spent import Spent

KEYS = {"figure", "value", "unit", "against", "rival", "ratio"}
STAGES = ("proposer", "coder", "renderer", "solver")
EXPECTED = {
    *("share_of_engine", "tokens_per_engine_second", "engine_computes", "engine_waits_for_core"),
    *("samples_in_flight", "request_seconds", "cpu_engine_front", "cpu_log_server"),
    *(f"cpu_{stage}" for stage in STAGES),
}


def turn(tokens: float) -> Turn:
    names = ("engine_core", "engine_front", "log_server", *STAGES)
    return Turn(tokens, in_flight=20.0, seconds=1.0, used={n: Spent(0.5, 0.1) for n in names})


def test_the_share_is_the_pipelines_tokens_over_the_engines_own() -> None:
    went = Went([turn(90), turn(96), turn(99)], [turn(100), turn(100), turn(90)], capacity=24)
    told = {line["figure"]: line for line in (json.loads(f.line()) for f in figures(went))}
    assert told.keys() == EXPECTED
    assert (told["share_of_engine"]["value"], told["share_of_engine"]["rival"]) == (96, 100)
    assert told["share_of_engine"]["ratio"] == 0.96
    assert "each turn 0.900, 0.960, 1.100" in told["share_of_engine"]["note"]
    assert told["tokens_per_engine_second"]["value"] == 192


def test_processor_time_is_told_for_a_process_and_what_it_started() -> None:
    burn = "sum(i for i in range(3_000_000)); input()"
    start = f"import subprocess as s; s.run([{sys.executable!r}, '-c', {burn!r}])"
    shell = [sys.executable, "-c", start]
    with subprocess.Popen(shell, stdin=subprocess.PIPE) as parent:
        try:
            while len(pids := spent.family(parent.pid)) < 2 or spent.spent(pids[1:]).ran < 0.02:
                assert parent.poll() is None
        finally:
            parent.communicate(b"\n")
    assert spent.family(parent.pid) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_pipeline_bench_tells_every_figure_beside_the_engine_alone() -> None:
    command = [sys.executable, "-m", "mmzero_async.ops.bench.pipeline", "--quick"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    told = {line["figure"]: line for line in map(json.loads, ran.stdout.splitlines())}
    assert told.keys() == EXPECTED
    for figure in told.values():
        assert figure.keys() - {"note"} == KEYS
        assert figure["value"] >= 0 and figure["rival"] > 0, figure
    assert told["share_of_engine"]["value"] > 0 and told["share_of_engine"]["unit"] == "tokens/s"
    assert "no learner" in told["share_of_engine"]["note"]
