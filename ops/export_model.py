"""A version of a role as a model of its own, with its lineage."""

from pathlib import Path

from mmzero_async.config import ConfigError, from_json
from mmzero_async.engines.model import check_model
from mmzero_async.learner import checkpoint, merged
from mmzero_async.log.drafts import draft_of
from mmzero_async.log.errors import LogError
from mmzero_async.log.interface import View
from mmzero_async.log.where import Where
from mmzero_async.ops import model_card
from mmzero_async.ops.command_line import role_named
from mmzero_async.ops.rundir import weights_digest
from mmzero_async.ops.versions import versions_of
from mmzero_async.schemas.events import Evaluated, RunStarted


def export(
    reader: View, folder: Path, out: Path, role: str, version: int | None, base: Path | None = None
) -> model_card.Lineage:
    """The same folder for the same log, checkpoint and base, to the byte.

    ConfigError for a version that is not there or another base, CheckpointError for a checkpoint
    that is damaged, TargetTaken where something bears the name.
    """
    config = from_json((folder / "config.json").read_text())
    versions = versions_of(reader, folder, role_named(role))
    it = versions.newest() if version is None else versions.get(version)
    started = _started(reader)
    base = check_model(base or Path((folder / "base_model").read_text().strip()))
    if (found := weights_digest(base)) != started.base_digest:
        raise ConfigError(
            f"{base} has digest {found}, the run was trained from {started.base_digest}: name the "
            "folder of that model with --base"
        )
    checkpoint.read(folder, str(it.folder.relative_to(folder)), it.digest)  # every byte as written
    with draft_of(out) as draft:
        make = merged.merge if config.learner.weights == "lora" else merged.copy_whole
        changed = make(base, it.folder, draft)
        lineage = model_card.Lineage(
            started, config, it, len(changed), _scores(reader, it.role, it.number)
        )
        model_card.write(draft, lineage)
    return lineage


def _started(reader: View) -> RunStarted:
    for record in reader.scan(where=Where(kinds=("run_started",))):
        event = record.event()
        if isinstance(event, RunStarted):
            return event
    raise LogError(f"the log of {reader.run} has no run_started event: it says nothing of its base")


def _scores(reader: View, role: str, version: int) -> list[Evaluated]:
    events = (record.event() for record in reader.scan(where=Where(kinds=("evaluated",))))
    return [
        event
        for event in events
        if isinstance(event, Evaluated) and event.role == role and event.version in (0, version)
    ]
