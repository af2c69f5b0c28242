"""The figures of real processes over HTTP, and the dashboard and table that name them."""

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from builders import run_started
from fake_engine import FakeEngine
from prometheus_client.parser import text_string_to_metric_families
from test_curve_processes import processes, until
from test_worker_provenance import respond, settings

from mmzero_async import metrics as figures
from mmzero_async.config import ConfigError, load, overridden
from mmzero_async.learner import measured
from mmzero_async.metrics import TABLE, Metrics
from mmzero_async.metrics_http import serving
from mmzero_async.ops import scrape, tail
from mmzero_async.schemas.events import ROLES, PolicyPublished, StepCommitted
from mmzero_async.telemetry_options import MetricsOptions
from mmzero_async.transport.client import LogClient

ROOT = Path(__file__).parent.parent
FREE = MetricsOptions(port=0)


async def get(url: str, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url + path) as reply:
        return reply.status, await reply.text()


def samples(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def value(text: str, name: str, **labels: str) -> float:
    """The sum over what has these labels."""
    return sum(v for said, v in samples(text).get(name, []) if labels.items() <= said.items())


@pytest.mark.timeout(600)
async def test_processes_of_a_run_serve_what_they_do_and_say_when_they_have_joined(
    tmp_path: Path,
) -> None:
    config = overridden(settings("seedling"), ["metrics.port=0"], "a test")
    run = tmp_path / "demo"
    run.mkdir()
    (run / "config.json").write_text(config.to_json())
    log_url = f"tcp://127.0.0.1:{config.log.port}"

    def url(process: str) -> str:
        file = run / "metrics" / f"{process}.url"
        return file.read_text() if file.exists() else ""

    async def figure(process: str, name: str, **labels: str) -> float:
        return value((await get(url(process), "/metrics"))[1], name, **labels)

    async def none_of(role: str) -> bool:
        return not await figure("log-server", "mmzero_workers", role=role)

    async with FakeEngine(respond) as engine:
        engine.adapters |= {f"{role}@0": "x" for role in ROLES}
        with processes(run) as children:
            # Without a log server a worker is well, and not ready.
            children.start(
                "coder",
                *("workers.coder", "--run-dir", run, "--worker", "coder-0"),
                *("--log-url", log_url, "--engine-url", engine.url),
            )
            await until(lambda: bool(url("coder-0")))
            assert (await get(url("coder-0"), "/healthz"))[0] == 200
            assert (await get(url("coder-0"), "/readyz"))[0] == 503
            children.start("server", "workers.log_server", "--run-dir", run)
            async with LogClient.connect(
                log_url, worker="feeder", role="test", config_digest=config.digest(), patience=120.0
            ) as client:
                await client.append([run_started(config, run.name)])
                for role in ROLES:
                    policy = f"{role}@0"
                    event = PolicyPublished(
                        role=role, version=0, policy=policy, checkpoint="c", digest="d"
                    )
                    await client.append([event])
                for stage, module in (("proposer", "proposer"), ("renderer", "renderer")):
                    children.start(
                        stage,
                        *(f"workers.{module}", "--run-dir", run, "--worker", f"{stage}-0"),
                        *("--log-url", log_url, "--engine-url", engine.url),
                    )
                await true(lambda: figure("renderer-0", "mmzero_renders_total", outcome="picture"))
                assert (await get(url("coder-0"), "/readyz"))[0] == 200
                await true(lambda: figure("log-server", "mmzero_ready"))  # within a heartbeat
                assert (await get(url("log-server"), "/readyz"))[0] == 200
                assert await figure("coder-0", "mmzero_ready") == 1
                assert await figure("coder-0", "mmzero_engine_tokens_total", what="generated") > 0
                assert await figure("coder-0", "mmzero_engine_seconds_count") >= 1
                done = {"stage": "code", "outcome": "done"}
                assert await figure("coder-0", "mmzero_work_seconds_count", **done) >= 1
                kind = {"kind": "policy_published"}
                assert await figure("log-server", "mmzero_events_appended_total", **kind) == 3
                assert await figure("log-server", "mmzero_commit_seconds_count") >= 4
                # Nobody answers questions: what is due there shows.
                await true(lambda: figure("log-server", "mmzero_due", stage="answer"))
                assert await figure("log-server", "mmzero_workers", role="coder") == 1
                assert await figure("log-server", "process_resident_memory_bytes") > 1 << 20
                targets = {g["labels"]["process"] for g in json.loads(scrape.scrape(run))}
                assert targets == {"log-server", "coder-0", "proposer-0", "renderer-0"}
            children.kill("coder")
            await true(lambda: none_of("coder"))
    lines = tail.follow(run, tail.Wanted(role="coder"), forever=False, last=999)
    done_lines = [line for line in lines if line["event"] == "done"]
    assert done_lines, "no line of a piece of work"
    keys = {"run", "host", "process", "worker", "role", "version", "lineage", "work"}
    assert all(keys <= line.keys() for line in done_lines)


async def true(figure: Callable[[], Any]) -> None:
    async with asyncio.timeout(300):
        while True:
            try:
                if await figure():
                    return
            except (aiohttp.ClientError, ValueError):  # not listening yet
                pass
            await asyncio.sleep(0.2)


def test_a_step_is_counted_with_its_loss_and_staleness() -> None:
    metrics = Metrics()
    told = {"seconds": 2.0, "waited_seconds": 1.5, "loss": -0.25, "staleness_max": 3.0}
    for version in (1, 2):
        step = StepCommitted(
            role="solver",
            step=version,
            version=version,
            groups=["g"],
            offsets=[1],
            checkpoint="c",
            digest="d",
            batch_digest="b",
            metrics=told,
        )
        measured.count(metrics, step)
    text = metrics.text().decode()
    assert value(text, "mmzero_learner_steps_total", role="solver") == 2
    assert value(text, "mmzero_learner_step_seconds_sum", role="solver") == 4.0
    assert value(text, "mmzero_learner_waited_seconds_total") == 3.0
    assert value(text, "mmzero_learner_version", role="solver") == 2
    assert value(text, "mmzero_learner_last", what="loss") == -0.25
    assert value(text, "mmzero_learner_last", what="staleness_max") == 3.0


def test_a_role_that_left_is_told_as_none() -> None:
    metrics = Metrics()
    metrics.set_all(figures.WORKERS, {"coder": 2, "solver": 1})
    metrics.set_all(figures.WORKERS, {"solver": 3})
    told = samples(metrics.text().decode())["mmzero_workers"]
    assert sorted((labels["role"], n) for labels, n in told) == [("coder", 0), ("solver", 3)]


async def test_a_main_loop_that_hangs_is_neither_well_nor_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = Metrics()
    with serving(metrics, FREE, tmp_path, "p", structlog.get_logger()):
        url = (tmp_path / "metrics" / "p.url").read_text()
        metrics.beat(ready=True)
        assert [(await get(url, path))[0] for path in ("/healthz", "/readyz")] == [200, 200]
        monkeypatch.setattr(figures, "HUNG_SECONDS", -1.0)
        assert [(await get(url, path))[0] for path in ("/healthz", "/readyz")] == [503, 503]
    assert not list((tmp_path / "metrics").iterdir())


async def test_processes_share_a_range_of_ports_and_one_without_a_port_goes_on(
    tmp_path: Path,
) -> None:
    with serving(Metrics(), FREE, tmp_path, "a", structlog.get_logger()):
        port = int((tmp_path / "metrics" / "a.url").read_text().rpartition(":")[2])
        taken = MetricsOptions(port=min(port, 65435))
        with serving(Metrics(), taken, tmp_path, "b", structlog.get_logger()):
            url = (tmp_path / "metrics" / "b.url").read_text()
            assert not url.endswith(f":{port}") and (await get(url, "/healthz"))[0] == 200
    nowhere = MetricsOptions(port=0, host="203.0.113.1")  # of no interface
    with serving(Metrics(), nowhere, tmp_path, "c", structlog.get_logger()):
        assert not list((tmp_path / "metrics").iterdir())


def test_nothing_is_served_unless_wanted(tmp_path: Path) -> None:
    with serving(Metrics(), load().metrics, tmp_path, "p", structlog.get_logger()):
        assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match=r"metrics\.port"):
        load(overrides=["metrics.port=-2"])
    assert list(scrape.lines(tmp_path)) == [
        f"no process of {tmp_path} serves figures: start it with metrics.port=0"
    ]


def test_the_table_in_the_docs_and_the_dashboard_name_what_there_is() -> None:
    series = {name for figure in TABLE for name in figure.series}
    dashboard = json.loads((ROOT / "ops" / "grafana" / "mmzero.json").read_text())
    queries = [t["expr"] for panel in dashboard["panels"] for t in panel["targets"]]
    named = {name for query in queries for name in re.findall(r"mmzero_\w+", query)}
    assert named <= series
    shown = {figure.name for figure in TABLE if set(figure.series) & named}
    assert shown == {figure.name for figure in TABLE}
    by_series = {name: figure for figure in TABLE for name in figure.series}
    for query in queries:
        for labels in re.findall(r"\bby \(([^)]*)\)", query):
            known = {"le", "process"}
            known |= {x for n in re.findall(r"mmzero_\w+", query) for x in by_series[n].labels}
            assert set(labels.split(", ")) <= known, query
    text = (ROOT / "docs" / "METRICS.md").read_text()
    rows = dict(re.findall(r"^\| `(mmzero_\w+)` \| ([^|]*) \|", text, re.M))
    assert rows == {
        f.name + "_total" * (f.kind == "counter"): ", ".join(f"`{label}`" for label in f.labels)
        for f in TABLE
    }
