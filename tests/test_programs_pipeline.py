"""A coder that writes plotting programs: prompt, fence, lease, sandbox, picture, answers."""

import random
from pathlib import Path

import pytest
from builders import PROPOSAL, proposed, records, run_started
from fake_engine import FakeEngine
from honest_programs import HONEST

from mmzero_async import telemetry
from mmzero_async.config import Config, ConfigError, load
from mmzero_async.learner.settings import other_settings
from mmzero_async.ops.trace import _tell
from mmzero_async.projections.dispatcher import PipelineDispatcher
from mmzero_async.projections.report import Report
from mmzero_async.roles import coder
from mmzero_async.roles.errors import TemplateError
from mmzero_async.roles.prompts import coder_messages, load_templates
from mmzero_async.schemas.blobs import blob_digest
from mmzero_async.schemas.events import (
    Coded,
    DrawingOutcome,
    Event,
    PolicyPublished,
    Rendered,
    decode_event,
    encode_event,
    kind_of,
)
from mmzero_async.transport.client import Lease
from mmzero_async.workers.coder import coding
from mmzero_async.workers.loop import Setting
from mmzero_async.workers.renderer import rendering

PROGRAM = HONEST["bars with labels"].strip()
PROGRAMS = ["coder.drawing=matplotlib", "renderer.wall_seconds=30"]
DEFAULTS = Config()


def fenced(code: str, language: str = "python") -> str:
    return f"<think>```python\nno\n```</think>Here it is:\n```{language}\n{code}\n```\n"


# From the sample to the program


@pytest.mark.parametrize(
    "text",
    [
        fenced(PROGRAM),
        fenced(PROGRAM, "Python"),
        fenced(PROGRAM, "py"),
        fenced(PROGRAM, "python3"),
        fenced(PROGRAM, ""),
        f"```svg\n<svg></svg>\n```\n{fenced(PROGRAM)}",
        fenced(PROGRAM) + "```python\nprint('later')\n```",
    ],
)
def test_the_program_is_found_wherever_models_put_it(text: str) -> None:
    assert coder.parse(text, "matplotlib") == DrawingOutcome(program=PROGRAM)


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("", "no_code"),
        ("plt.plot([1])", "no_code"),
        ("```python\n```", "no_code"),
        ("```python\nplt.plot([1])", "no_code"),  # cut off
        ("```svg\n<svg></svg>\n```", "not_program"),
        ("```\nprint('x')\n```", "not_program"),
        ("<svg></svg>", "no_code"),
    ],
)
def test_a_reply_without_a_program_says_what_was_missing(text: str, failure: str) -> None:
    assert coder.parse(text, "matplotlib") == DrawingOutcome(failure=failure)


def test_no_program_costs_the_coder_what_no_svg_costs() -> None:
    def terms(failure: str) -> dict[str, float]:
        return coder.coder_terms([DrawingOutcome(failure=failure)], [None], [None], DEFAULTS.coder)[
            0
        ]

    assert terms("not_program") == terms("not_svg") != terms("")


@pytest.mark.parametrize("name", ["mmzero", "seedling"])
def test_the_coder_has_a_template_of_its_own_and_nobody_else_has(name: str) -> None:
    usual, other = load_templates(name), load_templates(name, "matplotlib")
    assert usual.digest("coder") != other.digest("coder")
    assert "matplotlib" in other.coder and "SVG" not in other.coder and "svg" in usual.coder.lower()
    for role in ("proposer", "solver"):
        assert usual.digest(role) == other.digest(role)
    (message,) = coder_messages(other, PROPOSAL)
    assert PROPOSAL.caption in message["content"] and PROPOSAL.hard_answer in message["content"]


def test_a_set_without_such_a_template_is_refused_with_the_files_name() -> None:
    with pytest.raises(TemplateError, match=r"coder_turtle\.txt is missing"):
        load_templates("mmzero", "turtle")  # type: ignore[arg-type]


def test_programs_are_off_by_default_and_settled_with_the_events() -> None:
    assert load().coder.drawing == DEFAULTS.coder.drawing == "svg"
    with pytest.raises(ConfigError, match=r"coder\.drawing"):
        load(overrides=["coder.drawing=turtle"])
    with pytest.raises(ConfigError, match=r"coder\.drawing cannot be otherwise"):
        other_settings(load(), ["coder.drawing=matplotlib"])


# From the program to the picture, by the workers themselves


async def test_a_coder_that_writes_programs_gets_pictures_and_what_fails_says_why(
    tmp_path: Path,
) -> None:
    said = [fenced(PROGRAM), fenced("import os"), "I cannot.", fenced(HONEST["a pie"])]
    config = load(overrides=[*PROGRAMS, "coder.sampling.max_tokens=2000"])
    dispatcher, report, log = PipelineDispatcher(config), Report(), list[Event]()

    def happens(*events: Event) -> None:
        for event in events:
            log.append(decode_event(kind_of(event), encode_event(event)))  # type: ignore[arg-type]
            dispatcher.apply(records(log)[-1])
            report.apply(records(log)[-1])

    happens(run_started(config, "r"))
    for role in ("proposer", "coder", "solver"):
        happens(PolicyPublished(role=role, version=0, policy=f"{role}@0", checkpoint="", digest=""))
    happens(proposed("g0", [True]))
    logger = telemetry.configure(tmp_path, "coder-0", run="r", role="coder")
    async with FakeEngine(lambda messages, n: said[:n]) as engine:
        engine.adapters["coder@0"] = "x"
        setting = Setting(tmp_path, "coder-0", config, engine.url, logger)
        async with coding(setting) as job:
            work = dispatcher.take("code")
            assert work is not None
            happens(*(await job(Lease(work, None, 60.0))).events)
        assert "with matplotlib" in str(engine.requests[0]["messages"])
    coded = log[-1]
    assert isinstance(coded, Coded)
    assert [outcome.failure for outcome in coded.outcomes] == ["", "", "no_code", ""]
    assert [outcome.svg for outcome in coded.outcomes] == [None] * 4
    assert coded.generation.template == load_templates("seedling", "matplotlib").digest("coder")

    pictures = 0
    async with rendering(setting) as job:
        while (work := dispatcher.take("render")) is not None:
            result = await job(Lease(work, None, 60.0))
            (event,) = result.events
            assert isinstance(event, Rendered) and event.renderer.startswith("matplotlib 3.11.2 ")
            if event.picture is not None:
                pictures += 1
                assert blob_digest(result.blobs[event.picture]) == event.picture
                # What reads the text of an SVG cannot be asked; what looks at pixels was.
                assert "answer_text" in event.not_applicable and "blank" not in event.not_applicable
                assert event.findings == [] and len(event.fingerprint) == 288
            else:
                assert (event.failure, event.not_applicable) == ("program:import", [])
                assert event.detail.startswith("line 1: import of os")
            happens(event)
    assert pictures == 2
    due = [dispatcher.take("answer") for _ in range(4)]
    assert {work.target for work in due if work} == {"g0.s0.d0", "g0.s0.d3"}
    assert report.renders == {"": 2, "program:import": 1, "no_code": 1}
    (last,) = [
        event for event in log if isinstance(event, Rendered) and event.drawing.endswith("3")
    ]
    assert any("not looked for: answer_text" in line for line in _tell(last, "g0"))


async def test_two_programs_that_draw_the_same_are_copies_by_their_pixels(tmp_path: Path) -> None:
    config = load(overrides=PROGRAMS)
    dispatcher, log = PipelineDispatcher(config), list[Event]()

    def happens(event: Event) -> None:
        log.append(event)
        dispatcher.apply(records(log)[-1])

    happens(run_started(config, "r"))
    happens(proposed("g0", [True, True]))
    spaced = PROGRAM.replace("\n", "\n\n")
    generation = proposed("g0", [True]).generation
    for i, program in enumerate([PROGRAM, spaced]):
        outcomes = [DrawingOutcome(program=program)]
        happens(Coded(proposal=f"g0.s{i}", generation=generation, outcomes=outcomes))
    logger = telemetry.configure(tmp_path, "renderer-0", run="r", role="renderer")
    async with rendering(Setting(tmp_path, "renderer-0", config, "", logger)) as job:
        while (work := dispatcher.take("render")) is not None:
            happens((await job(Lease(work, None, 60.0))).events[0])
    (tree,) = dispatcher.pipeline.lineage.trees.values()
    assert [node.drawings[0].copy_of for node in tree.proposals] == ["", "g0.s0.d0"]


# A whole run


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_whole_run_whose_coder_writes_programs_trains_all_roles_on_their_pictures(
    tmp_path: Path, tiny_folder: Path
) -> None:
    from nursery import Nursery
    from torture_pipeline import Run

    run_dir = tmp_path / "run"
    run_dir.mkdir()
    rng = random.Random(3)
    with (
        Nursery("pipeline_children") as nursery,
        Run(nursery, run_dir, tiny_folder, rng, ["coder.drawing=matplotlib"]) as run,
    ):
        run.gets_on(steps=4)
        run.kill("renderer")
        run.gets_on(steps=2)
        run.finish()
        seen = [record.event() for record in run.reader.scan(0)]
    drawn = [event for event in seen if isinstance(event, Rendered) and event.picture]
    assert drawn and all(event.renderer.startswith("matplotlib") for event in drawn)
