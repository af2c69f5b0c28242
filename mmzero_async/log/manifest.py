"""What an archive holds: its files with digests, its tables, and the entries of a log in them.

An archive is a folder: `manifest.json`; `events-*.parquet`, one row a record; `pictures-*.parquet`,
digest and bytes; `state-*.parquet`, the entries of the small databases that do not follow from the
events; and what stands beside a run's log (config.json, base_model).
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from mmzero_async.log.environment import DATABASES, OFFSET, Environment, sequence_key
from mmzero_async.log.errors import LogError
from mmzero_async.log.listing import read_listing
from mmzero_async.log.parts import rows
from mmzero_async.schemas.record import Envelope, decode_record, encode_record

MANIFEST = "manifest.json"
FORMAT = 1
EVENTS = pa.schema(
    [
        ("offset", pa.uint64()),
        ("schema", pa.int64()),
        ("time_ns", pa.int64()),
        ("producer", pa.string()),
        ("epoch", pa.uint64()),
        ("sequence", pa.uint64()),
        ("kind", pa.string()),
        ("body", pa.binary()),
        # The record as it lies in the log, where a newer writer's envelope holds more than this.
        ("record", pa.binary()),
    ]
)
PICTURES = pa.schema([("digest", pa.binary(32)), ("data", pa.binary())])
STATE = pa.schema([("database", pa.string()), ("key", pa.binary()), ("value", pa.binary())])

Entry = tuple[str, bytes, bytes]  # database, key, value


class ArchiveDamaged(LogError):
    """No archive of ours, a newer format, or files that are not as they were written."""


class File(msgspec.Struct, frozen=True):
    name: str
    sort: str  # "events" | "pictures" | "state" | "beside"
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """`contents`: a digest of each database of the log, over all its keys and values in order."""

    format: int = FORMAT
    run: str
    made: str  # time, ISO 8601
    events: int
    event_bytes: int
    pictures: int
    picture_bytes: int
    contents: dict[str, str]
    files: list[File]

    def names(self, sort: str) -> list[str]:
        return [file.name for file in self.files if file.sort == sort]


def open_archive(folder: Path) -> Manifest:
    """The manifest, with every file held against its digest. ArchiveDamaged says which is wrong."""
    manifest = read_listing(folder / MANIFEST, Manifest, "archive", FORMAT, ArchiveDamaged)
    for file in manifest.files:
        if Path(file.name).name != file.name:
            raise ArchiveDamaged(f"{folder / MANIFEST} names {file.name!r}, no file of its folder")
        try:
            found = described(folder / file.name, file.sort)
        except OSError as error:
            raise ArchiveDamaged(f"{folder / file.name} cannot be read: {error}") from error
        if found != file:
            raise ArchiveDamaged(
                f"{folder / file.name} is damaged: {found.bytes} bytes, sha-256 {found.sha256}; "
                f"the manifest says {file.bytes}, {file.sha256}. Use another copy of the archive"
            )
    return manifest


def described(path: Path, sort: str) -> File:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return File(path.name, sort, path.stat().st_size, digest)


def pictures(folder: Path, manifest: Manifest) -> Iterator[tuple[bytes, bytes]]:
    """Digest and bytes of each."""
    yield from rows(folder, manifest.names("pictures"), PICTURES.names)


def picture_digests(folder: Path, manifest: Manifest) -> Iterator[bytes]:
    for (digest,) in rows(folder, manifest.names("pictures"), ["digest"]):
        yield digest


def entries(folder: Path, manifest: Manifest) -> Iterator[Entry]:
    """Every entry of every database of the log that was archived."""
    for offset, *fields, raw in rows(folder, manifest.names("events"), EVENTS.names):
        envelope = Envelope(*fields)
        key = OFFSET.pack(offset)
        yield "events", key, raw if raw is not None else encode_record(envelope)
        yield "sequences", _sequence_key(envelope), key
    for digest, data in pictures(folder, manifest):
        yield "blobs", digest, data
    yield from rows(folder, manifest.names("state"), STATE.names)


def event_row(offset: int, data: bytes) -> tuple[Any, ...]:
    """Raises RecordDamaged."""
    e = decode_record(offset, data).envelope
    fields = (e.schema, e.time_ns, e.producer, e.epoch, e.sequence, e.kind, e.body)
    return (offset, *fields, None if encode_record(e) == data else data)


def _sequence_key(envelope: Envelope) -> bytes:
    return sequence_key(envelope.producer, envelope.epoch, envelope.sequence)


def content_digests(environment: Environment, transaction: Any) -> dict[str, str]:
    """BLAKE2b-256 of each database, over the length and bytes of every key and value in order."""
    found = {}
    for name in DATABASES:
        digest = hashlib.blake2b(digest_size=32)
        handle = getattr(environment, name)
        if handle is not None:
            with transaction.cursor(handle) as cursor:
                for key, value in cursor:
                    digest.update(OFFSET.pack(len(key)) + OFFSET.pack(len(value)))
                    digest.update(key)
                    digest.update(value)
        found[name] = digest.hexdigest()
    return found
