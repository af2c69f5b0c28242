"""Several engines behind one client, over real HTTP: who is asked, who is left out, who comes back.

The engines are fake, their faults are not: connections closed in the middle, silence, refusals,
ports that nobody listens at. Real vLLM is in test_pool_vllm.py.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from engine_questions import ask
from fake_engine import FakeEngine
from fake_weight_engine import FakeWeightEngine
from hypothesis import given, settings
from hypothesis import strategies as st
from test_publishing import publisher_to, weights_in

from mmzero_async import metrics as figures
from mmzero_async.engine_options import PoolOptions
from mmzero_async.engines import http, member, pool
from mmzero_async.engines.client import VllmClient
from mmzero_async.engines.errors import (
    EngineRejected,
    EngineSlow,
    EngineUnavailable,
    PolicyNotLoaded,
    PublishFailed,
)
from mmzero_async.engines.pool import EnginePool, urls_of
from mmzero_async.engines.publisher import AdapterPublisher
from mmzero_async.engines.weight_client import WeightClient
from mmzero_async.metrics import Metrics

PATIENCE = 20.0  # seconds for anything to happen, on a busy machine


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks follow each other quickly, so that faults are found within a test."""
    monkeypatch.setattr(member, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(member, "BACK_SECONDS", (0.01, 0.05))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@asynccontextmanager
async def engines(count: int = 2, policy: str = "solver@1") -> AsyncIterator[list[FakeEngine]]:
    async with AsyncExitStack() as stack:
        found = [await stack.enter_async_context(FakeEngine(seed=i)) for i in range(count)]
        for engine in found:
            engine.adapters[policy] = "/adapter"
        yield found


def pool_of(engines: list[Any], metrics: Metrics | None = None, **options: Any) -> EnginePool:
    client = {k: options.pop(k) for k in ("request_seconds", "numbered") if k in options}
    urls = [engine.url for engine in engines]
    return EnginePool(urls, PoolOptions(**options), metrics, backoff_seconds=0.001, **client)


async def many(
    pool: EnginePool, count: int, n: int = 2, policy: str = "solver@1", version: int = 1
) -> list[Any]:
    asked = (ask(pool, policy=policy, version=version, n=n) for _ in range(count))
    return await asyncio.gather(*asked, return_exceptions=True)


def failures(answers: list[Any]) -> list[Any]:
    return [answer for answer in answers if isinstance(answer, BaseException)]


def told(metrics: Metrics, figure: figures.Figure, engine: FakeEngine) -> float:
    name = f'{figure.series[0]}{{engine="{engine.url.removeprefix("http://")}"}}'
    lines = metrics.text().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


# --- who is asked ---------------------------------------------------------------------------------


async def test_requests_are_shared_out_and_counted_engine_by_engine() -> None:
    metrics = Metrics()
    async with engines(3) as running, pool_of(running, metrics) as pool:
        for engine in running:
            engine.latency = 0.05
        assert not failures(await many(pool, 12))
        assert [len(engine.requests) for engine in running] == [4, 4, 4]
        for engine in running:
            assert told(metrics, figures.ENGINE_UP, engine) == 1
            assert told(metrics, figures.ENGINE_IN_FLIGHT, engine) == 0
        text = metrics.text().decode()
    counts = [line for line in text.splitlines() if line.startswith("mmzero_engine_seconds_count")]
    assert [line.rpartition(" ")[2] for line in counts] == ["4.0"] * 3


async def test_no_engine_is_given_more_than_its_limit_and_none_has_to_wait_for_another() -> None:
    limits = {"in_flight_least": 1, "in_flight_most": 6}
    async with engines(2) as running, pool_of(running, **limits) as pool:
        for engine in running:
            engine.latency = 0.02
        assert not failures(await many(pool, 20, n=2))
        assert [engine.peak_running for engine in running] == [3, 3]
        # A request that is larger than the limit goes to an engine that has nothing else.
        assert not failures(await many(pool, 4, n=50))
        assert [engine.peak_running for engine in running] == [3, 3]


async def test_a_request_goes_to_an_engine_that_holds_its_policy() -> None:
    async with engines(3) as running, pool_of(running) as pool:
        running[1].adapters["solver@2"] = "/2"  # published a moment ago: the pool asks
        assert not failures(await many(pool, 6, policy="solver@2"))
        assert [len(engine.requests) for engine in running] == [0, 6, 0]
        del running[1].adapters["solver@2"]  # unloaded since: it says so, and the others are asked
        running[2].adapters["solver@2"] = "/2"
        assert not failures(await many(pool, 1, policy="solver@2"))
        with pytest.raises(PolicyNotLoaded, match="lease the work again"):
            await ask(pool, policy="solver@9", version=9)


async def test_an_engine_that_gets_a_policy_later_takes_part_from_then_on() -> None:
    async with engines(2) as (first, later), pool_of([first, later]) as pool:
        first.adapters["solver@2"] = "/2"
        assert not failures(await many(pool, 4, policy="solver@2"))
        assert not later.requests
        later.adapters["solver@2"] = "/2"
        async with asyncio.timeout(PATIENCE):
            while not later.requests:
                assert not failures(await many(pool, 2, policy="solver@2"))


async def test_what_one_engine_refuses_no_other_is_asked() -> None:
    async with engines(2) as running, pool_of(running) as pool:
        for engine in running:
            engine.failures = [400]
        with pytest.raises(EngineRejected, match="failure 400"):
            await ask(pool, policy="solver@1", version=1)
        assert sum(len(engine.requests) for engine in running) == 1


# --- who is left out, and comes back --------------------------------------------------------------


async def test_what_is_lost_with_an_engine_is_done_by_another_until_it_is_back() -> None:
    metrics = Metrics()
    async with engines(2) as (stays, dies), pool_of([stays, dies], metrics) as pool:
        stays.latency = dies.latency = 0.2
        asked = asyncio.create_task(many(pool, 8))
        await until(lambda: dies.running == 4)
        port = int(dies.url.rpartition(":")[2])
        await dies.stop()
        assert not failures(await asked)
        assert len(stays.requests) == 8
        assert told(metrics, figures.ENGINE_UP, dies) == 0
        assert told(metrics, figures.ENGINE_LOST, dies) == 1
        assert told(metrics, figures.ENGINE_RETRIED, dies) == 4
        stays.latency = 0.0
        assert not failures(await many(pool, 5))
        async with FakeEngine(port=port) as again:
            await until(lambda: told(metrics, figures.ENGINE_UP, again) == 1)
            # It is up, and asked for nothing until it holds the policy.
            assert not failures(await many(pool, 6))
            assert not again.requests
            again.adapters["solver@1"] = "/adapter"
            stays.adapters.clear()
            assert not failures(await many(pool, 6))
            assert len(again.requests) == 6


async def test_an_engine_that_says_nothing_any_more_loses_its_requests_to_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "HEALTH_SECONDS", 0.1)
    monkeypatch.setattr(member, "HEALTH_SECONDS", 0.1)
    monkeypatch.setattr("mmzero_async.engines.client.LOOK_SECONDS", 0.1)
    async with engines(2) as (stays, freezes), pool_of([stays, freezes]) as pool:
        stays.latency = freezes.latency = 0.3
        asked = asyncio.create_task(many(pool, 6))
        await until(lambda: freezes.running == 3)
        freezes.frozen = True
        assert not failures(await asked)
        assert len(stays.requests) == 6
        freezes.frozen = False
        freezes.requests.clear()
        stays.latency = freezes.latency = 0.02
        await until(lambda: all(pool.is_up(client) for client in pool.clients))
        assert not failures(await many(pool, 6))
        assert freezes.requests


async def test_without_any_engine_requests_are_refused_soon_and_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "PATIENCE", 0.2)
    async with engines(1) as running, pool_of(running) as lonely:
        port = int(running[0].url.rpartition(":")[2])
        await running[0].stop()
        began = asyncio.get_running_loop().time()
        answers = await many(lonely, 30)
        assert asyncio.get_running_loop().time() - began < 30 * 0.2, "one after the other"
        assert len(failures(answers)) == 30
        assert all(isinstance(answer, EngineUnavailable) for answer in answers)
        async with FakeEngine(port=port) as again:
            again.adapters["solver@1"] = "/adapter"
            await until(lambda: lonely.is_up(lonely.clients[0]))
            assert not failures(await many(lonely, 3))


async def test_a_request_is_tried_at_so_many_engines_and_no_more() -> None:
    async with engines(4) as running, pool_of(running, tries=3) as pool:
        for engine in running:
            engine.failures = [500] * 9
        with pytest.raises(EngineUnavailable, match="failure 500"):
            await ask(pool, policy="solver@1", version=1)
        assert sorted(len(engine.requests) for engine in running) == [0, 1, 1, 1]


async def test_a_request_that_takes_too_long_is_not_tried_again() -> None:
    async with engines(2) as running, pool_of(running, request_seconds=0.2) as pool:
        for engine in running:
            engine.latency = 5.0
        with pytest.raises(EngineSlow, match=r"no answer within 0\.2 s"):
            await ask(pool, policy="solver@1", version=1)
        assert sum(len(engine.requests) for engine in running) == 1


# --- how much -------------------------------------------------------------------------------------


async def test_an_engine_that_preempts_is_given_less_and_more_again_when_it_is_well() -> None:
    metrics = Metrics()
    async with engines(1) as running:
        [engine] = running
        async with pool_of(running, metrics, in_flight_least=2, in_flight_most=64) as pool:
            engine.latency = 0.05
            asked = asyncio.create_task(many(pool, 600, n=2))
            await until(lambda: engine.running == 32)
            while told(metrics, figures.ENGINE_LIMIT, engine) > 2:
                engine.preemptions += 1
                await asyncio.sleep(0.02)
            engine.peak_running = 0
            await until(lambda: told(metrics, figures.ENGINE_LIMIT, engine) >= 30)
            assert not failures(await asked)


@given(
    st.lists(
        st.sampled_from(["well", "refuses", "cannot generate", "away"]), min_size=1, max_size=4
    )
)
@settings(max_examples=25, deadline=None)
def test_after_a_publish_all_engines_that_are_up_serve_a_version_or_none_does(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("version")

    async def publish() -> None:
        async with engines(len(kinds), "coder@1") as running, AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(VllmClient(e.url, retries=0)) for e in running
            ]
            publisher = AdapterPublisher(*clients)
            await publisher.publish("solver", 1, folder, weights_in(folder))
            for kind, engine in zip(kinds, running, strict=True):
                if kind == "refuses":
                    engine.broken_folders.add(str(folder))
                elif kind == "cannot generate":
                    engine.broken_policies.add("solver@2")
                elif kind == "away":
                    await engine.stop()
            well = "refuses" not in kinds and "cannot generate" not in kinds and "well" in kinds
            up = [e for kind, e in zip(kinds, running, strict=True) if kind != "away"]
            if well:
                assert await publisher.publish("solver", 2, folder) == "solver@2"
                assert all("solver@2" in engine.adapters for engine in up)
                assert await publisher.serves("solver", 2)
            else:
                with pytest.raises(PublishFailed, match="still served as solver@1"):
                    await publisher.publish("solver", 2, folder)
                assert not any("solver@2" in engine.adapters for engine in running)
                assert publisher.current("solver") == "solver@1"
            assert all("solver@1" in engine.adapters for engine in up)

    asyncio.run(publish())


async def test_an_engine_that_was_away_is_published_to_when_it_is_back(tmp_path: Path) -> None:
    digest = weights_in(tmp_path)
    async with engines(2) as (stays, dies), pool_of([stays, dies]) as pool:
        publisher = AdapterPublisher(*pool.clients, up=pool.is_up)
        port = int(dies.url.rpartition(":")[2])
        await dies.stop()
        await publisher.publish("solver", 2, tmp_path, digest)
        await until(lambda: not pool.is_up(pool.clients[1]))
        assert await publisher.serves("solver", 2), "who is away has no say"
        async with FakeEngine(port=port) as again:
            await until(lambda: pool.is_up(pool.clients[1]))
            assert not await publisher.serves("solver", 2)
            await publisher.publish("solver", 2, tmp_path, digest)
            assert again.events == ["load solver@2"] and stays.events == ["load solver@2"]
            assert await publisher.serves("solver", 2)


# --- weights that change in place -----------------------------------------------------------------


@asynccontextmanager
async def weight_engines(count: int) -> AsyncIterator[tuple[list[FakeWeightEngine], list[Any]]]:
    async with AsyncExitStack() as stack:
        running = [await stack.enter_async_context(FakeWeightEngine()) for _ in range(count)]
        clients = [
            await stack.enter_async_context(WeightClient(engine.url, retries=0))
            for engine in running
        ]
        yield running, clients


async def test_weights_that_the_first_engine_refuses_reach_none(tmp_path: Path) -> None:
    async with weight_engines(3) as (running, clients):
        publisher = publisher_to(*clients)
        await publisher.publish("solver", 1, tmp_path, weights_in(tmp_path))
        running[0].refuse["update_weights"] = ["it is damaged"]
        with pytest.raises(PublishFailed, match="it is damaged"):
            await publisher.publish("solver", 2, tmp_path)
        assert [(e.number, e.paused) for e in running] == [("1", False)] * 3
        assert await publisher.serves("solver", 1)
        assert all(e.calls.count("update_weights") == 1 for e in running[1:])


async def test_an_engine_that_fails_after_another_took_the_weights_is_asked_for_them_by_nobody(
    tmp_path: Path,
) -> None:
    async with weight_engines(2) as (running, clients):
        publisher = publisher_to(*clients)
        async with pool_of(running, numbered=True) as pool:
            await publisher.publish("solver", 1, tmp_path, weights_in(tmp_path))
            assert not failures(await many(pool, 6, policy="solver"))
            assert all(engine.requests for engine in running)
            running[1].refuse["update_weights"] = ["not now"]
            await publisher.publish("solver", 2, tmp_path)
            assert [(e.number, e.paused) for e in running] == [("2", False), ("1", False)]
            assert not await publisher.serves("solver", 2)
            running[1].requests.clear()
            answers = [await ask(pool, policy="solver", version=2) for _ in range(6)]
            assert {answer.version for answer in answers} == {2}
            assert not running[1].requests
            running[0].calls.clear()
            await publisher.publish("solver", 2, tmp_path)  # as the learner does until all serve it
            assert running[0].calls == [], "who serves it is left alone"
            assert await publisher.serves("solver", 2)
            async with asyncio.timeout(PATIENCE):
                while not running[1].requests:  # the pool finds out by itself
                    assert not failures(await many(pool, 2, policy="solver", version=2))


def test_addresses_are_told_apart_by_commas() -> None:
    assert urls_of(" http://a:1, http://b:2,\n") == ("http://a:1", "http://b:2")
    assert urls_of("") == ()
    with pytest.raises(EngineUnavailable, match="no engine's address"):
        EnginePool(())
