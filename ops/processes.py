"""Child processes of a run: started, watched, restarted when they die, stopped to the last one."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from mmzero_async.ops.errors import ProcessKeepsDying

RESTART_PAUSE = 1.0  # seconds before a dead process is started again
GIVE_UP_AFTER = 5  # quick deaths in a row
QUICK = 10.0  # a process that lived less long died quickly
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}  # of every child
_PR_SET_PDEATHSIG = 1
_HOPELESS = os.EX_CONFIG  # exit status of a process that another start would not help


@dataclass(slots=True)
class Child:
    """One process of the run that is to be alive until `stop`."""

    name: str
    command: Sequence[str]
    run_dir: Path
    logger: Any
    environment: Mapping[str, str] = field(default_factory=dict)  # over ours
    restarts: int = 0
    process: asyncio.subprocess.Process | None = None
    _stopping: bool = False
    started: asyncio.Event = field(default_factory=asyncio.Event)

    async def keep_alive(self) -> None:
        """Until it ends by itself with status 0, is stopped, or keeps dying."""
        quick = 0
        while not self._stopping:
            begun = asyncio.get_running_loop().time()
            with (self.run_dir / "logs" / f"{self.name}.err").open("ab") as errors:
                self.process = await asyncio.create_subprocess_exec(
                    *self.command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=errors,
                    stderr=errors,
                    preexec_fn=_die_with_parent,
                    env={**os.environ, **ENVIRONMENT, **self.environment},
                )
            self.started.set()
            status = await self.process.wait()
            if self._stopping or status == 0:
                return
            if status == _HOPELESS:
                raise ProcessKeepsDying(self.last_words())
            lived = asyncio.get_running_loop().time() - begun
            quick = quick + 1 if lived < QUICK else 0
            self.restarts += 1
            self.logger.warning("process died", child=self.name, status=status, lived=lived)
            if quick >= GIVE_UP_AFTER:
                raise ProcessKeepsDying(
                    f"{self.name} died {quick} times in a row: {self.last_words()}"
                )
            await asyncio.sleep(RESTART_PAUSE)

    def last_words(self) -> str:
        path = self.run_dir / "logs" / f"{self.name}.err"
        lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
        return f"{lines[-1] if lines else 'it said nothing'} (more in {path})"

    async def stop(self, grace: float = 10.0) -> None:
        self._stopping = True
        process = self.process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _die_with_parent() -> None:
    """In the child: a new session, and SIGTERM should the supervisor vanish."""
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def resident_bytes() -> int:
    """Resident memory of this process and all that descend from it.

    Proportional where the kernel tells (pages shared between processes are counted once).
    """
    total = 0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            memory = process.memory_full_info()
            total += getattr(memory, "pss", 0) or memory.rss
        except psutil.Error:
            continue
    return total
