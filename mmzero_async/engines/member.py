"""One engine of a pool: whether it is up, which policies it holds, what of ours it has under way.

Knows nothing of the other engines. What it finds out by looking is true until the next look; an
engine that says otherwise in an answer is believed at once.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import aiohttp
import msgspec

from mmzero_async import metrics as figures
from mmzero_async.engine_options import PoolOptions
from mmzero_async.engines.balance import Load, Standing, adapted
from mmzero_async.engines.client import VllmClient
from mmzero_async.engines.errors import EngineError, EngineRejected, EngineUnavailable
from mmzero_async.engines.http import HEALTH_SECONDS
from mmzero_async.metrics import Metrics

LOOK_SECONDS = 2.0  # between two looks at an engine that is up
BACK_SECONDS = (0.1, 1.0)  # at one that is down: at first, and at most, doubling
MISSED = 3  # looks without an answer, and an engine is down: a busy one is only late
AWAY = (EngineError, TimeoutError, aiohttp.ClientError, msgspec.MsgspecError, KeyError)
T = TypeVar("T")


class Member:
    """`client` tries once: what is lost is the pool's to try again.

    `changed` is called whenever a request that waits may have something to hope for.
    """

    def __init__(
        self,
        client: VllmClient,
        options: PoolOptions,
        metrics: Metrics,
        changed: Callable[[], None],
        *,
        numbered: bool,
    ) -> None:
        self.client, self.name = client, client.url.partition("://")[2]
        self._options, self._metrics, self._changed = options, metrics, changed
        self._numbered = numbered
        self._policies: frozenset[str] = frozenset()
        self._number = -1  # of weights that change in place; -1: none
        self._samples = self._tokens = 0
        self._limit = float(options.in_flight_most)
        self._held_back = False
        self._lacks = False  # what was asked for since the last look: it may have it by now
        self._load: Load | None = None
        self._up = False
        self._lost = asyncio.Event()
        self.looked = asyncio.Event()  # for the first time, with whatever result
        self._tell()

    @property
    def up(self) -> bool:
        return self._up

    def standing(self, policy: str, version: int, *, tried: bool) -> Standing:
        holds = self._number >= version if self._numbered else policy in self._policies
        self._lacks |= not holds
        return Standing(self._up, holds, self._samples, self._tokens, self._limit, tried)

    # --- requests ------------------------------------------------------------------------------

    @contextmanager
    def carrying(self, samples: int, tokens: int) -> Iterator[None]:
        """While a request is under way here."""
        self._samples += samples
        self._tokens += tokens
        self._metrics.add(figures.ENGINE_IN_FLIGHT, engine=self.name)
        try:
            yield
        finally:
            self._samples -= samples
            self._tokens -= tokens
            self._metrics.add(figures.ENGINE_IN_FLIGHT, -1, engine=self.name)
            self._changed()

    async def unless_lost(self, answering: Coroutine[Any, Any, T]) -> T:
        """The answer. EngineUnavailable as soon as the engine is known to be down: a host that
        vanished closes no connection."""
        answer = asyncio.ensure_future(answering)
        lost = asyncio.ensure_future(self._lost.wait())
        try:
            await asyncio.wait({answer, lost}, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            raise EngineUnavailable(f"the engine at {self.client.url} was lost")
        finally:
            answer.cancel()
            lost.cancel()
            await asyncio.gather(answer, lost, return_exceptions=True)

    def held_back(self) -> None:
        """A request waits for this one's limit."""
        self._held_back = True

    def forget(self, policy: str) -> None:
        """It said that it does not serve the policy."""
        self._policies -= {policy}

    async def doubt(self) -> None:
        """A request was lost here: is the engine down, or another one by now?"""
        if self._up and not await self.client.health():
            self._down()
        elif self._up:
            await self.ask()

    async def ask(self) -> None:
        """Learns what it holds by now, if it tells."""
        with suppress(*AWAY):
            await self._learn()

    # --- looks ---------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Looks again and again, for as long as the pool is open."""
        missed, pause = 0, BACK_SECONDS[0]
        while True:
            try:
                await self._look()
                missed, pause = 0, BACK_SECONDS[0]
            except AWAY:
                missed += 1
                if self._up and missed >= MISSED:
                    self._down()
            self.looked.set()
            if self._up:
                await asyncio.sleep(LOOK_SECONDS)
            else:
                await asyncio.sleep(pause)
                pause = min(2 * pause, BACK_SECONDS[1])

    async def _look(self) -> None:
        """Raises one of AWAY when it does not answer."""
        if not self._up or self._lacks:
            self._lacks = False
            await self._learn()
        if not self._up:
            self._up, self._lost = True, asyncio.Event()
        elif self._samples:
            await self._cope()
        elif not await self.client.health():
            raise EngineUnavailable(f"the engine at {self.client.url} does not answer")
        self._tell()
        self._changed()

    async def _learn(self) -> None:
        async with asyncio.timeout(HEALTH_SECONDS):
            if self._numbered:
                said = await self.client.weight_version()
                self._number = int(said) if said.isdecimal() else -1
            else:
                self._policies = frozenset(await self.client.policies())

    async def _cope(self) -> None:
        try:
            told = await self.client.metrics()
        except EngineRejected:  # it tells no figures
            return
        now = Load(told["running"], told["waiting"], told["preemptions"], told["kv_cache_usage"])
        self._limit = adapted(
            self._limit,
            self._load or now,
            now,
            samples=self._samples,
            held_back=self._held_back,
            least=self._options.in_flight_least,
            most=self._options.in_flight_most,
        )
        self._load, self._held_back = now, False

    def _down(self) -> None:
        self._up = False
        self._load = None  # its counters begin anew
        self._lost.set()
        self._metrics.add(figures.ENGINE_LOST, engine=self.name)
        self._tell()
        self._changed()

    def _tell(self) -> None:
        self._metrics.set(figures.ENGINE_UP, float(self._up), engine=self.name)
        self._metrics.set(figures.ENGINE_LIMIT, self._limit, engine=self.name)
