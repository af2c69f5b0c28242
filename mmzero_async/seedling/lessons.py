"""Lessons: (prompt, reply) pairs for the three roles, from scenes and the loop's templates."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

from mmzero_async.seedling.scenes import Scene, draw, random_scene
from mmzero_async.seedling.topics import choose, describe

_FOLDER = resources.files("mmzero_async.roles").joinpath("templates/seedling")
TEMPLATES = {
    role: _FOLDER.joinpath(f"{role}.txt").read_text() for role in ("proposer", "coder", "solver")
}


@dataclass(frozen=True)
class Lesson:
    """What the user says (the picture first, if any) and what the policy should reply."""

    role: str
    prompt: str
    reply: str
    svg: str | None = None  # the picture that comes with the prompt
    kind: str = ""


def answer_reply(reading: str, answer: str) -> str:
    """What was read off the picture, then the answer; a hasty reply reads nothing."""
    return f"<think>{reading}</think>\\boxed{{{answer}}}"


def proposer_lesson(rng: random.Random) -> Lesson:
    family, size, hard_kind = choose(rng)
    scene = draw(rng, family, size)
    easy, hard = scene.easy(rng), scene.hard(rng, hard_kind)
    reply = (
        f"<content_type>{scene.content_type}</content_type>"
        f"<caption>{scene.caption()}</caption>"
        f"<easy_question>{easy.question}</easy_question>"
        f"<easy_answer>{easy.answer}</easy_answer>"
        f"<hard_question>{hard.question}</hard_question>"
        f"<hard_answer>{hard.answer}</hard_answer>"
    )
    topic = describe(family, size, hard_kind)
    return Lesson("proposer", TEMPLATES["proposer"].format(topic=topic), reply)


def coder_lesson(rng: random.Random) -> Lesson:
    scene = random_scene(rng)
    easy, hard = scene.easy(rng), scene.hard(rng)
    prompt = TEMPLATES["coder"].format(
        caption=scene.caption(),
        easy_question=easy.question,
        easy_answer=easy.answer,
        hard_question=hard.question,
        hard_answer=hard.answer,
    )
    return Lesson("coder", prompt, f"```svg\n{scene.svg()}\n```")


def solver_lesson(
    rng: random.Random, hard_share: float, scene: Scene | None = None, hasty_share: float = 0.0
) -> Lesson:
    """An easy or a hard question; of the hard ones a share is answered at once, without reading."""
    scene = scene or random_scene(rng)
    asked = scene.hard(rng) if rng.random() < hard_share else scene.easy(rng)
    hasty = asked.hard and hasty_share > 0.0 and rng.random() < hasty_share
    return Lesson(
        "solver",
        TEMPLATES["solver"].format(question=asked.question),
        answer_reply("" if hasty else asked.reading, asked.answer),
        svg=scene.svg(),
        kind=asked.kind,
    )


def describing_lesson(rng: random.Random) -> Lesson:
    """Everything in the picture at once: many readings for one look. Only schooling asks this."""
    scene = random_scene(rng)
    prompt = TEMPLATES["solver"].format(question="Describe the picture.")
    return Lesson("solver", prompt, scene.caption(), svg=scene.svg(), kind="describe")


def lesson_texts(rng: random.Random, count: int) -> Iterator[str]:
    """Prompts and replies as plain text, for the tokenizer's training."""
    for _ in range(count // 3):
        for lesson in (proposer_lesson(rng), coder_lesson(rng), solver_lesson(rng, 0.5)):
            yield lesson.prompt
            yield lesson.reply
