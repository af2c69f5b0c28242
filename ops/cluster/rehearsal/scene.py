"""A rehearsal's run: `mmzero run-cluster` over its hosts, and eyes on its log and its driver."""

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmzero_async.log.errors import LogError
from mmzero_async.log.reader import LogReader
from mmzero_async.ops.cluster.control import Order, OrderRefused, order
from mmzero_async.ops.cluster.rehearsal.hosts import Hosts
from mmzero_async.schemas.events import AnyEvent

RUN = "r"
PORTS = (5701, 5702, 8701)
Roles = Mapping[str, Mapping[str, int]]  # host -> role -> processes


class Stuck(RuntimeError):
    """What was waited for did not come."""


@dataclass(slots=True)
class Scene:
    """Started with `playing`."""

    hosts: Hosts
    folder: Path
    inventory: Path
    log_host: str
    driver: asyncio.subprocess.Process
    patience: float
    seen: list[tuple[float, AnyEvent]] = field(default_factory=list)  # when we saw it, and what
    told: list[tuple[float, dict[str, Any]]] = field(default_factory=list)  # the driver's lines
    _reader: LogReader | None = None
    _told_bytes: int = 0

    def run_dir(self, host: str) -> Path:
        return self.folder / host / RUN

    @property
    def drive_dir(self) -> Path:
        return self.folder / "driver"

    # --- looking -------------------------------------------------------------------------------

    def look(self) -> None:
        """Takes in what is new. Stuck when the driver has ended."""
        now = time.monotonic()
        if self._reader is None:
            with contextlib.suppress(LogError):
                self._reader = LogReader.open(self.run_dir(self.log_host) / "log")
        if self._reader is not None:
            for record in self._reader.scan(len(self.seen)):
                self.seen.append((now, record.event()))
        lines = self.drive_dir / "logs" / "driver.jsonl"
        if lines.exists():
            data = lines.read_bytes()[self._told_bytes :]
            whole = data[: data.rfind(b"\n") + 1]
            self._told_bytes += len(whole)
            self.told += [(now, json.loads(line)) for line in whole.splitlines()]
        if self.driver.returncode is not None:
            raise Stuck(f"the driver ended with status {self.driver.returncode}: {self.words()}")

    async def until(self, found: Callable[[], Any], what: str) -> Any:
        """What `found` gives once it gives anything. Stuck after `patience` seconds."""
        deadline = time.monotonic() + self.patience
        while True:
            self.look()
            if value := found():
                return value
            if time.monotonic() > deadline:
                raise Stuck(f"waited {self.patience:g} s in vain: {what}. {self.words()}")
            await asyncio.sleep(0.05)

    async def event(self, since: float, wanted: Callable[[AnyEvent], bool], what: str) -> float:
        """When the first such event was seen after a moment."""
        return float(await self.until(lambda: self.first(since, wanted), what))

    def first(self, since: float, wanted: Callable[[AnyEvent], bool]) -> float:
        """0.0 when there is none yet."""
        return next((at for at, event in self.seen if at > since and wanted(event)), 0.0)

    def first_told(self, since: float, what: str, **fields: Any) -> float:
        """When the driver first said so after a moment; 0.0 when it has not."""
        for at, line in self.told:
            meant = line["event"] == what and all(line.get(k) == v for k, v in fields.items())
            if at > since and meant:
                return at
        return 0.0

    def words(self) -> str:
        output = self.folder / "driver.out"
        lines = output.read_text(errors="replace").splitlines() if output.exists() else []
        return "The driver's last words: " + " | ".join(lines[-6:])

    # --- orders --------------------------------------------------------------------------------

    async def order(self, do: str, what: str = "", count: int = 0) -> dict[str, Any]:
        """OrderRefused."""
        wanted = Order(do=do, what=what, count=count)
        answer = await asyncio.to_thread(order, self.drive_dir, wanted)
        return answer.figures

    async def pid(self, process: str) -> int:
        """Of a process that runs now."""
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            with contextlib.suppress(OrderRefused):
                for host in (await self.order("status"))["hosts"].values():
                    found = host["processes"].get(process)
                    if found is not None and found["pid"]:
                        return int(found["pid"])
            await asyncio.sleep(0.2)
        raise Stuck(f"{process} does not run. {self.words()}")

    async def replace_driver(self) -> None:
        """Kills it, and gives the same command again."""
        self.driver.kill()
        await self.driver.wait()
        self.driver = await _driver(self.folder, self.inventory)

    async def stop(self) -> int:
        """As Ctrl-C does; the driver's exit status."""
        self.driver.send_signal(signal.SIGINT)
        async with asyncio.timeout(self.patience):
            return await self.driver.wait()


def write_inventory(
    hosts: Hosts,
    folder: Path,
    roles: Roles,
    overrides: Sequence[str],
    ports: tuple[int, int, int],
    serves: Mapping[str, str] | None = None,
) -> Path:
    """TOML's strings and lists are JSON's. `serves`: of full weights, host -> its engine's role."""
    ssh = ", ".join(f"{key} = {json.dumps(value)}" for key, value in hosts.ssh.items())
    lines = [
        f'run = "{RUN}"',
        f"keys = {json.dumps(str(folder / 'keys'))}",
        f"python = {json.dumps(sys.executable)}",
        f"path = {json.dumps(str(folder / 'top'))}",
        f"overrides = {json.dumps(list(overrides))}",
        f"one_machine = {json.dumps(not hosts.real)}",
        "link_seconds = 120",
        f"ssh = {{ {ssh} }}",
        "ports = {{ log = {}, read = {}, engine = {} }}".format(*ports),
    ]
    for name, counts in roles.items():
        given = ", ".join(f"{role} = {count}" for role, count in counts.items())
        lines += [
            f"[hosts.{name}]",
            f'address = "{hosts.hosts[name].address}"',
            f"path = {json.dumps(str(folder / name))}",
            f"roles = {{ {given} }}",
        ]
        if serves and name in serves:
            lines.append(f'engine = {{ role = "{serves[name]}" }}')
        if device := hosts.hosts[name].inner:  # all have this machine's name, which leads elsewhere
            lines.append(f'env = {{ GLOO_SOCKET_IFNAME = "{device}" }}')
    path = folder / "cluster.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


async def _driver(folder: Path, inventory: Path) -> asyncio.subprocess.Process:
    command = [sys.executable, "-m", "mmzero_async.ops.cli", "run-cluster", str(inventory)]
    with (folder / "driver.out").open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *(*command, "--run", str(folder / "driver")),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )


@contextlib.asynccontextmanager
async def playing(
    hosts: Hosts, folder: Path, inventory: Path, log_host: str, patience: float
) -> AsyncIterator[Scene]:
    """The driver, until the end; then it is stopped, and killed if it does not stop."""
    driver = await _driver(folder, inventory)
    scene = Scene(hosts, folder, inventory, log_host, driver, patience)
    try:
        yield scene
    finally:
        if scene.driver.returncode is None:
            try:
                await scene.stop()
            except TimeoutError:
                scene.driver.kill()
                await scene.driver.wait()
        if scene._reader is not None:
            scene._reader.close()


async def audit(folder: Path) -> dict[str, Any]:
    """Every promise, from the log alone; and what secrets the hosts have kept."""
    command = [sys.executable, "-m", "mmzero_async.ops.cli", "replay", "--audit", "--json"]
    child = await asyncio.create_subprocess_exec(
        *(*command, str(folder / "alpha" / "r")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await child.communicate()
    kept = await asyncio.to_thread(lambda: [*map(str, folder.glob("*/r/keys"))])
    return {
        "event": "audit",
        "clean": child.returncode == 0,
        "secrets_left": kept,
        "audit": json.loads(output)["audit"] if output else errors.decode()[-500:],
    }
