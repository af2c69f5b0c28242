"""Publishing full weights: an engine a role, its weights replaced in place while requests wait.

Knows names, versions and files, no training. What the engine does with a file, and that it ends
itself rather than serve a mixture, is in engine_weights.py, which runs inside it.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path

from mmzero_async.engines.client import VllmClient
from mmzero_async.engines.errors import EngineError, EngineRejected, PublishFailed
from mmzero_async.schemas.events import ROLES, Role

WEIGHTS = "model.safetensors"  # transformers' name


class WeightPublisher:
    """One engine a role, each serving its role's name: `solver`, whatever its version.

    Pause, keeping the requests that run; replace; number; resume. The engine takes a file only as
    a whole: digest, names and shapes are checked before the first byte changes, and afterwards the
    layers' values are read back and compared with the file's, bit for bit. Only then does it get
    the version's number, which stands beside every token it draws from there on. Requests in flight
    compute what they said so far anew under the new weights and go on: their tokens have two
    versions, told apart in their spans. An engine without a number is asked by nobody
    (`VllmClient(numbered=True)`), so one that was started anew waits for its publish.
    """

    def __init__(self, engines: Mapping[Role, VllmClient]) -> None:
        self._engines = engines
        self._locks = {role: asyncio.Lock() for role in ROLES}

    def current(self, role: Role) -> str:
        """The role's engine has one name for all versions."""
        return role

    async def serves(self, role: Role, version: int) -> bool:
        """Whether the role's engine draws tokens of this version now. EngineError if it is away."""
        engine = self._engines[role]
        return await engine.weight_version() == str(version) and not await engine.is_paused()

    async def publish(self, role: Role, version: int, path: Path, digest: str = "") -> str:
        """Replaces the weights and reads them back; `digest` is the file's, "": as it lies there.

        Raises PublishFailed. The engine then serves what it served before, or nothing: where it
        could not be told how far it came it stays paused until a publish succeeds.
        """
        engine, file = self._engines[role], _file(path)
        async with self._locks[role]:
            try:
                expected = digest or await asyncio.to_thread(_digest, file)
                await engine.pause()
                await self._replace(engine, file, expected, version)
                await engine.resume()
            except (EngineError, OSError) as error:
                raise PublishFailed(
                    f"{role} {version} from {file} was not published: {error}"
                ) from (error)
        return role

    async def _replace(self, engine: VllmClient, file: Path, digest: str, version: int) -> None:
        try:
            await engine.replace_weights(str(file), digest)
        except EngineRejected:
            await engine.resume()  # it refused the file as a whole: the old weights are untouched
            raise
        await engine.number_weights(version)


def _file(folder: Path) -> Path:
    """The engine may have another working directory."""
    return folder.resolve() / WEIGHTS


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
