"""Renderer: an SVG from a stranger becomes a picture, or one event that says why not."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mmzero_async.rendering.pool import Picture, RenderPool
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import Rendered
from mmzero_async.transport.client import Lease
from mmzero_async.workers.loop import Job, Result, Setting, main


@asynccontextmanager
async def rendering(setting: Setting) -> AsyncIterator[Job]:
    config = setting.config.renderer
    async with RenderPool(config) as pool:
        setting.logger.info("renderer", renderer=pool.renderer_id, isolation=pool.isolation)

        async def render(lease: Lease) -> Result:
            drawing = lease.work.target
            outcome = await pool.render(lease.work.svg)
            if not isinstance(outcome, Picture):
                failed = Rendered(
                    drawing=drawing,
                    renderer=pool.renderer_id,
                    failure=outcome.kind,
                    detail=outcome.detail[:500],
                )
                return Result([failed])
            digest = blob_digest(outcome.png)
            rendered = Rendered(
                drawing=drawing,
                renderer=pool.renderer_id,
                picture=digest,
                width=outcome.width,
                height=outcome.height,
                mended=list(outcome.mended),
                ink=outcome.ink,
                seconds=outcome.seconds,
            )
            return Result([rendered], {digest: outcome.png})

        yield render


if __name__ == "__main__":
    sys.exit(main("renderer", "render", lambda c: c.workers.renderer_in_flight, rendering))
