"""Each worker says in its events which prompt template it asked with: real processes, read from the
log that they leave. Only the engine is a fake."""

from pathlib import Path
from typing import Any

import pytest
from builders import run_started
from fake_engine import FakeEngine
from rendering_rig import RECT, svg
from test_curve_processes import events_of, processes, until

from mmzero_async.config import Config, load
from mmzero_async.ports import free_port
from mmzero_async.roles.prompts import load_templates
from mmzero_async.schemas.events import ROLES, Answered, Coded, PolicyPublished, Proposed
from mmzero_async.transport.client import LogClient

CAPTION = "Seven purple bars beside a lighthouse"
PROPOSAL = {
    "content_type": "data_chart",
    "caption": CAPTION,
    "easy_question": "How many bars?",
    "easy_answer": "7",
    "hard_question": "How many more bars than lighthouses?",
    "hard_answer": "6",
}


def respond(messages: list[dict[str, Any]], n: int) -> list[str]:
    """What a prompt is for is told by what it holds, whatever the template says around it."""
    said = str(messages)
    if "image_url" in said:
        return ["<think>a</think>\\boxed{7}"] * n
    if CAPTION in said:
        return [f"```svg\n{svg(RECT)}\n```"] * n
    return ["".join(f"<{tag}>{text}</{tag}>" for tag, text in PROPOSAL.items())] * n


def settings(templates: str) -> Config:
    port = free_port("127.0.0.1", 0, key="log.port")
    small = ["proposer.samples=1", "coder.samples=1", "admission.max_running_groups=1"]
    small += ["solver.easy_samples=1", "solver.hard_samples=1", "renderer.wall_seconds=60.0"]
    small += [f"{role}.sampling.max_tokens=2000" for role in ROLES]  # bytes, to this engine
    return load(overrides=[*small, f"log.port={port}", "log.map_gib=1", f"templates={templates}"])


async def run_once(run: Path, config: Config) -> dict[str, set[str]]:
    """Role to the template digests in its events, once every role has left one."""
    url = f"tcp://127.0.0.1:{config.log.port}"

    def told() -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for event in events_of(run):
            if isinstance(event, Proposed | Coded | Answered):
                found.setdefault(event.generation.role, set()).add(event.generation.template)
        return found

    async with FakeEngine(respond) as engine:
        engine.adapters |= {f"{role}@0": "x" for role in ROLES}
        with processes(run) as children:
            children.start("server", "workers.log_server", "--run-dir", run)
            async with LogClient.connect(
                url, worker="feeder", role="test", config_digest=config.digest(), patience=120.0
            ) as client:
                await client.append([run_started(config, run.name)])
                for role in ROLES:
                    published = PolicyPublished(
                        role=role, version=0, policy=f"{role}@0", checkpoint="c", digest="d"
                    )
                    await client.append([published])
            for stage in (*ROLES, "renderer"):
                places = ("--run-dir", run, "--log-url", url, "--engine-url", engine.url)
                children.start(stage, f"workers.{stage}", *places)
            await until(lambda: len(told()) == len(ROLES))
    return told()


@pytest.mark.timeout(600)
async def test_every_worker_passes_the_digest_of_its_template_on(tmp_path: Path) -> None:
    found = {}
    for templates in ("seedling", "mmzero"):
        config, run = settings(templates), tmp_path / templates
        run.mkdir()
        (run / "config.json").write_text(config.to_json())
        found[templates] = await run_once(run, config)
        expected = load_templates(templates)
        assert found[templates] == {role: {expected.digest(role)} for role in ROLES}
    for role in ROLES:  # another text is another digest
        texts = {load_templates(templates).text(role) for templates in found}
        assert len(texts) == len({*found["seedling"][role], *found["mmzero"][role]}) == 2
