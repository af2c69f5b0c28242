"""Logs between machines: one file there and back to the bit; several in one collection."""

import json
import shutil
import tarfile
from pathlib import Path

import msgspec
import pytest
from click.testing import Result
from dataset_runs import append, everything, lineage, story, write_run
from hypothesis import given, settings
from log_contents import databases, write, writings
from typer.testing import CliRunner

from mmzero_async.log.collection import COLLECTION, CollectionDamaged, SameLog, open_collection
from mmzero_async.log.errors import LogError, TargetTaken
from mmzero_async.log.manifest import MANIFEST, ArchiveDamaged
from mmzero_async.log.portable import export_log, import_log
from mmzero_async.log.reader import LogReader
from mmzero_async.log.verify import verify
from mmzero_async.log.writer import LogWriter
from mmzero_async.ops.cli import app
from mmzero_async.ops.datasets.export import export
from mmzero_async.ops.datasets.options import options


def log(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["log", *map(str, words)])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "demo", story())


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("exported") / "demo.mmzero"
    assert log("export", run, file).exit_code == 0
    return file


def test_a_run_is_one_file_and_the_same_run_elsewhere(
    run: Path, exported: Path, tmp_path: Path
) -> None:
    came = log("import", exported, tmp_path / "here" / "demo")
    assert came.exit_code == 0 and "the same to the bit" in came.stdout
    assert databases(tmp_path / "here" / "demo" / "log") == databases(run / "log")
    for name in ("config.json", "base_model"):
        assert (tmp_path / "here" / "demo" / name).read_bytes() == (run / name).read_bytes()
    assert verify(tmp_path / "here" / "demo" / "log").clean
    again = json.loads(log("export", tmp_path / "here" / "demo", tmp_path / "b", "--json").stdout)
    assert again["run"] == "demo" and again["bytes"] == (tmp_path / "b").stat().st_size
    assert json.loads(log("import", tmp_path / "b", tmp_path / "c", "--json").stdout) == {
        "run": "demo",
        "events": again["events"],
        "pictures": 12,
        "run_folder": str(tmp_path / "c"),
    }
    # A writer goes on where the other one ended.
    append(tmp_path / "here" / "demo", lineage("g50"))
    assert verify(tmp_path / "here" / "demo" / "log").clean
    assert sorted(path.name for path in exported.parent.iterdir()) == ["demo.mmzero"]


@settings(max_examples=10)
@given(mix=writings())
def test_whatever_is_in_a_log_comes_back(mix, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("any")
    writer = LogWriter(folder / "log", run="r", map_gib=1, sync="nosync")
    write(writer, mix)
    reader = writer.reader()
    export_log(reader, folder / "file")
    writer.close()
    import_log(folder / "file", folder / "back")
    assert databases(folder / "back" / "log") == databases(folder / "log")


def test_no_flipped_or_missing_byte_is_imported(exported: Path, tmp_path: Path) -> None:
    data = exported.read_bytes()
    padding = 0
    for place in range(0, len(data), max(1, len(data) // 60)):
        broken = bytearray(data)
        broken[place] ^= 0x10
        (tmp_path / "broken").write_bytes(broken)
        try:
            import_log(tmp_path / "broken", tmp_path / "out")
        except LogError:
            assert not (tmp_path / "out").exists()
            continue
        # A tar's own padding and a header's unused fields mean nothing: then all is there.
        padding += 1
        assert verify(tmp_path / "out" / "log").clean
        assert len(databases(tmp_path / "out" / "log")["events"]) > 0
        shutil.rmtree(tmp_path / "out")
    assert padding < 20
    with tarfile.open(exported) as tar:
        last = tar.getmembers()[-1]
    for size in (0, 100, len(data) // 2, last.offset_data + last.size - 1):
        (tmp_path / "short").write_bytes(data[:size])
        with pytest.raises(ArchiveDamaged, match="short"):
            import_log(tmp_path / "short", tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"broken", "short"}


def test_what_is_newer_foreign_or_hostile_is_refused_in_words(
    exported: Path, tmp_path: Path
) -> None:
    def packed(change) -> Path:
        folder, file = tmp_path / "unpacked", tmp_path / "file"
        shutil.rmtree(folder, ignore_errors=True)
        file.unlink(missing_ok=True)
        with tarfile.open(exported) as tar:
            tar.extractall(folder, filter="data")
        with tarfile.open(file, "w") as tar:
            change(folder, tar)
            for path in sorted(folder.iterdir()):
                tar.add(path, path.name)
        return file

    def newer(folder: Path, tar: tarfile.TarFile) -> None:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes())
        (folder / MANIFEST).write_bytes(msgspec.json.encode({**manifest, "format": 99}))

    def outside(folder: Path, tar: tarfile.TarFile) -> None:
        tar.addfile(tarfile.TarInfo("../outside"))

    def link(folder: Path, tar: tarfile.TarFile) -> None:
        member = tarfile.TarInfo("link")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)

    for change, told in (
        (newer, f"{tmp_path / 'file'} has archive format 99, this version reads up to 1"),
        (outside, "'../outside', as no exported log does"),
        (link, "'link', as no exported log does"),
    ):
        refused = log("import", packed(change), tmp_path / "out")
        assert refused.exit_code == 1 and told in str(refused.exception)
        assert not (tmp_path / "out").exists() and not (tmp_path / "outside").exists()
    (tmp_path / "text").write_text("no log at all\n" * 1000)
    assert "is no exported log" in str(log("import", tmp_path / "text", tmp_path / "o").exception)
    assert isinstance(log("import", tmp_path / "absent", tmp_path / "o").exception, OSError)


def test_nothing_that_is_there_is_written_over(run: Path, exported: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    assert isinstance(log("export", run, tmp_path / "mine").exception, TargetTaken)
    assert isinstance(log("import", exported, tmp_path / "mine").exception, TargetTaken)
    assert (tmp_path / "mine").read_text() == "mine"


# --- several logs -----------------------------------------------------------------------------


@pytest.fixture
def both(tmp_path: Path) -> Path:
    """Two runs of one name from two machines, and a third, as a collection."""
    one = write_run(tmp_path / "a" / "demo", story())
    two = write_run(tmp_path / "b" / "demo", [*lineage("g0"), *lineage("g40")])
    other = write_run(tmp_path / "other", lineage("g7"))
    told = log("merge", one, two, other, tmp_path / "all")
    assert told.exit_code == 0, told.exception
    assert "3 logs in" in told.stdout and f"{tmp_path / 'all' / 'demo-2'}: run demo" in told.stdout
    return tmp_path / "all"


def test_a_collection_holds_each_log_as_it_was(both: Path, tmp_path: Path) -> None:
    assert [m.name for m in open_collection(both).members] == ["demo", "demo-2", "other"]
    origins = (tmp_path / "a" / "demo", tmp_path / "b" / "demo", tmp_path / "other")
    for name, origin in zip(("demo", "demo-2", "other"), origins, strict=True):
        assert databases(both / name / "log") == databases(origin / "log")
        status = CliRunner().invoke(app, ["status", str(both / name)])
        assert status.exit_code == 0, "each is a run's folder too"


def test_a_dataset_of_a_collection_names_where_each_row_is_from(both: Path, tmp_path: Path) -> None:
    import datasets

    manifest, _ = export(both, tmp_path / "d", options(split="0.5/0.5"))
    found = datasets.load_dataset(str(tmp_path / "d"), cache_dir=str(tmp_path / "cache"))
    rows = [row for split in found.values() for row in split]
    assert {row["run"] for row in rows} == {"demo", "demo-2", "other"}
    assert [s["name"] for s in manifest.plan.sources] == ["demo", "demo-2", "other"]
    for row in rows:
        reader = LogReader.open(both / row["run"] / "log")
        event = reader.get(row["offset"]).event()
        reader.close()
        assert (event.drawing, event.question) == (row["id"], "hard")  # type: ignore[union-attr]
    # g0 of demo and of demo-2 are the same pictures under the same words: the first one's stay.
    assert manifest.counts.left_out == {"duplicate": 2} and len(rows) == 12 + 2 + 2
    export(both, tmp_path / "again", options(split="0.5/0.5"))
    assert everything(tmp_path / "again") == everything(tmp_path / "d")


def test_copies_of_one_log_are_not_counted_twice(run: Path, tmp_path: Path) -> None:
    fork = tmp_path / "fork" / "demo"
    assert log("backup", run, fork).exit_code == 0
    reader = LogReader.open(run / "log")
    end = reader.next_offset
    reader.close()
    told = log("merge", run, fork, tmp_path / "all")
    assert isinstance(told.exception, SameLog) and "from end to end" in str(told.exception)
    append(fork, lineage("g60"))
    told = log("merge", run, fork, tmp_path / "all")
    assert isinstance(told.exception, SameLog) and f"up to offset {end}" in str(told.exception)
    assert not (tmp_path / "all").exists()


def test_a_collection_that_is_not_as_it_was_merged_is_refused(both: Path, tmp_path: Path) -> None:
    append(both / "other", lineage("g99"))
    with pytest.raises(CollectionDamaged, match=r"other is not the log that was merged"):
        export(both, tmp_path / "d", options())
    found = msgspec.json.decode((both / COLLECTION).read_bytes())
    for change, told in (
        ({"format": 9}, "has collection format 9, this version reads up to 1"),
        ({"members": 3}, "is damaged"),
        ({"members": [{**found["members"][0], "name": "../demo"}]}, "no folder beside it"),
    ):
        (both / COLLECTION).write_bytes(msgspec.json.encode({**found, **change}))
        with pytest.raises(CollectionDamaged, match=told):
            export(both, tmp_path / "d", options())
    assert not (tmp_path / "d").exists()
