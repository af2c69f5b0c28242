"""What a projection must know of the run's configuration, read from the log's own RunStarted.

Read leniently: keys of another version are skipped and missing ones have defaults under which
nothing here happens, so that any log of any version can be replayed.
"""

from typing import Literal

import msgspec

from mmzero_async.schedule_options import Turns
from mmzero_async.schemas.events import Role, RunStarted


class RunSettings(msgspec.Struct, frozen=True):
    seed: int = 0


class ProbeSettings(msgspec.Struct, frozen=True):
    """See `ProbeConfig` in config.py."""

    share: float = 0.0
    without: Literal["none", "other", "either"] = "either"
    penalty: float = 0.0


class CopySettings(msgspec.Struct, frozen=True):
    """Of `ShortcutConfig` in config.py, what decides about copies."""

    copy: str = "count"
    copy_bits: int = 8
    copy_memory: int = 4096
    copy_by: Literal["looks", "structure", "either"] = "looks"
    copy_likeness: float = 0.95


class RoleSettings(msgspec.Struct, frozen=True):
    train: bool = True


class LearnerSettings(msgspec.Struct, frozen=True):
    """Of `LearnerConfig` in config.py, who is trained at all."""

    proposer: RoleSettings = RoleSettings()
    coder: RoleSettings = RoleSettings()
    solver: RoleSettings = RoleSettings()

    def trains(self, role: Role) -> bool:
        return bool(getattr(self, role).train)


class Settings(msgspec.Struct, frozen=True):
    run: RunSettings = RunSettings()
    learner: LearnerSettings = LearnerSettings()
    schedule: Turns = Turns()
    probe: ProbeSettings = ProbeSettings()
    shortcuts: CopySettings = CopySettings()


def settings_of(started: RunStarted) -> Settings:
    """The run's own; defaults where its configuration cannot be read."""
    try:
        return msgspec.json.decode(started.config, type=Settings)
    except msgspec.MsgspecError:
        return Settings()
