"""Several engines behind one client: each request goes to one that is up, holds its policy and has
room, and one that is lost with its engine is tried again on another.

Knows no roles' prompts and no log. Guarantees: a request has one answer, from one engine, drawn
from the version that it asks for or, where weights change in place, from a newer one; what is
under way, what waits and how often it is tried are bounded. balance.py decides what goes where.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from mmzero_async import metrics as figures
from mmzero_async.engine_options import PoolOptions
from mmzero_async.engines.balance import Not, choose
from mmzero_async.engines.client import VllmClient
from mmzero_async.engines.errors import (
    EngineError,
    EngineSlow,
    EngineUnavailable,
    PolicyNotLoaded,
)
from mmzero_async.engines.member import Member
from mmzero_async.metrics import Metrics
from mmzero_async.schemas.events import Generation, Role, Sampling
from mmzero_async.schemas.packing import unpack_tokens

PATIENCE = 2.0  # seconds without any engine before requests are refused
ROOM = 16  # connections to an engine beyond those that requests take: looks must not wait for one
UNBOUNDED = 1024  # tokens that a sample without max_tokens counts for


class Engine(Protocol):
    """What draws samples: one engine, or a pool of them."""

    async def generate(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        policy: str,
        version: int,
        role: Role,
        n: int,
        sampling: Sampling,
        template: str,
        images: Sequence[str] = (),
    ) -> Generation:
        """n samples of a chat; see VllmClient."""
        ...


def urls_of(text: str) -> tuple[str, ...]:
    """`http://a:1,http://b:2` -> both."""
    return tuple(filter(None, (part.strip() for part in text.split(","))))


class EnginePool:
    """An Engine, as an async context manager: inside it the engines are looked after.

    Args:
        urls: of the engines, at least one; they serve the same model.
        options: how requests are shared out; also an EngineConfig.
        numbered: as VllmClient's.
        client: VllmClient's further options.
    """

    def __init__(
        self,
        urls: Sequence[str],
        options: PoolOptions = PoolOptions(),  # noqa: B008 - frozen
        metrics: Metrics | None = None,
        *,
        numbered: bool = False,
        **client: Any,
    ) -> None:
        if not urls:
            raise EngineUnavailable("no engine's address is known: is the engine started?")
        self._options, self._metrics, self._numbered = options, metrics or Metrics(), numbered
        client |= {"retries": 0, "connections": options.in_flight_most + ROOM}
        self._members = [
            Member(
                VllmClient(url, numbered=numbered, **client),
                options,
                self._metrics,
                self._notice,
                numbered=numbered,
            )
            for url in urls
        ]
        self._changed = asyncio.Event()
        self._door = asyncio.Lock()  # who came first is served first, large or small
        self._turns = itertools.count(random.randrange(len(urls)))  # not all begin with the first
        self._turn = next(self._turns)
        self._dark: float | None = None  # since when requests have seen no engine up
        self._watchers: list[asyncio.Task[None]] = []

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(member.client.url for member in self._members)

    @property
    def clients(self) -> tuple[VllmClient, ...]:
        """Of each engine, for what is asked of all: publishing. They try once."""
        return tuple(member.client for member in self._members)

    def is_up(self, client: VllmClient) -> bool:
        return any(member.up for member in self._members if member.client is client)

    async def health(self) -> bool:
        """Whether one of the engines answers now. Never raises."""
        return any(await asyncio.gather(*(member.client.health() for member in self._members)))

    async def generate(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        policy: str,
        version: int,
        role: Role,
        n: int,
        sampling: Sampling,
        template: str,
        images: Sequence[str] = (),
    ) -> Generation:
        """As VllmClient's. PolicyNotLoaded and EngineUnavailable speak for all engines."""
        tokens = n * (sampling.max_tokens or UNBOUNDED)
        tried: list[Member] = []
        lost: EngineError | None = None
        while len(tried) < self._options.tries:
            member = await self._placed(policy, version, n, tried)
            began = time.monotonic()
            try:
                with member.carrying(n, tokens):
                    generation = await member.unless_lost(
                        member.client.generate(
                            messages,
                            policy=policy,
                            version=version,
                            role=role,
                            n=n,
                            sampling=sampling,
                            template=template,
                            images=images,
                        )
                    )
            except EngineSlow:
                raise  # again elsewhere, it would add to the load that made it slow
            except PolicyNotLoaded as error:
                member.forget(policy)
                lost = error
            except EngineUnavailable as error:
                await member.doubt()
                lost = error
            else:
                self._count(member, generation, time.monotonic() - began)
                return generation
            self._metrics.add(figures.ENGINE_RETRIED, engine=member.name)
            tried.append(member)
        assert lost is not None, "engine.tries is at least one"
        raise lost

    # --- where a request goes ------------------------------------------------------------------

    async def _placed(
        self, policy: str, version: int, samples: int, tried: Sequence[Member]
    ) -> Member:
        """The engine that is to serve it, once one has room. PolicyNotLoaded or EngineUnavailable
        when there is none that could."""
        asked = False
        self._metrics.add(figures.ENGINE_QUEUED)
        try:
            async with self._door:
                while True:
                    standings = [
                        member.standing(policy, version, tried=member in tried)
                        for member in self._members
                    ]
                    chosen = choose(standings, samples, self._turn)
                    match chosen:
                        case int():
                            self._turn = next(self._turns)
                            return self._members[chosen]
                        case Not.FREE:
                            await self._room([it.up and it.holds for it in standings])
                        case Not.UP:
                            await self._light()
                        case Not.HELD if asked:
                            raise self._not_held(policy, version)
                        case Not.HELD:
                            asked = True  # published a moment ago, perhaps
                            await asyncio.gather(*(m.ask() for m in self._members if m.up))
        finally:
            self._metrics.add(figures.ENGINE_QUEUED, -1)

    async def _room(self, able: Sequence[bool]) -> None:
        """Until something changes, having told those that could serve us."""
        for member, is_able in zip(self._members, able, strict=True):
            if is_able:
                member.held_back()
        self._changed.clear()
        await self._changed.wait()

    async def _light(self) -> None:
        """Until something changes. EngineUnavailable when no engine was up for PATIENCE seconds."""
        now = time.monotonic()
        self._dark = now if self._dark is None else self._dark
        self._changed.clear()
        try:
            async with asyncio.timeout(self._dark + PATIENCE - now):
                await self._changed.wait()
        except TimeoutError:
            raise EngineUnavailable(
                f"no engine is up: {', '.join(self.urls)}. Do they run, and does the key fit?"
            ) from None

    def _not_held(self, policy: str, version: int) -> EngineError:
        where = ", ".join(member.client.url for member in self._members if member.up)
        if self._numbered:
            return EngineUnavailable(
                f"the weights of none of the engines that are up ({where}) are {policy!r} "
                f"{version} or newer: they wait to be published to"
            )
        return PolicyNotLoaded(
            f"none of the engines that are up ({where}) serves {policy!r}. It may have been "
            "replaced by a newer version: lease the work again"
        )

    def _notice(self) -> None:
        """A member has room, is up or down, or holds something else."""
        if any(member.up for member in self._members):
            self._dark = None
        self._changed.set()

    def _count(self, member: Member, generation: Generation, seconds: float) -> None:
        metrics, engine = self._metrics, member.name
        metrics.observe(figures.ENGINE_SECONDS, seconds, engine=engine)
        drawn = sum(len(unpack_tokens(sample.token_ids)) for sample in generation.samples)
        metrics.add(figures.ENGINE_TOKENS, drawn, engine=engine, what="generated")
        prompted = len(unpack_tokens(generation.prompt_token_ids))
        metrics.add(figures.ENGINE_TOKENS, prompted, engine=engine, what="prompted")

    # --- open and closed -----------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._watchers = [asyncio.create_task(member.watch()) for member in self._members]
        looked = [asyncio.ensure_future(member.looked.wait()) for member in self._members]
        await asyncio.wait(looked, timeout=PATIENCE)  # one that hangs is not waited for
        for look in looked:
            look.cancel()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        for member in self._members:
            await member.client.close()
