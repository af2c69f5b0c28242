"""One client process of the ingestion bench: says `ready`, waits for a line, appends, reports.

`python -m mmzero_async.ops.bench.client URL DIGEST KEYS INDEX CLIENTS TRAFFIC WINDOW`, TRAFFIC
being `mixed` or a size of `traffic.SIZES`, KEYS a folder of CURVE keys or empty. Reports one JSON
line: events, bytes, latencies in ms.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from msgspec.structs import replace

from mmzero_async.ops.bench.figures import peak_bytes
from mmzero_async.ops.bench.traffic import SIZES, Lineage, Lineages
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import Event, WorkerFailed, encode_event
from mmzero_async.transport.client import LogClient
from mmzero_async.transport.keys import local_keys

KEPT = 20_000  # latencies reported


@dataclass(slots=True)
class Appender:
    """Counts what was acknowledged."""

    client: LogClient
    until: float = 0.0
    events: int = 0
    size: int = 0  # bytes
    superseded: int = 0
    latencies: list[float] = field(default_factory=list)

    @property
    def goes_on(self) -> bool:
        return time.perf_counter() < self.until

    async def append(self, event: Event, size: int, blob: bytes | None = None) -> None:
        blobs = {blob_digest(blob): blob} if blob is not None else {}
        began = time.perf_counter()
        (offset,) = await self.client.append([event], blobs)
        if offset is None:
            self.superseded += 1
            return
        if len(self.latencies) < KEPT:
            self.latencies.append(1000 * (time.perf_counter() - began))
        self.events += 1
        self.size += size + len(blob or b"")

    async def same(self, event: Event, size: int) -> None:
        while self.goes_on:
            await self.append(event, size)

    async def lineages(self, make: Lineages, first: int, every: int) -> None:
        """As workers do it: a stage begins when the one before it is acknowledged."""
        sizes = [len(encode_event(event)) for event, _ in make.make(first).all()]
        prompt = first
        while self.goes_on:
            await self._lineage(make.make(prompt), sizes)
            prompt += every

    async def _lineage(self, lineage: Lineage, sizes: list[int]) -> None:
        await self.append(lineage.proposed, sizes[0])
        await asyncio.gather(*(self.append(event, sizes[1]) for event in lineage.coded))
        rendered = [(replace(e, picture=blob_digest(p)), p) for e, p in lineage.rendered]
        await asyncio.gather(*(self.append(event, 200, picture) for event, picture in rendered))
        await asyncio.gather(*(self.append(event, sizes[-1]) for event in lineage.answered))


async def measure(
    url: str, digest: str, keys: str, numbers: tuple[int, int, int], traffic: str
) -> Appender:
    index, clients, window = numbers
    name = f"bench-{index}"
    async with LogClient.connect(
        url, worker=name, role="bench", config_digest=digest, keys=local_keys(keys)
    ) as client:
        appender = Appender(client)
        work: Callable[[int], Awaitable[None]]
        if traffic == "mixed":
            make = Lineages()

            def work(slot: int) -> Awaitable[None]:
                return appender.lineages(make, index * window + slot, clients * window)
        else:
            event = WorkerFailed(worker=name, role="bench", error="x" * SIZES[traffic])

            def work(slot: int) -> Awaitable[None]:
                return appender.same(event, SIZES[traffic])

        print("ready", flush=True)
        seconds = float(await asyncio.to_thread(sys.stdin.readline))
        appender.until = time.perf_counter() + seconds
        await asyncio.gather(*(work(slot) for slot in range(window)))
        return appender


def main() -> None:
    url, digest, keys, index, clients, traffic, window = sys.argv[1:]
    numbers = (int(index), int(clients), int(window))
    done = asyncio.run(measure(url, digest, keys, numbers, traffic))
    report = {
        "events": done.events,
        "bytes": done.size,
        "superseded": done.superseded,
        "latencies": done.latencies,
        "peak_bytes": peak_bytes(),
    }
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
