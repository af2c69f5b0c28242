"""The seedling: its scenes know their answers, its lessons look like the loop's own prompts."""

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmzero_async.roles import coder, prompts, proposer, solver, topics
from mmzero_async.schemas.events import Proposal
from mmzero_async.seedling import heldout, lessons, scenes, tokenizer
from mmzero_async.seedling.batches import Encoder, patches, render
from mmzero_async.seedling.scenes import Asked, Bars, Grid, Line, Rectangle, Scene

WEIGHTS = Path(scenes.__file__).parent / "weights"


def numbers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]


def answered_from_words(caption: str, kind: str, question: str) -> str:
    """The answer worked out from the caption and the question as text alone."""
    if caption.startswith("Bar"):
        values = {c: int(v) for c, v in re.findall(r"(\w+) (\d+)[,.]", caption)}
        named = [values[word] for word in re.findall(r"\w+", question) if word in values]
        if kind == "bar_tallest":
            return max(values, key=lambda colour: values[colour])
        if kind == "bar_second":
            return str(sorted(values.values())[-2])
        if kind == "bar_value":
            return str(named[0])
        return str(abs(named[0] - named[1]) if kind == "bar_difference" else sum(named))
    if caption.startswith("Line"):
        values = dict(enumerate(numbers(caption)[1:], start=1))
        if kind == "line_range":
            return str(max(values.values()) - min(values.values()))
        return str(sum(values[i] for i in numbers(question)))
    if caption.startswith("Rectangle"):
        width, height = numbers(caption)
        return str(
            {
                "rectangle_wide": width,
                "rectangle_high": height,
                "rectangle_sum": width + height,
                "rectangle_difference": abs(width - height),
            }[kind]
        )
    cells = [tuple(cell.split()) for cell in caption.split(": ")[1].rstrip(".").split(", ")]
    words = re.findall(r"\w+", question)
    shapes = [w[:-1] for w in words if w[:-1] in scenes.SHAPES]
    colours = [w for w in words if w in scenes.COLOURS]
    counts = [sum(s == shape for _, s in cells) for shape in shapes]
    if kind == "count_more":
        return str(counts[0] - counts[1])
    if kind == "count_together":
        return str(sum(counts))
    return str(sum((not colours or c in colours) and (not shapes or s in shapes) for c, s in cells))


@given(st.integers(0, 10**9), st.sampled_from(scenes.FAMILIES))
def test_the_answers_are_right_for_the_picture_as_it_is_described(seed: int, family: str) -> None:
    rng = random.Random(seed)
    scene = scenes.draw(rng, family)
    asked: list[Asked] = [scene.easy(rng), *(scene.hard(rng, kind) for kind in scene.hard_kinds)]
    for question in asked:
        right = answered_from_words(scene.caption(), question.kind, question.question)
        assert question.answer == right, (scene, question)
        assert int(question.answer) >= 0 if question.kind != "bar_tallest" else question.answer


def colour_at(pixels: np.ndarray, x: int, y: int) -> tuple[int, ...]:
    return tuple(int(v) for v in pixels[y, x])


RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


@pytest.mark.parametrize(
    ("scene", "seen"),
    [
        (Bars((("red", 2), ("blue", 9))), {(10, 75): RED, (10, 60): WHITE, (30, 12): BLUE}),
        (Line("red", (1, 9, 1, 5)), {(13, 81): RED, (31, 9): RED, (67, 45): RED}),
        (Grid((("red", "circle"), ("blue", "square"))), {(16, 16): RED, (48, 16): BLUE}),
        (Rectangle("blue", 3, 5), {(10, 85): BLUE, (31, 47): BLUE, (40, 85): WHITE}),
    ],
)
def test_a_drawing_shows_what_its_caption_says(
    scene: Scene, seen: dict[tuple[int, int], tuple[int, ...]]
) -> None:
    pixels = render(scene.svg(), 96)
    for (x, y), colour in seen.items():
        assert colour_at(pixels, x, y) == colour


def test_replies_of_the_lessons_are_what_the_roles_parse() -> None:
    rng = random.Random(1)
    for _ in range(50):
        written = proposer.parse(lessons.proposer_lesson(rng).reply)
        assert written.proposal is not None, written.failure
        assert coder.parse(lessons.coder_lesson(rng).reply).svg is not None
        answer = solver.parse(lessons.solver_lesson(rng, 0.5).reply)
        assert answer.format_ok and answer.answer


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The seedling's tokenizer and processor, built anew."""
    folder = tmp_path_factory.mktemp("words")
    tokenizer.build(folder, image_size=96)
    return folder


@pytest.fixture(scope="module")
def encoder(words: Path) -> Encoder:
    from transformers import AutoTokenizer

    return Encoder(AutoTokenizer.from_pretrained(words), 96)


def test_lessons_have_the_very_tokens_of_the_loops_prompts(encoder: Encoder, words: Path) -> None:
    """What the seedling learned to answer is what the engine will show it."""
    templates = prompts.load_templates("seedling")
    rng = random.Random(2)
    scene = scenes.random_scene(rng)
    easy, hard = scene.easy(rng), scene.hard(rng)
    proposal = Proposal(
        content_type="other",
        caption=scene.caption(),
        easy_question=easy.question,
        easy_answer=easy.answer,
        hard_question=hard.question,
        hard_answer=hard.answer,
    )
    coding = lessons.Lesson(
        "coder",
        lessons.TEMPLATES["coder"].format(
            **{name: getattr(proposal, name) for name in prompts.PLACEHOLDERS["coder"]}
        ),
        "",
    )
    asking = lessons.Lesson("solver", easy.question, "", svg=scene.svg())
    proposing = lessons.Lesson("proposer", "Invent a picture about a rectangle, sum.", "")
    said = {
        encoder.prompt_text(coding): prompts.coder_messages(templates, proposal),
        encoder.prompt_text(asking): prompts.solver_messages(templates, easy.question, "data:x"),
        encoder.prompt_text(proposing): prompts.proposer_messages(templates, "a rectangle, sum"),
    }
    for lesson, messages in said.items():
        loops = encoder.tokenizer.apply_chat_template(
            messages,
            chat_template=(words / "chat_template.jinja").read_text(),
            tokenize=False,
            add_generation_prompt=True,
        )
        placeholder = "<|image_pad|>"
        assert lesson.replace(placeholder * encoder.image_tokens, placeholder) == loops


def test_lessons_show_the_very_pixels_of_the_image_processor(words: Path) -> None:
    from transformers import AutoImageProcessor

    pixels = render(scenes.random_scene(random.Random(3)).svg(), 96)
    processor = AutoImageProcessor.from_pretrained(words)
    made = processor(images=[Image.fromarray(pixels)], return_tensors="pt")
    assert made["image_grid_thw"].tolist() == [[1, 6, 6]]
    np.testing.assert_allclose(made["pixel_values"].numpy(), patches(pixels), atol=1e-6)


def test_topics_are_a_function_of_the_seed_and_spread_over_families_and_demands() -> None:
    drawn = [topics.topic("seedling", seed) for seed in range(300)]
    assert drawn == [topics.topic("seedling", seed) for seed in range(300)]
    assert len(set(drawn)) > 20
    for word in ("bar chart", "line chart", "shapes", "rectangle", "difference", "second"):
        assert any(word in topic for topic in drawn)


def test_held_out_scenes_are_reproducible_and_hidden_from_the_loop() -> None:
    assert heldout.heldout(5, 777) == heldout.heldout(5, 777) != heldout.heldout(5, 778)
    loop = "workers.proposer workers.coder workers.renderer workers.solver workers.learner"
    imports = "; ".join(f"import mmzero_async.{name}" for name in loop.split())
    told = "import sys; print('mmzero_async.seedling.heldout' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", f"{imports}; {told}"], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "False"


def test_a_hasty_lesson_reads_nothing_and_only_hard_questions_have_them() -> None:
    rng = random.Random(3)
    hasty = [lessons.solver_lesson(rng, 0.5, hasty_share=1.0) for _ in range(60)]
    careful = [lessons.solver_lesson(rng, 0.5) for _ in range(60)]
    for lesson in hasty:
        assert lesson.reply.startswith("<think></think>") == (lesson.kind in scenes.HARD_KINDS)
    assert not any(lesson.reply.startswith("<think></think>") for lesson in careful)
    assert {lesson.kind in scenes.HARD_KINDS for lesson in hasty} == {True, False}


def test_the_shipped_weights_are_small_and_say_how_they_were_made() -> None:
    files = [file for file in WEIGHTS.iterdir() if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 12e6
    recipe = json.loads((WEIGHTS / "recipe.json").read_text())
    assert {"seed", "threads", "stages"} <= recipe.keys()
    for stage in recipe["stages"].values():
        assert {"steps", "lr", "describe", "hard", "hasty", "loss"} <= stage.keys()
    assert 2e6 <= recipe["parameters"] <= 5e6


@pytest.mark.slow
@pytest.mark.timeout(320)
def test_a_short_schooling_is_reproducible_and_saves_a_model_that_transformers_loads(
    tmp_path: Path,
) -> None:
    from transformers import Qwen3VLForConditionalGeneration

    for name in ("a", "b"):
        subprocess.run(
            [
                *(sys.executable, "-m", "mmzero_async.seedling.train"),
                *("--out", str(tmp_path / name), "--threads", "1"),
                *("--looking-steps", "2", "--habits-steps", "1"),
            ],
            check=True,
            capture_output=True,
            timeout=150,
        )
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b")]
    assert weights[0] == weights[1]
    stages = json.loads((tmp_path / "a/recipe.json").read_text())["stages"]
    assert {name: stage["steps"] for name, stage in stages.items()} == {"looking": 2, "habits": 1}
    model = Qwen3VLForConditionalGeneration.from_pretrained(tmp_path / "a")
    assert model.config.model_type == "qwen3_vl"
