"""Publishing: from a checkpoint on disk to a policy that the engine serves.

Knows names and versions, no training. Guarantees: a name stands for one set of weights for ever,
and a publish that fails leaves the engine serving what it served before.
"""

import asyncio
import hashlib
import re
from pathlib import Path
from typing import Protocol

from mmzero_async.engines.client import VllmClient
from mmzero_async.engines.errors import (
    EngineError,
    EngineRejected,
    EngineUnavailable,
    PublishFailed,
)
from mmzero_async.engines.launch import BASE_POLICY
from mmzero_async.schemas.events import Role, Sampling

_ADAPTER = "adapter_model.safetensors"  # peft's name
_NAME = re.compile(r"(\w+)@(\d+)")
_FILES = ("adapter_config.json", _ADAPTER)


def policy_name(role: Role, version: int) -> str:
    """`solver@17`."""
    return f"{role}@{version}"


class Publisher(Protocol):
    """How versions reach engines: `AdapterPublisher` LoRA adapters, `WeightPublisher` all weights.

    A version is served as a whole or not at all, and no token is drawn from anything else.
    """

    async def publish(self, role: Role, version: int, path: Path, digest: str = "") -> str:
        """Serves the checkpoint from now on, if its weights have the digest ("": whatever they
        are); returns the policy's name. PublishFailed if not: no part of it is served then."""
        ...

    async def serves(self, role: Role, version: int) -> bool:
        """Whether the engine has this version. EngineError if it cannot be asked."""
        ...

    def current(self, role: Role) -> str:
        """The policy that new requests of a role should name."""
        ...


class AdapterPublisher:
    """A LoRA adapter a version, each under a name of its own.

    `solver@17` is loaded beside `solver@16`, not in its place. vLLM's own version spans follow the
    base's weights only and stay "default" whatever adapter is replaced, so a name that changed its
    weights under a running request would leave samples whose version nobody knows. With a name a
    version every sample has exactly one, requests in flight end under the weights they began with,
    and the prefix cache, which is keyed by the adapter's name and folder, cannot mix versions.

    The last `keep` versions of a role stay loaded for work that was leased before the publish;
    older ones are unloaded, which ends no request that runs. vLLM may read an adapter's folder
    again as long as its name is served: keep the checkpoints of those versions.
    """

    def __init__(self, client: VllmClient, *, keep: int = 2, hand_over: bool = False) -> None:
        if keep < 1:
            raise ValueError(f"keep = {keep}: at least the version just published must stay")
        self._client = client
        self._keep = keep
        self._hand_over = hand_over  # the engine does not see our folders
        self._current: dict[Role, str] = {}
        self._lock = asyncio.Lock()

    def current(self, role: Role) -> str:
        """The version published last, or the base model before the first."""
        return self._current.get(role, BASE_POLICY)

    async def serves(self, role: Role, version: int) -> bool:
        """Whether the engine lists the version."""
        return policy_name(role, version) in await self._client.policies()

    async def publish(self, role: Role, version: int, path: Path, digest: str = "") -> str:
        """Checks the file's digest, loads, verifies by a listing and one generated token, then
        unloads what is too old.

        Publishing a version again is allowed: nothing is loaded twice. Raises PublishFailed.
        """
        name = policy_name(role, version)
        folder = _absolute(path)
        async with self._lock:
            try:
                await asyncio.to_thread(_check_digest, path / _ADAPTER, digest)
                if self._hand_over:
                    files = await asyncio.to_thread(_adapter, path)
                    folder = await self._client.hand_over(role, version, files)
                await self._serve(role, name, version, folder)
            except EngineError as error:
                raise PublishFailed(
                    f"{name} from {folder} was not published; {role} is still served as "
                    f"{self.current(role)}. {error}"
                ) from error
            self._current[role] = name
            await self._unload_others(role, version)
        return name

    async def _serve(self, role: Role, name: str, version: int, folder: str) -> None:
        loaded_from = (await self._client.policy_paths()).get(name)
        if loaded_from is not None and loaded_from != folder:
            await self._client.unload_policy(name)  # another run's, left in a shared engine
        if loaded_from != folder:
            await self._client.load_policy(name, folder)
        try:
            if name not in await self._client.policies():
                raise EngineUnavailable(f"the engine took {name} but does not list it")
            await self._client.complete(
                [0],
                policy=name,
                version=version,
                role=role,
                n=1,
                sampling=Sampling(temperature=1.0, max_tokens=1),
            )
        except EngineError:
            if name != self.current(role):
                await self._withdraw(name)
            raise

    async def _unload_others(self, role: Role, current: int) -> None:
        """Asks the engine what it has instead of remembering, so a restart forgets nothing."""
        try:
            served = await self._client.policies()
        except EngineError:
            return  # the new version serves; the next publish finds the old ones again
        matches = [match for match in map(_NAME.fullmatch, served) if match and match[1] == role]
        versions = sorted(int(match[2]) for match in matches)
        # Versions above the current one are another run's, left in a shared engine.
        kept = [version for version in versions if version <= current][-self._keep :]
        for version in versions:
            if version not in kept:
                await self._withdraw(policy_name(role, version))

    async def _withdraw(self, name: str) -> None:
        try:
            await self._client.unload_policy(name)
        except EngineError:
            return  # gone already, or the next publish tries again


def _check_digest(file: Path, expected: str) -> None:
    """An engine would load an adapter with a changed byte as readily."""
    try:
        actual = hashlib.sha256(file.read_bytes()).hexdigest() if expected else ""
    except OSError as error:
        raise EngineRejected(f"{file} cannot be read: {error}") from error
    if actual != expected:
        raise EngineRejected(
            f"{file} is damaged: its digest is {actual[:16]}…, {expected[:16]}… was committed"
        )


def _adapter(folder: Path) -> dict[str, bytes]:
    """What an engine needs of a checkpoint: peft's two files. PublishFailed."""
    try:
        return {name: (folder / name).read_bytes() for name in _FILES}
    except OSError as error:
        raise PublishFailed(f"{folder} holds no adapter: {error}") from error


def _absolute(path: Path) -> str:
    """The engine may have another working directory."""
    return str(path.resolve())
