"""A fake engine of one role whose weights can be replaced: what vLLM's transfer API answers."""

import asyncio
from typing import Any

from aiohttp import web
from fake_engine import FakeEngine


class FakeWeightEngine(FakeEngine):
    """`calls` are the control requests in their order. `refuse` maps a path to answers that it gets
    before it succeeds again: an error's message, or "hang" for none at all."""

    def __init__(self, role: str = "solver", **options: Any) -> None:
        super().__init__(**options)
        self.adapters = {role: "/base"}  # the one name that it serves
        self.calls: list[str] = []
        self.refuse: dict[str, list[str]] = {}
        self.number, self.paused, self.loaded, self.dead = "default", False, "", False
        self.path = ""
        self.tamper = self._with_spans

    def add_routes(self, app: web.Application) -> None:
        for path in ("pause", "resume", "reset_prefix_cache", "reset_encoder_cache"):
            app.router.add_post(f"/{path}", self._control)
        for path in ("start_weight_update", "update_weights", "finish_weight_update"):
            app.router.add_post(f"/{path}", self._control)
        app.router.add_get("/weight_info", self._info)
        app.router.add_get("/is_paused", self._is_paused)

    async def _control(self, request: web.Request) -> web.Response:
        path = request.path.strip("/")
        self.calls.append(path)
        if self.refuse.get(path):
            why = self.refuse[path].pop(0)
            if why == "hang":
                self.dead = True
                await asyncio.sleep(60)
            return web.json_response({"error": {"message": why}}, status=500)
        body = await request.json() if request.can_read_body else {}
        if path in ("pause", "resume"):
            self.paused = path == "pause"
        if path == "update_weights":
            self.loaded = body["update_info"]["sha256"]
            self.path = body["update_info"]["path"]
        if path == "finish_weight_update":
            self.number = body.get("weight_version", self.number)
        return web.json_response({})

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(status=503 if self.dead else 200)

    async def _info(self, request: web.Request) -> web.Response:
        return web.json_response({"weight_version": self.number})

    async def _is_paused(self, request: web.Request) -> web.Response:
        return web.json_response({"is_paused": self.paused})

    def _with_spans(self, answer: dict[str, Any]) -> None:
        for choice in answer["choices"]:
            length = len(choice["token_ids"])
            choice["weight_versions"] = [{"version": self.number, "start": 0, "end": length}]
