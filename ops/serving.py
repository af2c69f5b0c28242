"""An engine of a run's base model for who wants to ask its versions after the run, or beside it.

Nothing of it touches the run: it has a port of its own, and no event is written.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from mmzero_async.config import Config
from mmzero_async.engines.client import VllmClient
from mmzero_async.engines.errors import EngineError
from mmzero_async.engines.launch import BASE_POLICY, address_file
from mmzero_async.engines.model import check_model
from mmzero_async.engines.pool import Engine, EnginePool, urls_of
from mmzero_async.engines.publisher import AdapterPublisher, Publisher
from mmzero_async.engines.server import VllmServer
from mmzero_async.engines.weight_client import WeightClient
from mmzero_async.engines.weight_publisher import WeightPublisher
from mmzero_async.ops.versions import BASE, Version
from mmzero_async.schemas.events import PolicyPublished, Role

LOG = "eval-engine.log"


@dataclass(frozen=True, slots=True)
class Asked:
    """A policy that can be asked now."""

    label: str  # "base", "solver@5"
    policy: str  # its name at the engine
    version: int
    client: Engine


class Serving:
    """Hands out one policy after the other. With full weights an engine holds one at a time, so
    the base must be asked for first."""

    def __init__(self, url: str, full: bool, role: Role, plain: VllmClient, numbered: WeightClient):
        self.url = url
        self._full, self._role = full, role
        self._plain, self._numbered = plain, numbered
        self._publisher: Publisher = (
            WeightPublisher({role: [numbered]}) if full else AdapterPublisher(plain, keep=1)
        )

    async def policy(self, version: Version | None) -> Asked:
        """None: the base model. PublishFailed for a version that cannot be served."""
        if version is None:
            return Asked(BASE, self._role if self._full else BASE_POLICY, 0, self._plain)
        name = await self._publisher.publish(
            version.role, version.number, version.folder, version.digest
        )
        client = self._numbered if self._full else self._plain
        return Asked(version.name, name, version.number, client)


@asynccontextmanager
async def serving(run_dir: Path, config: Config, role: Role) -> AsyncIterator[Serving]:
    """While it is open, versions of the role can be asked. ModelUnusable, EngineUnavailable."""
    base = check_model(Path((run_dir / "base_model").read_text().strip()))
    full = config.learner.weights == "full"
    ours = msgspec.structs.replace(config.engine, port=0, url="")
    seconds = config.engine.request_seconds
    async with (
        VllmServer(base, ours, run_dir / "logs" / LOG, role=role if full else None) as server,
        VllmClient(server.url, request_seconds=seconds) as plain,
        WeightClient(server.url, request_seconds=seconds, numbered=True) as numbered,
    ):
        yield Serving(server.url, full, role, plain, numbered)


@asynccontextmanager
async def served_now(
    run_dir: Path, config: Config, published: PolicyPublished | None
) -> AsyncIterator[Asked | None]:
    """What a run that is going on serves of a role; None where it is not going on."""
    weights = config.learner.weights
    file = run_dir / address_file(weights, published.role if published else "solver")
    if published is None or not file.exists():
        yield None
        return
    urls, numbered = urls_of(file.read_text()), weights == "full"
    async with VllmClient(urls[0]) as first:
        try:
            there = await first.health() and published.policy in await first.policies()
        except EngineError:
            there = False
    if not there:
        yield None
        return
    label = f"{published.role}@{published.version}"
    async with EnginePool(urls, config.engine, numbered=numbered) as pool:
        yield Asked(label, published.policy, published.version, pool)
