"""A version on disk is complete or absent, and every byte of it is what was written."""

import itertools
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmzero_async.learner import checkpoint
from mmzero_async.learner.checkpoint import Saved
from mmzero_async.learner.errors import CheckpointError

FILES = [
    "adapter_config.json",
    "adapter_model.safetensors",
    "checkpoint.json",
    "optimizer.safetensors",
]


def adapter(value: float = 1.0) -> dict[str, torch.Tensor]:
    return {"a.lora_A.weight": torch.full((2, 3), value), "a.lora_B.weight": torch.zeros(3, 2)}


def optimizer(value: float = 1.0) -> dict[str, torch.Tensor]:
    return {"a::exp_avg": torch.full((2, 3), value / 2), "a::step": torch.tensor(value)}


def saved(run: Path, version: int = 1, value: float = 1.0, role="solver") -> Saved:
    return checkpoint.save(
        run,
        role,
        version,
        adapter=adapter(value),
        adapter_config={"r": 2, "base": "somewhere"},
        optimizer=optimizer(value),
    )


def alike(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        t.dtype == other[n].dtype and torch.equal(t, other[n]) for n, t in one.items()
    )


def versions(run: Path, role="solver") -> list[str]:
    """All that anybody sees in the role's folder, hidden or not."""
    return sorted(p.name for p in (run / "checkpoints" / role).iterdir())


# --- writing and reading --------------------------------------------------------------------------


def test_what_was_saved_is_read_back_bit_for_bit(tmp_path):
    odd = {"x": torch.tensor([0.1, -0.0, float("inf"), 1e-42]), "y": torch.zeros(0, 4)}
    it = checkpoint.save(
        tmp_path, "coder", 12, adapter=odd, adapter_config={}, optimizer=optimizer(3.0)
    )
    assert it.checkpoint == "checkpoints/coder/000012" == checkpoint.relative_folder("coder", 12)
    loaded = checkpoint.read(tmp_path, it.checkpoint, it.digest)
    assert alike(loaded.adapter, odd)
    assert torch.equal(loaded.adapter["x"].signbit(), odd["x"].signbit())
    assert alike(loaded.optimizer, optimizer(3.0))
    assert loaded.digest == it.digest and len(it.digest) == 64


def test_the_folder_holds_these_files_and_nothing_else_is_left(tmp_path):
    it = saved(tmp_path)
    assert versions(tmp_path) == ["000001"]
    assert sorted(p.name for p in (tmp_path / it.checkpoint).iterdir()) == FILES
    assert json.loads((tmp_path / it.checkpoint / "adapter_config.json").read_text())["r"] == 2


def test_the_digest_tells_adapters_apart_and_is_the_same_for_the_same(tmp_path):
    assert saved(tmp_path / "a") == saved(tmp_path / "b")
    assert saved(tmp_path / "c", value=2.0).digest != saved(tmp_path / "d").digest


def test_an_empty_optimizer_is_a_state_too(tmp_path):
    it = checkpoint.save(tmp_path, "solver", 0, adapter=adapter(), adapter_config={}, optimizer={})
    assert checkpoint.read(tmp_path, it.checkpoint).optimizer == {}


def test_a_version_that_was_never_committed_is_overwritten(tmp_path):
    old = saved(tmp_path, 3, value=1.0)
    (tmp_path / old.checkpoint / "stray").write_text("of the old one")
    new = saved(tmp_path, 3, value=2.0)
    assert new.checkpoint == old.checkpoint and new.digest != old.digest
    assert alike(checkpoint.read(tmp_path, new.checkpoint, new.digest).adapter, adapter(2.0))
    assert versions(tmp_path) == ["000003"]
    assert sorted(p.name for p in (tmp_path / new.checkpoint).iterdir()) == FILES


# --- complete or absent ---------------------------------------------------------------------------


class Killed(BaseException):
    """Not an Exception: nobody may catch it, as nobody catches a SIGKILL."""


def die_at(monkeypatch: pytest.MonkeyPatch, moment: int) -> list[str]:
    """The process dies before its `moment`-th durable act. Returns the acts so far."""
    acts: list[str] = []

    def counted(name, real):
        def act(*args, **options):
            if len(acts) == moment:
                raise Killed
            acts.append(name)
            return real(*args, **options)

        return act

    monkeypatch.setattr(os, "fsync", counted("sync", os.fsync))
    monkeypatch.setattr(Path, "rename", counted("rename", Path.rename))
    monkeypatch.setattr(Path, "write_text", counted("write", Path.write_text))
    monkeypatch.setattr(Path, "write_bytes", counted("write", Path.write_bytes))
    return acts


@pytest.mark.parametrize("before", [None, 1.0])
def test_killed_at_any_moment_of_a_save_a_version_is_complete_or_absent(tmp_path, before):
    for moment in itertools.count():
        run = tmp_path / str(moment)
        if before is not None:
            saved(run, 5, value=before)
        with pytest.MonkeyPatch.context() as patch:
            acts = die_at(patch, moment)
            try:
                saved(run, 5, value=2.0)
                died = False
            except Killed:
                died = True
        folder = run / "checkpoints/solver/000005"
        if folder.exists():
            found = checkpoint.read(run, "checkpoints/solver/000005").adapter
            assert alike(found, adapter(2.0)) or (before and alike(found, adapter(before)))
        else:
            with pytest.raises(CheckpointError, match=r"no checkpoint\.json there"):
                checkpoint.read(run, "checkpoints/solver/000005")
        # Whatever it left behind: the next learner saves this version as if nothing had been.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "getpid", lambda: 1 << 22)
            again = saved(run, 5, value=3.0)
        assert alike(checkpoint.read(run, again.checkpoint, again.digest).adapter, adapter(3.0))
        assert versions(run) == ["000005"]
        if not died:
            assert moment > 8 and "rename" in acts
            return


def test_everything_is_on_disk_before_the_name_appears_and_the_name_before_save_returns(
    tmp_path, monkeypatch
):
    acts: list[tuple[str, str]] = []
    fsync, rename = os.fsync, Path.rename

    def synced(handle: int) -> None:
        acts.append(("sync", Path(f"/proc/self/fd/{handle}").readlink().name))
        fsync(handle)

    def renamed(self: Path, target: Path) -> Path:
        acts.append(("rename", target.name))
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    saved(tmp_path, 1)
    appears = acts.index(("rename", "000001"))
    before, after = acts[:appears], acts[appears + 1 :]
    assert {name for _, name in before} >= set(FILES)
    assert before[-1][1].startswith(".making-")
    assert {name for _, name in after} == {"solver", "checkpoints", tmp_path.name}


def test_a_half_made_folder_is_not_seen(tmp_path):
    it = saved(tmp_path, 1)
    half = tmp_path / "checkpoints/solver/.making-000002-77"
    shutil.copytree(tmp_path / it.checkpoint, half)
    (half / "checkpoint.json").unlink()
    with pytest.raises(CheckpointError, match="000002: no checkpoint"):
        checkpoint.read(tmp_path, checkpoint.relative_folder("solver", 2))
    assert checkpoint.prune(tmp_path, "solver", keep=1) == []
    assert versions(tmp_path) == ["000001"]


# --- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tmp_path, name):
    it = saved(tmp_path)
    (tmp_path / it.checkpoint / name).unlink()
    with pytest.raises(CheckpointError) as refused:
        checkpoint.read(tmp_path, it.checkpoint)
    assert name in str(refused.value) and str(tmp_path / it.checkpoint) in str(refused.value)


@pytest.fixture(scope="module")
def module_run(tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    return run, saved(run)


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
def test_a_flipped_byte_is_named_with_its_file(module_run, name, data):
    run, it = module_run
    path = run / it.checkpoint / name
    good = path.read_bytes()
    place = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bad)
    try:
        loaded = checkpoint.read(run, it.checkpoint)
        # Only in the manifest, and only between its words, can a byte change and mean the same.
        assert name == "checkpoint.json" and json.loads(bad) == json.loads(good)
        assert alike(loaded.adapter, adapter()) and loaded.digest == it.digest
    except CheckpointError as error:
        # A digest that changed in the manifest is laid to the file that it no longer fits.
        names = FILES if name == "checkpoint.json" else [name]
        assert any(one in str(error) for one in names)
    finally:
        path.write_bytes(good)


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"sha256": "x"}', '{"sha256": []}'])
def test_a_manifest_of_another_shape_is_damaged(tmp_path, text):
    it = saved(tmp_path)
    (tmp_path / it.checkpoint / "checkpoint.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"checkpoint\.json is damaged"):
        checkpoint.read(tmp_path, it.checkpoint)


def test_a_digest_that_the_log_does_not_have_is_refused(tmp_path):
    it, foreign = saved(tmp_path / "a"), saved(tmp_path / "b", value=2.0)
    with pytest.raises(CheckpointError) as refused:
        checkpoint.read(tmp_path / "a", it.checkpoint, foreign.digest)
    assert it.digest[:16] in str(refused.value) and foreign.digest[:16] in str(refused.value)
    assert checkpoint.read(tmp_path / "a", it.checkpoint, it.digest).digest == it.digest


@pytest.mark.parametrize("other", ["solver/000002", "coder/000001"])
def test_a_folder_under_another_versions_or_roles_name_is_refused(tmp_path, other):
    it = saved(tmp_path, 1)
    shutil.copytree(tmp_path / it.checkpoint, tmp_path / "checkpoints" / other)
    with pytest.raises(CheckpointError, match="calls it checkpoints/solver/000001"):
        checkpoint.read(tmp_path, f"checkpoints/{other}")


# --- pruning --------------------------------------------------------------------------------------


@given(st.sets(st.integers(0, 1_000_001), max_size=6), st.integers(0, 7), st.data())
def test_pruning_keeps_the_newest_and_the_protected(tmp_path_factory, existing, keep, data):
    run = tmp_path_factory.mktemp("prune")
    for version in existing:
        (run / checkpoint.relative_folder("solver", version)).mkdir(parents=True)
    protected = data.draw(st.sets(st.sampled_from(sorted(existing)))) if existing else set()
    newest = sorted(existing)[-keep:] if keep else sorted(existing)
    removed = checkpoint.prune(run, "solver", keep, protected)
    left = existing - set(removed)
    assert left == set(newest) | protected
    assert removed == sorted(removed)
    if existing:
        assert versions(run) == sorted(f"{v:06d}" for v in left)


def test_pruning_one_role_leaves_the_others_alone(tmp_path):
    for role, version in itertools.product(("solver", "coder"), range(3)):
        saved(tmp_path, version, role=role)
    assert checkpoint.prune(tmp_path, "solver", keep=1) == [0, 1]
    assert versions(tmp_path, "solver") == ["000002"]
    assert versions(tmp_path, "coder") == ["000000", "000001", "000002"]
    assert checkpoint.prune(tmp_path, "proposer", keep=1) == []


def test_killed_while_it_prunes_no_half_version_is_seen(tmp_path, monkeypatch):
    for version in range(3):
        saved(tmp_path, version)

    def torn(path, **_):
        next(Path(path).iterdir()).unlink()
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(shutil, "rmtree", torn)
        checkpoint.prune(tmp_path, "solver", keep=1)
    for name in versions(tmp_path):
        if name.isdecimal():
            checkpoint.read(tmp_path, f"checkpoints/solver/{name}")
    checkpoint.prune(tmp_path, "solver", keep=1)
    assert versions(tmp_path) == ["000002"]
