"""Publishing: from a checkpoint on disk to a policy that the engines serve.

Knows names and versions, no training. Guarantees: a name stands for one set of weights for ever,
and a publish that fails leaves every engine serving what it served before.
"""

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping
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

    A version is served as a whole or not at all, and no token is drawn from anything else. Of
    several engines all that are up serve it when `publish` returns; one that was away is asked for
    it by nobody until it was published there too (docs/adr/0019).
    """

    async def publish(self, role: Role, version: int, path: Path, digest: str = "") -> str:
        """Serves the checkpoint from now on, if its weights have the digest ("": whatever they
        are); returns the policy's name. PublishFailed if not: no part of it is served then."""
        ...

    async def serves(self, role: Role, version: int) -> bool:
        """Whether every engine that is up has this version. EngineError if none can be asked."""
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

    Args:
        clients: of all engines that are to serve the run.
        hand_over: an engine does not see our folders.
        up: whether an engine is known to be up; the others are left out until they are.
    """

    def __init__(
        self,
        *clients: VllmClient,
        keep: int = 2,
        hand_over: bool = False,
        up: Callable[[VllmClient], bool] = lambda client: True,
    ) -> None:
        if keep < 1:
            raise ValueError(f"keep = {keep}: at least the version just published must stay")
        self._clients = clients
        self._keep = keep
        self._hand_over = hand_over
        self._up = up
        self._current: dict[Role, str] = {}
        self._lock = asyncio.Lock()

    def current(self, role: Role) -> str:
        """The version published last, or the base model before the first."""
        return self._current.get(role, BASE_POLICY)

    async def serves(self, role: Role, version: int) -> bool:
        """Whether all engines that are up, and answer, list the version."""
        asked = await asyncio.gather(
            *(client.policies() for client in self._engines()), return_exceptions=True
        )
        listed = [said for said in asked if not isinstance(said, BaseException)]
        failures = [said for said in asked if isinstance(said, BaseException)]
        for failure in failures:
            if not listed or not isinstance(failure, EngineError):
                raise failure
        return all(policy_name(role, version) in said for said in listed)

    async def publish(self, role: Role, version: int, path: Path, digest: str = "") -> str:
        """Checks the file's digest; at every engine that is up: loads, verifies by a listing and
        one generated token; then unloads what is too old.

        Where one of them refuses, it is withdrawn from all. Publishing a version again is allowed:
        nothing is loaded twice. Raises PublishFailed.
        """
        name = policy_name(role, version)
        async with self._lock:
            try:
                await asyncio.to_thread(_check_digest, path / _ADAPTER, digest)
                files = await asyncio.to_thread(_adapter, path) if self._hand_over else None
                serving = await self._everywhere(role, version, path, files)
            except EngineError as error:
                raise PublishFailed(
                    f"{name} from {_absolute(path)} was not published; {role} is still served as "
                    f"{self.current(role)}. {error}"
                ) from error
            self._current[role] = name
            await asyncio.gather(
                *(self._unload_others(client, role, version) for client in serving)
            )
        return name

    async def _everywhere(
        self, role: Role, version: int, path: Path, files: Mapping[str, bytes] | None
    ) -> list[VllmClient]:
        """The engines that serve it now: all that are up, or none, by an EngineError."""
        engines = self._engines()
        outcomes = await asyncio.gather(
            *(self._serve(client, role, version, path, files) for client in engines),
            return_exceptions=True,
        )
        serving, refusal = [], None
        for client, outcome in zip(engines, outcomes, strict=True):
            if outcome is None:
                serving.append(client)
            elif not isinstance(outcome, EngineUnavailable) or await client.health():
                refusal = refusal or outcome
        if serving and refusal is None:  # who failed is away: it is published there when it is back
            return serving
        name = policy_name(role, version)
        if name != self.current(role):
            await asyncio.gather(*(self._withdraw(client, name) for client in serving))
        raise refusal or next(outcome for outcome in outcomes if outcome is not None)

    async def _serve(
        self,
        client: VllmClient,
        role: Role,
        version: int,
        path: Path,
        files: Mapping[str, bytes] | None,
    ) -> None:
        name, folder = policy_name(role, version), _absolute(path)
        if files is not None:
            folder = await client.hand_over(role, version, files)
        loaded_from = (await client.policy_paths()).get(name)
        if loaded_from is not None and loaded_from != folder:
            await client.unload_policy(name)  # another run's, left in a shared engine
        if loaded_from != folder:
            await client.load_policy(name, folder)
        try:
            if name not in await client.policies():
                raise EngineUnavailable(f"the engine took {name} but does not list it")
            await client.complete(
                [0],
                policy=name,
                version=version,
                role=role,
                n=1,
                sampling=Sampling(temperature=1.0, max_tokens=1),
            )
        except EngineError:
            if name != self.current(role):
                await self._withdraw(client, name)
            raise

    async def _unload_others(self, client: VllmClient, role: Role, current: int) -> None:
        """Asks the engine what it has instead of remembering, so a restart forgets nothing."""
        try:
            served = await client.policies()
        except EngineError:
            return  # the new version serves; the next publish finds the old ones again
        matches = [match for match in map(_NAME.fullmatch, served) if match and match[1] == role]
        versions = sorted(int(match[2]) for match in matches)
        # Versions above the current one are another run's, left in a shared engine.
        kept = [version for version in versions if version <= current][-self._keep :]
        for version in versions:
            if version not in kept:
                await self._withdraw(client, policy_name(role, version))

    async def _withdraw(self, client: VllmClient, name: str) -> None:
        try:
            await client.unload_policy(name)
        except EngineError:
            return  # gone already, or the next publish tries again

    def _engines(self) -> list[VllmClient]:
        engines = [client for client in self._clients if self._up(client)]
        if not engines:
            known = ", ".join(client.url for client in self._clients)
            raise EngineUnavailable(f"no engine is up: {known}")
        return engines


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
