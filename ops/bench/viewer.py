"""A page that is open, without a browser: `python -m mmzero_async.ops.bench.viewer URL`."""

import asyncio
import sys

import aiohttp

SECONDS = 1.0  # between two looks at the newest drawings


async def look(url: str) -> None:
    """Until it is killed."""
    async with aiohttp.ClientSession(url) as session, asyncio.TaskGroup() as tasks:
        tasks.create_task(_listen(session))
        while True:
            async with session.get("/api/drawings", params={"limit": "24"}) as page:
                await page.read()
            await asyncio.sleep(SECONDS)


async def _listen(session: aiohttp.ClientSession) -> None:
    async with session.get("/api/events", timeout=aiohttp.ClientTimeout(total=None)) as line:
        async for _ in line.content:
            pass


if __name__ == "__main__":
    asyncio.run(look(sys.argv[1]))
