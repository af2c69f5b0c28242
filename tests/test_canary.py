"""Pictures take part in the loss, or the run stops: a model whose pictures are cut off is found."""

import asyncio
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny_model
import torch
from fake_engine import FakeEngine
from grown_log import grown
from learned_run import LearnedRun, believable
from nursery import Child, Nursery
from tiny_model import Album, group, looking, picture
from transformers import Qwen3VLForConditionalGeneration

from mmzero_async.learner.errors import LearnerError, PicturesUnseen
from mmzero_async.learner.step import Trainer
from mmzero_async.learner.window import Window
from mmzero_async.log.reader import LogReader
from mmzero_async.schemas.events import Paced, StepCommitted, WorkerFailed

ALBUM = Album()


@pytest.fixture(scope="module")
def blind_folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with the vision tower's way into the language model cut."""
    folder = tmp_path_factory.mktemp("blind") / "model"
    shutil.copytree(tiny_folder, folder)
    model = Qwen3VLForConditionalGeneration.from_pretrained(tiny_folder, dtype=torch.float32)
    with torch.no_grad():
        cut = [p for name, p in model.named_parameters() if "merger" in name and "fc2" in name]
        for parameter in cut:
            parameter.zero_()
    assert cut
    model.save_pretrained(folder)
    return folder


def trainer(folder: Path) -> Trainer:
    return Trainer(tiny_model.policy(folder), "solver", tiny_model.config())


def look(it: Trainer, *groups) -> dict[str, float]:
    return it.check_pictures(Window("solver", groups), ALBUM.__getitem__)


def test_a_model_that_sees_its_pictures_passes_with_how_much_they_matter(tiny_folder) -> None:
    seen = ALBUM.add(picture(1))
    one = group("g", looking([20, 21]), [[30, 31, 32]], images=[seen])
    found = look(trainer(tiny_folder), one)
    assert 0.0 < found["picture_effect_mean"] <= found["picture_effect_max"]
    assert found["picture_effect_max"] > 1e-3
    # A row without a picture has nothing to lose, and does not dilute the figure.
    plain = group("h", [20, 21], [[30, 31, 32, 33]])
    assert look(trainer(tiny_folder), one, plain) == pytest.approx(found, rel=1e-4)


def test_a_window_without_pictures_has_nothing_to_check(blind_folder) -> None:
    assert look(trainer(blind_folder), group("g", [20, 21], [[30, 31]])) == {}


def test_looking_changes_nothing(tiny_folder, tmp_path) -> None:
    window = tiny_model.window(ALBUM)
    results = []
    for first in (False, True):
        it = trainer(tiny_folder)
        if first:
            it.check_pictures(window, ALBUM.__getitem__)
        result = it.train(window, ALBUM.__getitem__)
        results.append((result.metrics, it.save(tmp_path / str(first), 1).digest))
    assert results[0] == results[1]


def test_a_model_whose_pictures_are_cut_off_is_refused_and_says_so(blind_folder) -> None:
    with pytest.raises(PicturesUnseen, match=r"do not depend on the pictures.*vision") as refused:
        look(trainer(blind_folder), *tiny_model.window(ALBUM).groups)
    assert isinstance(refused.value, LearnerError) and "group g0" in str(refused.value)


# --- the process ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery(*(f"mmzero_async.workers.{module}" for module in ("log_server", "learner"))) as it:
        yield it


async def ended(child: Child) -> bool:
    await asyncio.sleep(0.1)
    return child.poll() is not None


async def learner_of(
    nursery: Nursery, run: Path, engine_url: str, enough: Callable[[], object]
) -> tuple[int | None, str]:
    """The learner's exit status and last words; None if it was still running when it was enough."""
    children: list[Child] = []

    def start(module: str, *options: str) -> Child:
        arguments = ["--run-dir", run, *options]
        target = f"mmzero_async.workers.{module}:main"
        children.append(nursery.start(target, arguments, run / f"{module}.out"))
        return children[-1]

    server = start("log_server", "--port", "0")
    try:
        while not (run / "log.url").exists():
            assert not await ended(server)
        learner = start("learner", "--worker", "learner-0", "--engine-url", engine_url)
        while not await ended(learner):
            if enough():
                return None, ""
        return learner.status, learner.last_words()
    finally:
        for child in reversed(children):
            child.send(signal.SIGTERM)
            while not await ended(child):
                pass


def events(run: Path, kind: type) -> list:
    reader = LogReader.open(run / "log")
    found = [e for record in reader.scan() if isinstance(e := record.event(), kind)]
    reader.close()
    return found


def waiting(folder: Path, base: Path) -> Path:
    """A run whose log has a full solver window that nobody trained on yet."""
    others = ["learner.proposer.train=false", "learner.coder.train=false"]
    run = LearnedRun(folder, base, [*others, "admission.ess_floor=1"])
    run.append(*map(believable, grown(5, 4)))
    run.writer.close()
    shutil.rmtree(folder / "checkpoints")
    (folder / "logs").mkdir()
    return folder


@pytest.mark.timeout(600)
async def test_a_run_on_a_model_without_pictures_is_stopped_before_its_first_step(
    nursery: Nursery, blind_folder: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    async with FakeEngine() as engine:
        run = waiting(tmp_path / "blind", blind_folder)
        status, words = await learner_of(
            nursery, run, engine.url, lambda: events(run, StepCommitted)
        )
        # The status at which the supervisor ends the run instead of starting it anew.
        assert status == os.EX_CONFIG
        assert "do not depend on the pictures" in words and "Traceback" not in words
        assert events(run, StepCommitted) == []
        (failed,) = events(run, WorkerFailed)
        assert failed.role == "learner" and "do not depend on the pictures" in failed.error

        run = waiting(tmp_path / "seeing", tiny_folder)
        said = run / "logs" / "learner-0.jsonl"
        status, words = await learner_of(
            nursery,
            run,
            engine.url,
            lambda: said.exists() and "staleness tightened" in said.read_text(),
        )
        assert (status, words) == (None, "")
        metrics = events(run, StepCommitted)[0].metrics
        assert metrics["picture_effect_max"] > 1e-3
        assert events(run, WorkerFailed) == []
        # Nothing is as good as ess_floor = 1 asks for.
        assert events(run, Paced)[0].reason == "ess_share"
