"""Publishing full weights: engines of a role's own, their weights replaced in place while requests
wait.

Knows names, versions and files, no training. What an engine does with a file, and that it ends
itself rather than serve a mixture, is in engine_weights.py, which runs inside it.
"""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmzero_async.engines.errors import EngineError, EngineRejected, PublishFailed
from mmzero_async.engines.weight_client import WeightClient
from mmzero_async.schemas.events import ROLES, Role

WEIGHTS = "model.safetensors"  # transformers' name


class WeightPublisher:
    """Engines of a role's own, each serving its role's name: `solver`, whatever its version.

    Pause, keeping the requests that run; replace; number; resume. The engine takes a file only as
    a whole: digest, names and shapes are checked before the first byte changes, and afterwards the
    layers' values are read back and compared with the file's, bit for bit. Only then does it get
    the version's number, which stands beside every token it draws from there on. Requests in flight
    compute what they said so far anew under the new weights and go on: their tokens have two
    versions, told apart in their spans. An engine without a number is asked by nobody
    (`VllmClient(numbered=True)`), so one that was started anew waits for its publish.

    Of several engines one is replaced after the other: what the first refuses reaches none. One
    that fails after another has taken the version keeps its older number, or none, and is asked
    for the new version by nobody until a publish succeeds there.

    Args:
        hand_over: an engine does not see our folders.
    """

    def __init__(
        self, engines: Mapping[Role, Sequence[WeightClient]], *, hand_over: bool = False
    ) -> None:
        self._engines = engines
        self._hand_over = hand_over
        self._locks = {role: asyncio.Lock() for role in ROLES}

    def current(self, role: Role) -> str:
        """The role's engines have one name for all versions."""
        return role

    async def serves(self, role: Role, version: int) -> bool:
        """Whether all engines of the role that are up draw tokens of this version now."""
        return not await self._missing(role, version)

    async def publish(self, role: Role, version: int, path: Path, digest: str = "") -> str:
        """Replaces the weights and reads them back; `digest` is the file's, "": as it lies there.

        Engines that serve the version are left alone, unless all do. Raises PublishFailed. An
        engine then serves what it served before, or nothing: where it could not be told how far it
        came it stays paused until a publish succeeds.
        """
        file = _file(path)
        async with self._locks[role]:
            try:
                expected = digest or await asyncio.to_thread(_digest, file)
                engines = await self._missing(role, version) or self._engines[role]
                await self._replace_all(role, engines, file, expected, version)
            except (EngineError, OSError) as error:
                raise PublishFailed(
                    f"{role} {version} from {file} was not published: {error}"
                ) from (error)
        return role

    async def _missing(self, role: Role, version: int) -> list[WeightClient]:
        """Of the engines that answer those that do not serve it. EngineError when none does."""
        engines = self._engines[role]
        asked = await asyncio.gather(
            *(_draws(engine, version) for engine in engines), return_exceptions=True
        )
        failures = [said for said in asked if isinstance(said, BaseException)]
        for failure in failures:
            if len(failures) == len(engines) or not isinstance(failure, EngineError):
                raise failure
        return [engine for engine, said in zip(engines, asked, strict=True) if said is False]

    async def _replace_all(
        self,
        role: Role,
        engines: Sequence[WeightClient],
        file: Path,
        digest: str,
        version: int,
    ) -> None:
        """EngineError when no engine took it."""
        taken, failure = 0, None
        for engine in engines:
            try:
                where = str(file)
                if self._hand_over:  # before the pause: it may take long
                    where = await engine.hand_over_weights(role, version, file, digest)
                await self._replace(engine, where, digest, version)
                taken += 1
            except EngineError as error:
                failure = failure or error
                if not taken and isinstance(error, EngineRejected):
                    break
        if failure is not None and not taken:
            raise failure

    async def _replace(self, engine: WeightClient, file: str, digest: str, version: int) -> None:
        await engine.pause()
        try:
            await engine.replace_weights(file, digest)
        except EngineRejected:
            await engine.resume()  # it refused the file as a whole: the old weights are untouched
            raise
        await engine.number_weights(version)
        await engine.resume()


async def _draws(engine: WeightClient, version: int) -> bool:
    return await engine.weight_version() == str(version) and not await engine.is_paused()


def _file(folder: Path) -> Path:
    """The engine may have another working directory."""
    return folder.resolve() / WEIGHTS


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
