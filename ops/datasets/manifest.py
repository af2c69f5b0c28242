"""What a dataset's folder holds: the plan that it follows, its files with digests, its counts.

`manifest.json` is written last; until then `.progress.jsonl` holds the plan and what is finished.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

import msgspec

from mmzero_async.log.drafts import sync
from mmzero_async.ops.datasets.options import DatasetError
from mmzero_async.ops.datasets.shards import Shard

MANIFEST, CARD, PROGRESS = "manifest.json", "README.md", ".progress.jsonl"
FORMAT = 1


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All that decides about the bytes: the same plan, the same dataset."""

    format: int = FORMAT
    sources: list[dict[str, Any]]  # name, run, events, first
    kind: str
    form: str
    where: str
    splits: dict[str, float]
    deduplicate: bool
    shard_bytes: int
    command: str
    software: dict[str, str]

    def stops(self) -> dict[str, int]:
        return {source["name"]: source["events"] for source in self.sources}


class Counts(msgspec.Struct, kw_only=True):
    """Of an export. `left_out`: groups of the kind that became no row, by reason."""

    lineages: int = 0  # looked at
    groups: int = 0  # complete ones of the roles that are asked for
    left_out: dict[str, int] = {}
    rows: dict[str, int] = {}  # by role
    bare_prompts: int = 0
    pictures: int = 0  # of a row at most
    versions: dict[str, list[int]] = {}  # role -> least and largest policy version
    offsets: dict[str, list[int]] = {}  # source -> least and largest offset of a row

    def leave_out(self, reason: str) -> None:
        self.left_out[reason] = self.left_out.get(reason, 0) + 1

    def row(self, source: str, role: str, version: int, offset: int) -> None:
        self.rows[role] = self.rows.get(role, 0) + 1
        for span, key, value in ((self.versions, role, version), (self.offsets, source, offset)):
            known = span.setdefault(key, [value, value])
            known[0], known[1] = min(known[0], value), max(known[1], value)


class SplitFigures(msgspec.Struct, frozen=True, kw_only=True):
    share: float
    rows: int
    shards: int
    bytes: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    plan: Plan
    counts: Counts
    splits: dict[str, SplitFigures]
    files: list[Shard]
    card_sha256: str

    @property
    def rows(self) -> int:
        return sum(split.rows for split in self.splits.values())

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


def split_figures(plan: Plan, files: list[Shard]) -> dict[str, SplitFigures]:
    figures = {}
    for name, share in plan.splits.items():
        own = [file for file in files if file.split == name]
        figures[name] = SplitFigures(
            share=share,
            rows=sum(file.rows for file in own),
            shards=len(own),
            bytes=sum(file.bytes for file in own),
        )
    return figures


class Progress:
    """The plan and the finished files of an export that is going on."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._path = folder / PROGRESS
        self._folder = folder
        self.files: list[Shard] = []
        self._write(msgspec.json.encode(plan))

    @classmethod
    def resumed(cls, folder: Path, plan: Plan, files: list[Shard]) -> "Progress":
        """Written anew, so that a torn last line is gone."""
        (folder / PROGRESS).unlink()
        progress = cls(folder, plan)
        for shard in files:
            progress.done(shard)
        return progress

    def done(self, shard: Shard) -> None:
        self.files.append(shard)
        self._write(msgspec.json.encode(shard))

    def _write(self, line: bytes) -> None:
        with self._path.open("ab") as file:
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())
        sync(self._folder)


def read_progress(folder: Path) -> tuple[Plan, list[Shard]] | None:
    """The plan of an unfinished export and those of its files that are whole; None for none.

    A file that is not as it was written down is made again, and those after it in its split.
    """
    try:
        lines = (folder / PROGRESS).read_bytes().splitlines()
    except FileNotFoundError:
        return None
    if not lines:
        return None
    try:
        plan = msgspec.json.decode(lines[0], type=Plan)
    except msgspec.MsgspecError as error:
        raise DatasetError(
            f"{folder / PROGRESS} cannot be read ({error}): begin anew with --overwrite"
        ) from error
    files: list[Shard] = []
    broken: set[str] = set()
    for line in lines[1:]:
        try:
            shard = msgspec.json.decode(line, type=Shard)
        except msgspec.MsgspecError:
            break  # torn by the kill
        if shard.split in broken or not is_whole(folder, shard):
            broken.add(shard.split)
        else:
            files.append(shard)
    return plan, files


def is_whole(folder: Path, shard: Shard) -> bool:
    path = folder / shard.name
    if not path.is_file() or path.stat().st_size != shard.bytes:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == shard.sha256


def read_manifest(folder: Path) -> Manifest | None:
    """None where no finished dataset of ours is. DatasetError for a newer or a damaged one."""
    try:
        data = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        return None
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as error:
        raise DatasetError(f"{folder / MANIFEST} is no dataset's manifest: {error}") from error
    if manifest.plan.format > FORMAT:
        raise DatasetError(
            f"{folder} has dataset format {manifest.plan.format}, this version reads up to "
            f"{FORMAT}: upgrade it"
        )
    return manifest


def finish(folder: Path, manifest: Manifest, card: str) -> None:
    """The card, then the manifest; each appears whole."""
    encoded = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    for name, data in ((CARD, card.encode()), (MANIFEST, encoded)):
        draft = folder / f".{name}.part"
        draft.write_bytes(data)
        sync(draft)
        draft.rename(folder / name)
        sync(folder)
    (folder / PROGRESS).unlink(missing_ok=True)
