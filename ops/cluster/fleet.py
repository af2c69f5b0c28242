"""All hosts of a run: which processes are to be where, now. Knows no log and no course of a run."""

import asyncio
import contextlib
import getpass
import os
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Collection
from functools import partial
from typing import Any

from mmzero_async.ops.cluster import about, secrets
from mmzero_async.ops.cluster import words as w
from mmzero_async.ops.cluster.inventory import InventoryError
from mmzero_async.ops.cluster.keeper import Keeper
from mmzero_async.ops.cluster.link import HostRefused, LinkLost
from mmzero_async.ops.cluster.plan import LOG_ROLES, Plan
from mmzero_async.ops.errors import RunLost

REACH_SECONDS = 60.0  # for a host to take part, at the start and when it joins
STOP_SECONDS = 40.0  # for processes to end


class Fleet:
    """Use `reached`. `plan` changes with `change`; `phase` says which roles of it are to run."""

    def __init__(self, plan: Plan, tell: Callable[..., None]) -> None:
        self.plan, self._tell = plan, tell
        self.keepers: dict[str, Keeper] = {}
        self._roles: frozenset[str] = frozenset()
        self._others_stay = True
        self._ours = about.about()
        who = f"{getpass.getuser()}@{socket.gethostname()}, process {os.getpid()}"
        self._hello = w.Hello(driver=uuid.uuid4().hex, who=who)
        self._failed, self._why = asyncio.Event(), ""
        self._keeping: list[asyncio.Task[None]] = []

    @contextlib.asynccontextmanager
    async def reached(self) -> AsyncIterator[None]:
        """All hosts take part, or InventoryError with what each lacks; RunLost, inside, when one
        cannot do what the run needs. At the end they are told to stop everything."""
        async with asyncio.TaskGroup() as group:
            failing = group.create_task(self._failing())
            try:
                await self._reach(self.plan.hosts)
                yield
            finally:
                failing.cancel()
                await self._end()

    async def change(self, plan: Plan) -> None:
        """To another plan; hosts that it has more take part first. InventoryError."""
        new = [host for host in plan.hosts if host not in self.keepers]
        if new:
            secrets.ready(plan)
            before, self.plan = self.plan, plan
            # The log server's host first: it must know the newcomers' keys.
            log = self.keepers[plan.log_host]
            try:
                await log.prepare_again()
                await self._reach(new)
            except LinkLost as error:
                self.plan = before
                raise InventoryError(f"{plan.log_host} is out of reach: {error}") from None
            except InventoryError:
                self.plan = before
                raise
        self.plan = plan
        self._spread()

    def phase(self, *roles: str, others_stay: bool = False) -> None:
        """These roles are to run; others stop, or stay where an earlier driver left them."""
        self._roles, self._others_stay = frozenset(roles), others_stay
        self._spread()

    def restart(self, name: str) -> str:
        """InventoryError when the plan has no such process; its host's name."""
        process = self.plan.process(name)
        keeper = self.keepers[process.host]
        if keeper.trouble:
            raise InventoryError(f"{process.host} is out of reach: {keeper.trouble}")
        keeper.restart(name)
        return process.host

    def base_digests(self) -> dict[str, str]:
        """Of the hosts that serve or train the base model."""
        return {n: k.base_digest for n, k in self.keepers.items() if k.base_digest}

    @property
    def restarts(self) -> int:
        return sum(c.restarts for k in self.keepers.values() for c in k.children.values())

    @property
    def trouble(self) -> str:
        away = [
            f"{name} for {keeper.away_seconds:.0f} s"
            for name, keeper in self.keepers.items()
            if keeper.ready and keeper.trouble
        ]
        return f"out of reach: {', '.join(away)}" if away else ""

    def figures(self) -> dict[str, Any]:
        """Every host and process, as far as is known now."""
        return {
            name: {
                "address": keeper.host.address,
                "trouble": keeper.refused or keeper.trouble,
                "drained": name in self.plan.drained,
                "processes": {
                    process.name: _state(keeper.children.get(process.name))
                    for process in keeper.wanted.values()
                },
            }
            for name, keeper in self.keepers.items()
        }

    async def settle(self, seconds: float = STOP_SECONDS) -> bool:
        """Whether every host that is in reach runs what it is to run, within so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not all(  # noqa: ASYNC110 - news come with every look
                    k.settled or k.trouble for k in self.keepers.values()
                ):
                    await asyncio.sleep(0.1)
                return True
        return False

    # --- parts ---------------------------------------------------------------------------------

    def _spread(self) -> None:
        for name, keeper in self.keepers.items():
            here = self.plan.on(name)
            wanted = [process for process in here if process.role in self._roles]
            keeper.want(wanted, here if self._others_stay else ())

    def _fail(self, why: str) -> None:
        self._why = self._why or why
        self._failed.set()

    async def _failing(self) -> None:
        await self._failed.wait()
        raise RunLost(self._why)

    async def _reach(self, hosts: Collection[str]) -> None:
        for name in hosts:
            self.keepers[name] = Keeper(
                self.plan.hosts[name],
                self._hello,
                self.plan.link_seconds,
                self._ours,
                partial(self._prepared, name),
                self._tell,
                self._fail,
            )
        self._spread()  # before a line is open: what an earlier driver left may stay
        problems = [why for why in await asyncio.gather(*map(self._first, hosts)) if why]
        if problems:
            raise InventoryError("the hosts are not ready:\n" + "\n".join(problems))

    async def _first(self, name: str) -> str:
        """Why a host does not take part; empty: it does, and is kept from now on."""
        keeper = self.keepers[name]
        task = asyncio.create_task(keeper.keep())
        self._keeping.append(task)
        task.add_done_callback(self._over)
        deadline = asyncio.get_running_loop().time() + REACH_SECONDS
        while not keeper.ready:
            late = asyncio.get_running_loop().time() > deadline
            if keeper.refused or late:
                task.cancel()
                del self.keepers[name]
                return keeper.refused or f"{name}: {keeper.trouble}"
            await asyncio.sleep(0.05)
        return ""

    def _over(self, task: asyncio.Task[None]) -> None:
        """An error of our own must not look like a host that is kept."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._fail(f"{type(error).__name__}: {error}")

    def _prepared(self, host: str) -> w.Prepare:
        at = self.plan.hosts[host]
        return w.Prepare(
            config=self.plan.config.to_json(),
            base_model=at.base_model,
            needs_base=at.needs_base,
            secrets=secrets.of_host(self.plan, host),
        )

    async def _end(self) -> None:
        """Workers first, the log server last; then every agent goes, and its secrets with it."""
        for roles in (("engine", "learner"), ()):
            self.phase(*LOG_ROLES, *roles)
            await self.settle()
        for name, ended in zip(
            self.keepers,
            await asyncio.gather(
                *(keeper.end() for keeper in self.keepers.values()), return_exceptions=True
            ),
            strict=True,
        ):
            if isinstance(ended, LinkLost | HostRefused):
                within = self.plan.link_seconds
                self._tell("host not told to stop", host=name, why=str(ended), stops_within=within)
            elif isinstance(ended, BaseException):
                raise ended
        for task in self._keeping:
            task.cancel()


def _state(child: w.ChildState | None) -> dict[str, Any]:
    if child is None:
        return {"pid": 0, "restarts": 0, "given_up": ""}
    return {"pid": child.pid, "restarts": child.restarts, "given_up": child.given_up}
