"""One host as the driver sees it: its line is kept, and what is to run there runs.

What is wanted is a set of processes; the keeper brings the host to it whenever the two differ, over
a line that may break at any moment and is opened again.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Any

from mmzero_async.ops.cluster import about
from mmzero_async.ops.cluster import words as w
from mmzero_async.ops.cluster.link import ANSWER_SECONDS, HostRefused, Line, LinkLost, opened
from mmzero_async.ops.cluster.plan import PlannedHost, Process

LOOK_SECONDS = 1.0
PAUSE = 1.0  # before a lost line is opened again
_END_WITH_RUN = ("learner", "tracker")  # by themselves

Tell = Callable[..., None]  # what happened, and its fields


class Keeper:
    """Args:
    prepare: what is to lie in the run's folder there, asked at each new line.
    tell: is told what happens to the host and its processes.
    fail: is told why the run cannot go on; the line is kept all the same, to stop the rest by.
    """

    def __init__(
        self,
        host: PlannedHost,
        hello: w.Hello,
        link_seconds: float,
        ours: w.About,
        prepare: Callable[[], w.Prepare],
        tell: Tell,
        fail: Callable[[str], None],
    ) -> None:
        self.host, self._hello, self._link_seconds = host, hello, link_seconds
        self._ours, self._prepare, self._tell, self._fail = ours, prepare, tell, fail
        self.wanted: dict[str, Process] = {}
        self.may_stay: set[str] = set()
        self.children: dict[str, w.ChildState] = {}
        self.ready = False  # was reached, and does take part
        self.trouble = "not reached yet"  # empty while the line is up
        self.refused = ""  # why the host takes part no more
        self.base_digest = ""
        self._since = 0.0
        self._restarting: set[str] = set()
        self._line: Line | None = None
        self._ending = False
        self._changed = asyncio.Event()

    def want(self, processes: Iterable[Process], may_stay: Iterable[Process] = ()) -> None:
        """From now on these are to run, and no others, but those that may stay if they run."""
        self.wanted = {process.name: process for process in processes}
        self.may_stay = {process.name for process in may_stay} | self.wanted.keys()
        self._changed.set()

    def restart(self, name: str) -> None:
        self._restarting.add(name)
        self._changed.set()

    @property
    def settled(self) -> bool:
        """Runs what is wanted and nothing else, as far as we know; what was given up stays so."""
        done = {n for n, c in self.children.items() if c.pid or c.ended or c.given_up}
        return self.wanted.keys() <= done and self.children.keys() <= self.may_stay

    @property
    def away_seconds(self) -> float:
        return asyncio.get_running_loop().time() - self._since if self.trouble else 0.0

    async def keep(self) -> None:
        """For ever, or until the host refuses to take part (`refused`)."""
        self._since = asyncio.get_running_loop().time()
        while not self._ending:  # a new line would start a new agent
            try:
                async with opened(self.host, self._hello, self._link_seconds) as (line, theirs):
                    await self._begin(line, theirs)
                    await self._tend(line)
            except LinkLost as error:
                self._lost(str(error))
            except HostRefused as error:
                self.refused = self.trouble = str(error)
                if any(process.vital for process in self.wanted.values()):
                    self._fail(str(error))
                elif self.ready:
                    self._tell("goes on without the host", host=self.host.name, why=str(error))
                return
            finally:
                self._line = None
            await asyncio.sleep(PAUSE)

    async def prepare_again(self) -> None:
        """What lies there follows the plan. LinkLost when the host is out of reach."""
        if self._line is None:
            raise LinkLost(self.trouble)
        await self._line.ask(self._prepare())

    async def end(self) -> None:
        """Everything there stops and its secrets go. LinkLost when the host is out of reach."""
        self._ending = True
        self.want(())
        if self._line is None:
            raise LinkLost(self.trouble)
        await self._line.ask(w.End())

    # --- while the line is up ------------------------------------------------------------------

    async def _begin(self, line: Line, theirs: w.About) -> None:
        if different := about.difference(self._ours, theirs):
            raise HostRefused(f"{self.host.name}: {different}: bring both to the same commit")
        reply = await line.ask(self._prepare())
        self.base_digest = reply.base_digest
        self._saw(reply)
        if self.ready:
            self._tell("host is back", host=self.host.name, away=round(self.away_seconds, 1))
        self.ready, self.trouble, self._line = True, "", line

    def _lost(self, why: str) -> None:
        if not self.trouble and not self._ending:
            self._since = asyncio.get_running_loop().time()
            self._tell("host out of reach", host=self.host.name, why=why)
        self.trouble = why

    async def _tend(self, line: Line) -> None:
        """Looks every second, whatever else is being asked meanwhile."""
        self._changed.set()
        changing: asyncio.Task[Any] = asyncio.create_task(self._change(line))
        try:
            while True:
                self._saw(await line.ask(w.Look(), ANSWER_SECONDS))
                await asyncio.wait({changing}, timeout=LOOK_SECONDS)
                if changing.done():
                    changing.result()
        finally:
            changing.cancel()
            with contextlib.suppress(asyncio.CancelledError, LinkLost, HostRefused):
                await changing

    async def _change(self, line: Line) -> None:
        """Brings the host to what is wanted, again and again."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            for name in [name for name in self.children if name not in self.may_stay]:
                self._saw(await line.ask(w.Stop(name=name)))
            for process in list(self.wanted.values()):
                if process.name not in self.children:
                    command = list(process.command)
                    start = w.Start(name=process.name, command=command, env=process.env)
                    self._saw(await line.ask(start))
            for name in list(self._restarting):
                self._restarting.discard(name)
                if name in self.children:
                    self._saw(await line.ask(w.Restart(name=name)))

    def _saw(self, reply: w.Reply) -> None:
        before, self.children = self.children, {child.name: child for child in reply.children}
        for child in reply.children:
            old = before.get(child.name, w.ChildState(name=child.name))
            process = self.wanted.get(child.name)
            if child.name in before and child.restarts > old.restarts:
                self._tell("process started again", process=child.name, restarts=child.restarts)
            if child.given_up and not old.given_up:
                self._tell("process given up", process=child.name, why=child.given_up)
                if process is not None and process.vital:
                    self._fail(f"{child.name} on {self.host.name}: {child.given_up}")
            if child.ended and process is not None and process.role not in _END_WITH_RUN:
                self.restart(child.name)  # somebody asked it to stop, and it was not us
        if not self.wanted.keys() <= self.children.keys() <= self.may_stay:
            self._changed.set()
