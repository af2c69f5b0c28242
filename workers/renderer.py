"""Renderer: a drawing from a stranger, SVG or plotting program, becomes a picture, or one event
that says why not."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mmzero_async import metrics as figures
from mmzero_async.rendering.pool import Outcome, Picture, RenderPool
from mmzero_async.roles.shortcuts import detect
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import Finding, Rendered
from mmzero_async.schemas.work import Work
from mmzero_async.shortcut_options import ShortcutConfig
from mmzero_async.transport.client import Lease
from mmzero_async.workers.loop import Job, Result, Setting, main


@asynccontextmanager
async def rendering(setting: Setting) -> AsyncIterator[Job]:
    config = setting.config.renderer
    async with RenderPool(config, drawing=setting.config.coder.drawing) as pool:
        setting.logger.info("renderer", renderer=pool.renderer_id, isolation=pool.isolation)

        async def render(lease: Lease) -> Result:
            drawing = lease.work.target
            outcome = await pool.render(lease.work.svg or lease.work.program)
            became = "picture" if isinstance(outcome, Picture) else outcome.kind
            setting.metrics.add(figures.RENDERS, outcome=became)
            shortcuts = setting.config.shortcuts
            found = await findings(pool, lease.work, outcome, shortcuts)
            if not isinstance(outcome, Picture):
                failed = Rendered(
                    drawing=drawing,
                    renderer=pool.renderer_id,
                    failure=outcome.kind,
                    detail=outcome.detail[:500],
                    findings=found,
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
                fingerprint=outcome.fingerprint,
                structure=outcome.structure,
                findings=found,
                not_applicable=detect.of_writing(shortcuts) if lease.work.program else [],
            )
            return Result([rendered], {digest: outcome.png})

        yield render


async def findings(
    pool: RenderPool, work: Work, outcome: Outcome, config: ShortcutConfig
) -> list[Finding]:
    """What the detectors say about one drawing; of a failed one only that it is blank."""
    if work.proposal is None or not (isinstance(outcome, Picture) or outcome.kind == "blank"):
        return []
    looks = work.svg and isinstance(outcome, Picture) and detect.wants_writing(config)
    writing = await pool.writing(work.svg) if looks else None
    return detect.find(writing, outcome.ink, work.proposal, config)


if __name__ == "__main__":
    sys.exit(main("renderer", "render", lambda c: c.workers.renderer_in_flight, rendering))
