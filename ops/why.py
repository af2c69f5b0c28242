"""`mmzero why`: what the pipeline, or one item, waits for: from the log and from its server."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from mmzero_async.config import Config, from_json
from mmzero_async.log.interface import View
from mmzero_async.log.where import Where
from mmzero_async.projections.admission import holding_back
from mmzero_async.projections.flow import SILENT, Flow, stages
from mmzero_async.projections.making import Making
from mmzero_async.projections.pipeline import Pipeline
from mmzero_async.schemas.events import GroupRejected, Role, StepCommitted, WorkAbandoned
from mmzero_async.schemas.flow import Hand, Held, Refusal, StageFlow
from mmzero_async.schemas.ids import indices, root
from mmzero_async.transport.asking import why as ask
from mmzero_async.transport.errors import TransportError
from mmzero_async.transport.keys import local_keys

GROUP_OF: tuple[Role, ...] = ("proposer", "coder", "solver")  # by the length of the id, less one


@dataclass(frozen=True, slots=True)
class Answer:
    """`server` is empty where it answered, else why not: then nobody is known to hold anything."""

    run: str
    finished: str  # the reason, or empty
    server: str
    stages: list[StageFlow]
    workers: list[Hand]
    held: Mapping[str, Held]
    refused: list[Refusal] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


def answer(run_dir: Path, reader: View) -> tuple[Answer, Pipeline]:
    """Asks the log server; where none answers, says what the log alone can say."""
    config = from_json((run_dir / "config.json").read_text())
    pipeline, flow = Pipeline(), Flow(started=0.0)
    for record in reader.scan():
        event = record.event()
        due, _ = pipeline.apply(record.offset, event)
        flow.apply(record.envelope.time_ns / 1e9, event, due, pipeline.lineage.open)
    finished = pipeline.finished.reason if pipeline.finished is not None else ""
    try:
        reply = asyncio.run(ask(_url(run_dir), keys=local_keys(config.log.keys)))
    except (TransportError, OSError) as error:
        found = _from_the_log_alone(pipeline, flow, config)
        return Answer(run_dir.name, finished, str(error), found, [], {}), pipeline
    told = Answer(reply.run, finished, "", reply.stages, reply.workers, reply.held, reply.refused)
    return told, pipeline


def _url(run_dir: Path) -> str:
    file = run_dir / "log.url"
    if not file.exists():
        raise TransportError(f"no log server has written {file}: the run is not running")
    return file.read_text().strip()


def _from_the_log_alone(pipeline: Pipeline, flow: Flow, config: Config) -> list[StageFlow]:
    back = holding_back(pipeline, config, 0, Making())
    found = stages(pipeline, flow, config, {}, [], back, time.time())
    return [msgspec.structs.replace(stage, stalled=False) for stage in found]


# --- the whole pipeline -----------------------------------------------------------------------


def lines(told: Answer) -> list[tuple[str, str]]:
    """(what to print, its colour)"""
    text = [(_verdict(told), "bold red" if any(s.stalled for s in told.stages) else "bold")]
    if told.finished:
        return text
    if told.server:
        text.append((f"  {told.server}", "red"))
    for s in told.stages:
        text.append(
            (
                f"{s.stage:15} {s.due:5} due, {s.held:4} in hand, still for {span(s.still_seconds)}"
                f"; waits for {s.waits_for}",
                "red" if s.stalled else "",
            )
        )
        if s.oldest and s.due and not s.stage.startswith("train"):
            text.append((f"{'':15} oldest: {s.oldest}, due for {span(s.oldest_seconds)}", ""))
    silent = [w for w in told.workers if w.silent_seconds > SILENT]
    text += [(f"{w.worker} has said nothing for {span(w.silent_seconds)}", "red") for w in silent]
    text += [
        (f"{r.worker} was refused {span(r.seconds)} ago: {r.reason}", "red") for r in told.refused
    ]
    return text


def _verdict(told: Answer) -> str:
    if told.finished:
        return f"{told.run} is finished ({told.finished}): nothing is due"
    stalled = [stage for stage in told.stages if stage.stalled]
    if stalled:
        first = stalled[0]
        return (
            f"{told.run} stands still at {first.stage} for {span(first.still_seconds)}: it waits "
            f"for {first.waits_for}"
        )
    if told.server:
        return f"{told.run} is not running"
    busiest = max(told.stages, key=lambda stage: stage.due)
    newest = min(stage.still_seconds for stage in told.stages)
    slow = f"; most is due at {busiest.stage} ({busiest.due})" if busiest.due else ""
    return f"{told.run} goes on: the last event {span(newest)} ago{slow}"


def span(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3.5 min`, `2.1 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


# --- one item ---------------------------------------------------------------------------------


def item_lines(told: Answer, pipeline: Pipeline, reader: View, lineage: str) -> Iterator[str]:
    """What became of one item and of the groups that it belongs to, and what they wait for.

    `lineage`: `g12`, `g12.s0`, `g12.s0.d3`, or the key of a piece of work. ValueError for anything
    else.
    """
    lineage = lineage.split("/")[1] if "/" in lineage else lineage
    numbers = indices(lineage)
    consumed = _consumed(reader, lineage)
    for depth in range(len(numbers), 0, -1):
        group = ".".join(lineage.split(".")[:depth])
        role = GROUP_OF[depth - 1]
        yield f"{role} group {group}: {_of_group(told, pipeline, role, group, consumed)}"
        if depth == len(numbers):
            yield from (f"  {line}" for line in _open_work(told, pipeline, group))
            yield from (f"  {line}" for line in _given_up(reader, group))


def _of_group(
    told: Answer,
    pipeline: Pipeline,
    role: Role,
    group: str,
    consumed: Mapping[tuple[Role, str], str],
) -> str:
    if (role, group) in consumed:
        return consumed[role, group]
    ready = pipeline.book.ready[role]
    if group in ready:
        place = list(ready).index(group) + 1
        stage = next((s for s in told.stages if s.stage == f"train/{role}"), None)
        return f"complete, number {place} of {len(ready)} that wait for " + (
            stage.waits_for if stage else "the learner"
        )
    tree = pipeline.lineage.trees.get(root(group))
    if tree is not None:
        open_keys = [key for key in pipeline.lineage.open if _below(key, group)]
        above = [key for key in pipeline.lineage.open if _below(f"/{group}", key.split("/")[1])]
        if not open_keys and above:
            return f"not begun: {above[0]} comes before it"
        if not open_keys:
            return "it came to nothing, or its last answers are being written"
        return f"not complete: {len(open_keys)} pieces of work below it are open"
    prompt = indices(group)[0]
    key = f"propose/{root(group)}"
    if key in told.held:
        by = told.held[key]
        return f"its prompt is in the hands of {by.worker} for {span(by.seconds)}"
    if prompt in pipeline.lineage.settled_prompts:
        return "there is no such group: its proposal or drawing came to nothing, or never was"
    if pipeline.finished is not None:
        return "never begun: the run is finished"
    stage = next((s for s in told.stages if s.stage == "propose"), None)
    return "not begun: the next prompt waits for " + (stage.waits_for if stage else "admission")


def _below(key: str, group: str) -> bool:
    target = key.split("/")[1]
    return target == group or target.startswith(f"{group}.")


def _open_work(told: Answer, pipeline: Pipeline, group: str) -> Iterator[str]:
    waits = {stage.stage: stage.waits_for for stage in told.stages}
    for key, work in pipeline.lineage.open.items():
        if not _below(key, group):
            continue
        by = told.held.get(key)
        if by is None:
            yield f"{key}: due; its stage waits for {waits.get(work.stage, 'the log server')}"
        else:
            attempt = f", attempt {by.attempt}" if by.attempt > 1 else ""
            yield f"{key}: in the hands of {by.worker} for {span(by.seconds)}{attempt}"


def _given_up(reader: View, group: str) -> Iterator[str]:
    for record in reader.scan(where=Where(kinds=("work_abandoned",), lineages=(root(group),))):
        event = record.event()
        if isinstance(event, WorkAbandoned) and _below(event.work, group):
            yield f"{event.work}: given up after {event.attempts} attempts: {event.reason}"


def _consumed(reader: View, lineage: str) -> dict[tuple[Role, str], str]:
    """What became of the groups of one root."""
    found: dict[tuple[Role, str], str] = {}
    kinds = ("step_committed", "group_rejected")
    for record in reader.scan(where=Where(kinds=kinds, lineages=(root(lineage),))):
        match record.event():
            case StepCommitted() as step:
                told = f"trained in step {step.step}, which made version {step.version}"
                found |= {(step.role, group): told for group in step.groups}
            case GroupRejected() as rejected:
                found[rejected.role, rejected.group] = (
                    f"rejected: {rejected.reason}, {rejected.detail}"
                )
            case _:
                pass
    return found
