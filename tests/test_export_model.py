"""An exported model says what its adapter said, is the base in all else, and tells its lineage."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import small_families
import test_families
import tiny_model
import torch
from hypothesis import given
from hypothesis import strategies as st
from learned_run import learned
from safetensors.torch import load_file, save_file
from test_cli import mmzero
from tiny_model import Album
from transformers import AutoModelForImageTextToText, AutoProcessor

from mmzero_async.learner import merged
from mmzero_async.learner.batch import Window
from mmzero_async.learner.errors import CheckpointError
from mmzero_async.learner.model import PolicyModel, load
from mmzero_async.learner.step import Trainer

NEAR = 1e-4  # nats, float32: the sum that is rounded once against two products that are added


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    return learned(tmp_path_factory.mktemp("export") / "demo", tiny_folder)


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    out = run.parent / "solver"
    done = mmzero("export-model", run, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


def trained(policy: PolicyModel, run: Path) -> Path:
    """The folder of a version whose adapter has opinions."""
    tiny_model.stir(policy, "solver")
    return run / Trainer(policy, "solver", tiny_model.config()).save(run, 1).checkpoint


def spoken(policy: PolicyModel, window: Window, album: Album) -> torch.Tensor:
    policy.activate("solver")
    batch = test_families.tensors(policy, window, album)
    return torch.cat([part.flatten() for part in test_families.logprobs(policy, batch)])


def fresh(folder: Path) -> PolicyModel:
    return load(folder, rank=tiny_model.RANK, alpha=tiny_model.ALPHA, seed=0)


@pytest.mark.parametrize("name", ["qwen3-vl", *small_families.BUILDERS])
def test_a_merged_model_of_any_family_says_what_its_adapter_said(
    name: str, tiny_folder: Path, tmp_path: Path
) -> None:
    album = Album()
    if name == "qwen3-vl":
        base, policy = tiny_folder, tiny_model.policy(tiny_folder)
        window = tiny_model.window(album, 0)
    else:
        from transformers import AutoTokenizer

        small = small_families.BUILDERS[name](tmp_path / "base")
        base, policy = small.folder, fresh(small.folder)
        words = AutoTokenizer.from_pretrained(base)
        window, album = test_families.shown(small, words, policy)
    before = spoken(policy, window, album)
    version = trained(policy, tmp_path / "run")
    with_adapter = spoken(policy, window, album)
    (tmp_path / "out").mkdir()
    merged.merge(base, version, tmp_path / "out")
    assert (spoken(fresh(tmp_path / "out"), window, album) - with_adapter).abs().max() < NEAR
    assert (before - with_adapter).abs().max() > 100 * NEAR


def test_files_narrower_than_the_model_computes_in_do_not_round_the_adapter(
    tmp_path: Path, tiny_folder: Path
) -> None:
    """As the seedling's are: float16 on disk, float32 in its configuration."""
    narrow, out = tmp_path / "narrow", tmp_path / "out"
    shutil.copytree(tiny_folder, narrow)
    tensors = load_file(narrow / "model.safetensors")
    halves = {name: tensor.half() for name, tensor in tensors.items()}
    save_file(halves, narrow / "model.safetensors", metadata={"format": "pt"})
    album = Album()
    policy, window = fresh(narrow), tiny_model.window(album, 0)
    version = trained(policy, tmp_path / "run")
    with_adapter = spoken(policy, window, album)
    out.mkdir()
    changed = merged.merge(narrow, version, out)
    found = load_file(out / "model.safetensors")
    wide = {name for name, tensor in found.items() if tensor.dtype == torch.float32}
    assert wide == set(changed)
    assert (spoken(fresh(out), window, album) - with_adapter).abs().max() < NEAR


def test_layers_that_the_files_call_otherwise_are_found(tmp_path: Path, tiny_folder: Path) -> None:
    """As in Qwen2.5-VL's own files: `model.layers.0`, `visual.blocks.0`."""
    older = tmp_path / "older"
    shutil.copytree(tiny_folder, older)
    tensors = load_file(older / "model.safetensors")
    names = {
        name: name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")
        for name in tensors
    }
    assert names != dict(zip(names, names, strict=True))
    save_file({names[name]: t for name, t in tensors.items()}, older / "model.safetensors")
    version = trained(tiny_model.policy(tiny_folder), tmp_path / "run")
    for base, out in ((tiny_folder, tmp_path / "new"), (older, tmp_path / "old")):
        out.mkdir()
        merged.merge(base, version, out)
    new, old = (load_file(tmp_path / which / "model.safetensors") for which in ("new", "old"))
    assert all(torch.equal(new[name], old[names[name]]) for name in new)


@given(st.integers(0, 2**31), st.sampled_from([torch.bfloat16, torch.float16, torch.float32]))
def test_a_sum_is_rounded_once(seed: int, dtype: torch.dtype) -> None:
    source = torch.Generator().manual_seed(seed)
    weight = torch.randn(6, 5, generator=source).to(dtype)
    a, b = torch.randn(2, 5, generator=source), torch.randn(6, 2, generator=source)
    exact = weight.double() + 0.5 * (b.double() @ a.double())
    found = merged.Product(a, b, 0.5).added_to(weight)
    assert found.dtype == dtype
    assert torch.equal(found, exact.to(dtype))


def test_only_the_adapter_s_layers_change_and_every_other_byte_is_the_base_s(
    exported: Path, tiny_folder: Path
) -> None:
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_folder, exported))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(".language_model.layers." in name and "_proj" in name for name in changed)
    for file in tiny_folder.iterdir():
        if file.is_file() and file.suffix != ".safetensors":
            assert (exported / file.name).read_bytes() == file.read_bytes()


def test_the_same_version_twice_is_the_same_bytes_and_the_card_names_no_place(
    run: Path, exported: Path, tmp_path: Path
) -> None:
    again = tmp_path / "elsewhere"
    assert mmzero("export-model", run, "--out", again).returncode == 0
    names = sorted(file.name for file in exported.iterdir())
    assert names == sorted(file.name for file in again.iterdir())
    for name in names:
        assert (again / name).read_bytes() == (exported / name).read_bytes(), name
    card = (exported / "README.md").read_text()
    assert (
        str(run.parent) not in card
        and str(run.parent) not in (exported / "mmzero.json").read_text()
    )


def test_the_lineage_names_run_version_base_and_every_file(run: Path, exported: Path) -> None:
    told = json.loads((exported / "mmzero.json").read_text())
    status = json.loads(mmzero("status", run, "--json").stdout)["roles"]["solver"]
    assert (told["run"], told["role"], told["version"]) == ("demo", "solver", status["version"])
    assert told["groups_trained_on"] == status["trained_groups"]
    manifest = run / f"checkpoints/solver/{told['version']:06d}/checkpoint.json"
    digest = json.loads(manifest.read_text())["sha256"]["adapter_model.safetensors"]
    assert told["checkpoint_sha256"] == digest
    files = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in exported.iterdir()
        if file.name not in ("README.md", "mmzero.json")
    }
    assert told["files"] == files
    card = (exported / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert f"solver@{told['version']}" in card and told["base_digest"] in card


def test_transformers_loads_it_with_its_processor(exported: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(exported, local_files_only=True)
    assert model.config.model_type == "qwen3_vl"
    assert AutoProcessor.from_pretrained(exported).chat_template


def test_all_weights_are_exported_as_they_are(tmp_path: Path, tiny_folder: Path) -> None:
    run = learned(tmp_path / "full", tiny_folder, ["learner.weights=full"], trees=4)
    done = mmzero("export-model", run, "--role", "solver", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    version = json.loads((tmp_path / "out" / "mmzero.json").read_text())["version"]
    saved = run / f"checkpoints/solver/{version:06d}"
    name = "model.safetensors"
    assert (tmp_path / "out" / name).read_bytes() == (saved / name).read_bytes()
    assert not (tmp_path / "out" / "optimizer.state").exists()
    AutoModelForImageTextToText.from_pretrained(tmp_path / "out", local_files_only=True)


def refused(*arguments: str | Path) -> str:
    done = mmzero("export-model", *arguments)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    return done.stderr


def test_what_cannot_be_exported_is_refused_in_words_and_leaves_nothing(
    run: Path, exported: Path, tmp_path: Path, tiny_folder: Path
) -> None:
    out = tmp_path / "out"
    assert "there is 0-" in refused(run, "--version", "999", "--out", out)
    assert "choose one of proposer" in refused(run, "--role", "painter", "--out", out)
    assert "exists already" in refused(run, "--out", exported)
    other = tmp_path / "other"
    shutil.copytree(tiny_folder, other)
    (other / "generation_config.json").write_text("{}")
    assert "was trained from" in refused(run, "--base", other, "--out", out)
    copy = tmp_path / "demo"
    shutil.copytree(run, copy)
    weights = copy / "checkpoints/solver/000001/adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00\x01"[-1:])
    assert "is damaged" in refused(copy, "--version", "1", "--out", out)
    shutil.rmtree(weights.parent)
    assert "its folder is gone" in refused(copy, "--version", "1", "--out", out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo", "other"]


def test_an_adapter_of_another_base_is_refused(tmp_path: Path, tiny_folder: Path) -> None:
    version = trained(tiny_model.policy(tiny_folder), tmp_path / "run")
    other = small_families.mimo(tmp_path / "base").folder
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError, match="another base"):
        merged.merge(other, version, tmp_path / "out")
