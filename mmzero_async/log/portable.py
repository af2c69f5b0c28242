"""`mmzero log export` and `import`: a whole log as one file, between machines.

The file is a tar of an archive (`archive.py`): Parquet under zstd, and a manifest with the digest
of every file and of every database. What was exported was read back and compared with the log; what
is imported is checked file by file, made into a log, and compared again, so that it is the same to
the bit or is not there at all.
"""

import errno
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mmzero_async.log.archive import archive
from mmzero_async.log.drafts import check_room, sync
from mmzero_async.log.errors import LogFull, TargetTaken
from mmzero_async.log.manifest import MANIFEST, ArchiveDamaged, Manifest
from mmzero_async.log.reader import LogReader
from mmzero_async.log.restore import restore

_COPIED = 1 << 20


def export_log(reader: LogReader, file: Path, beside: Sequence[Path] = ()) -> Manifest:
    """Writes the log as it is now to a new `file`, with the files `beside` it.

    TargetTaken, and what `archive` raises; nothing is left behind then.
    """
    if file.exists() or file.is_symlink():
        raise TargetTaken(f"{file} exists already: name a file that does not, or remove it")
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.draft.{os.getpid()}")
    try:
        with _folder_beside(file) as folder:
            made = archive(reader, folder / "archive", beside)
            check_room(sum(it.bytes for it in made.files), file.parent, "the exported file")
            with tarfile.open(draft, "x", format=tarfile.PAX_FORMAT) as tar:
                # The manifest first: who reads the file's beginning knows what it is.
                for name in (MANIFEST, *(it.name for it in made.files)):
                    tar.add(folder / "archive" / name, name, filter=_plain)
        sync(draft)
        os.link(draft, file)  # never over a file that came meanwhile
        sync(file.parent)
    except FileExistsError as error:
        raise TargetTaken(f"{file} came while it was written: name another file") from error
    except OSError as error:
        _refuse_full(error, file)
        raise
    finally:
        draft.unlink(missing_ok=True)
    return made


def import_log(file: Path, run: Path) -> Manifest:
    """Makes the folder `run` with the log in it, and what stood beside it, as they were.

    TargetTaken, LogFull, FileNotFoundError; ArchiveDamaged for what is no export, a newer one, or
    one that is not as it was written; nothing is left behind then.
    """
    if run.exists():
        raise TargetTaken(f"{run} exists already: name a folder that does not, or remove it")
    size = file.stat().st_size
    run.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _folder_beside(run) as folder:
            check_room(size, folder, "unpacking")
            _unpack(file, folder)
            try:
                return restore(folder, run)
            except ArchiveDamaged as error:
                # What is damaged lies in the file, not in the folder that it was unpacked to.
                raise ArchiveDamaged(str(error).replace(str(folder), str(file))) from None
    except OSError as error:
        _refuse_full(error, run)
        raise


def _unpack(file: Path, folder: Path) -> None:
    """Plain files into the folder, and nothing else that a tar can hold."""
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                if not member.isreg() or Path(member.name).name != member.name:
                    raise ArchiveDamaged(
                        f"{file} holds {member.name!r}, as no exported log does; nothing was kept"
                    )
                data = tar.extractfile(member)
                assert data is not None, "a regular file has data"
                with data, (folder / member.name).open("xb") as out:
                    shutil.copyfileobj(data, out, _COPIED)
    except (tarfile.TarError, EOFError, FileExistsError) as error:
        raise ArchiveDamaged(
            f"{file} is no exported log, or it is damaged or cut short ({error}): export it again "
            "or use another copy"
        ) from error


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Says nothing of this machine's users."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode, member.mtime = 0o644, 0
    return member


@contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """On the same disk, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        yield Path(folder)


def _refuse_full(error: OSError, path: Path) -> None:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise LogFull(f"no room at {path.parent}: {error}. Name another disk") from error
