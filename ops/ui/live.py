"""What the log server knows and the log does not: who is silent, who holds what. Asked only while
somebody looks."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec

from mmzero_async.config import Config
from mmzero_async.ops.ui.attendance import seen
from mmzero_async.ops.ui.auditor import Auditor
from mmzero_async.ops.ui.follower import Follower
from mmzero_async.transport.asking import why
from mmzero_async.transport.errors import TransportError
from mmzero_async.transport.keys import local_keys
from mmzero_async.transport.messages import WhyReply

ASK_SECONDS = 1.0  # between two questions to the log server
PATIENCE = 2.0

Ask = Callable[[], Awaitable[WhyReply]]


class Board:
    """The newest state of the run as JSON; `watching` for as long as somebody looks."""

    def __init__(self, follower: Follower, auditor: Auditor, config: Config, ask: Ask) -> None:
        self._follower, self._auditor, self._config, self._ask = follower, auditor, config, ask
        self._reply: WhyReply | None = None
        self._silence: str | None = None  # why there is no reply; None: nobody has asked
        self._watchers = 0
        self._wake = asyncio.Event()
        self._news = asyncio.Condition()
        self.number = 0  # of the state
        self.closing = False
        self.state = b"{}"

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        self._watchers += 1
        self._wake.set()
        try:
            yield
        finally:
            self._watchers -= 1

    @property
    def watchers(self) -> int:
        return self._watchers

    async def newer(self, number: int, seconds: float) -> tuple[int, bytes] | None:
        """The state after the one of this number; None if none comes within so many seconds."""
        try:
            async with asyncio.timeout(seconds), self._news:
                await self._news.wait_for(lambda: self.number > number or self.closing)
        except TimeoutError:
            return None
        return self.number, self.state

    async def close(self) -> None:
        """Lets everybody go who waits for news."""
        async with self._news:
            self.closing = True
            self._news.notify_all()

    async def run(self) -> None:
        while True:
            if not self._watchers:
                self._reply = self._silence = None  # what nobody asks for grows old
                self._wake.clear()
                await self._wake.wait()
            await self._ask_server()
            state = self.tell()
            if state != self.state:
                async with self._news:
                    self.state, self.number = state, self.number + 1
                    self._news.notify_all()
            await asyncio.sleep(ASK_SECONDS)

    async def _ask_server(self) -> None:
        look = self._follower.look
        if look.finished:
            self._reply, self._silence = None, "the run is finished"
            return
        try:
            self._reply, self._silence = await self._ask(), ""
        except (TransportError, OSError) as error:
            self._reply, self._silence = None, str(error)

    def tell(self) -> bytes:
        """Everything on the page but curves and pictures."""
        look, reply = self._follower.look, self._reply
        stages = reply.stages if reply is not None else look.stages
        workers = seen(
            list(look.workers),
            reply.workers if reply is not None else None,
            finished=bool(look.finished),
            dead_seconds=self._config.log.dead_seconds,
        )
        return msgspec.json.encode(
            {
                "run": look.run,
                "started": look.started,
                "finished": look.finished,
                "server": self._silence,
                "read": look.read,
                "end": max(look.end, reply.next_offset if reply is not None else 0),
                "error": look.error,
                "stages": [
                    msgspec.structs.asdict(stage) | look.figures.get(stage.stage, {})
                    for stage in stages
                ],
                "workers": workers,
                "roles": look.roles,
                "notes": look.notes,
                "counts": look.counts,
                "schedule": look.schedule,
                "newest_picture": look.newest_picture,
                "revision": look.revision,
                "audit": self._auditor.state,
            }
        )


def asking(run_dir: Path, config: Config) -> Ask:
    """Asks the run's log server, wherever it listens by now."""

    async def ask() -> WhyReply:
        file = run_dir / "log.url"
        if not file.exists():
            raise TransportError(f"no log server has written {file}: the run is not running")
        keys = local_keys(config.log.keys)
        return await why(file.read_text().strip(), keys=keys, patience=PATIENCE)

    return ask
