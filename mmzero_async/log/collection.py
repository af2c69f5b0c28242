"""`mmzero log merge`: several runs' logs in one folder, read-only, each as it was.

Offsets and lineage ids are each log's own and stay so: a row, an event or a picture is named by its
member and its offset. Nothing is renumbered, so nothing that names an offset is wrong afterwards.
"""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import msgspec

from mmzero_async.log.backup import back_up
from mmzero_async.log.drafts import draft_of
from mmzero_async.log.errors import LogError
from mmzero_async.log.interface import View
from mmzero_async.log.listing import read_listing, write_listing
from mmzero_async.log.reader import LogReader
from mmzero_async.schemas.record import Record, encode_record

COLLECTION = "collection.json"
FORMAT = 1


class CollectionDamaged(LogError):
    """No collection of ours, a newer format, or a member that is not what was merged."""


class SameLog(LogError):
    """Two of the logs are one, or one goes on where the other was copied."""


class Member(msgspec.Struct, frozen=True):
    """A log of the collection: `name` is its folder's, and unique; `run` what the log says."""

    name: str
    run: str
    events: int
    blobs: int
    first: str  # digests of its first and its last record
    last: str


class Collection(msgspec.Struct, frozen=True):
    members: list[Member]
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class Part:
    """What is merged: a log, and the files beside it that go along."""

    reader: LogReader
    beside: Sequence[Path] = ()


def merge(parts: Sequence[Part], out: Path) -> Collection:
    """A new folder `out` with a checked copy of each log, one snapshot of it.

    TargetTaken, LogFull, BackupRefused (a log is damaged), SameLog; nothing is left behind then.
    """
    _refuse_same(parts)
    members = []
    with draft_of(out) as draft:
        for name, part in zip(_names(parts), parts, strict=True):
            folder = draft / name
            folder.mkdir()
            back_up(part.reader, folder / "log")
            for path in part.beside:
                shutil.copyfile(path, folder / path.name)
            members.append(_member(name, folder / "log"))
        found = Collection(members)
        write_listing(draft / COLLECTION, found)
    return found


def is_collection(folder: Path) -> bool:
    return (folder / COLLECTION).exists()


def open_collection(folder: Path) -> Collection:
    """Its members, each held against its first and last record. CollectionDamaged."""
    path = folder / COLLECTION
    found = read_listing(path, Collection, "collection", FORMAT, CollectionDamaged)
    for member in found.members:
        if Path(member.name).name != member.name:
            raise CollectionDamaged(f"{path} names {member.name!r}, no folder beside it")
        if _member(member.name, folder / member.name / "log") != member:
            raise CollectionDamaged(
                f"{folder / member.name} is not the log that was merged: `mmzero log verify` it, "
                "or merge again"
            )
    return found


def _member(name: str, log: Path) -> Member:
    reader = LogReader.open(log)
    try:
        events = reader.next_offset
        first, last = (
            (_digest(reader.get(0)), _digest(reader.get(events - 1))) if events else ("", "")
        )
        return Member(name, reader.run, events, reader.stats().blobs, first, last)
    finally:
        reader.close()


def _names(parts: Sequence[Part]) -> list[str]:
    """The runs' own names; of several with one name the second is called name-2."""
    names: list[str] = []
    for part in parts:
        wanted = name = Path(part.reader.run).name or "run"
        count = 1
        while name in names:
            count += 1
            name = f"{wanted}-{count}"
        names.append(name)
    return names


def _refuse_same(parts: Sequence[Part]) -> None:
    """Merged, the events that they share would count twice."""
    seen: dict[str, Part] = {}
    for part in parts:
        if not part.reader.next_offset:
            continue
        first = _digest(part.reader.get(0))
        other = seen.setdefault(first, part)
        if other is not part:
            paths = [str(p.reader.environment.path) for p in (other, part)]
            at = first_difference(other.reader, part.reader)
            raise SameLog(
                f"{paths[0]} and {paths[1]} are copies of one log, alike "
                + ("from end to end" if at is None else f"up to offset {at}")
                + ": their events would count twice. Merge only the one that goes further"
            )


def first_difference(one: View, other: View) -> int | None:
    """The first offset at which two logs do not hold the same record; None when they are alike."""
    for offset, (a, b) in enumerate(zip_longest(one.scan(), other.scan())):
        if a is None or b is None or a.envelope != b.envelope:
            return offset
    return None


def _digest(record: Record) -> str:
    return hashlib.sha256(encode_record(record.envelope)).hexdigest()[:16]
