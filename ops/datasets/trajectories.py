"""Every request to a policy as the log has it: tokens, log-probabilities, versions, rewards.

One row a request, all of a lineage together once it is complete, in the log's order; probes, which
may come long after, stand where they came. Pure but for the events that it asks for.
"""

from collections.abc import Iterator
from typing import Any

from mmzero_async.ops.datasets.fates import Found
from mmzero_async.ops.datasets.groups import Generated, Walk
from mmzero_async.ops.datasets.rows import Picture, Row, fate_values
from mmzero_async.projections.lineage import CompleteGroup
from mmzero_async.schemas.about import OK, outcomes_of, sampled_versions
from mmzero_async.schemas.events import (
    Answered,
    Coded,
    GroupRejected,
    Probed,
    Proposed,
    Rendered,
    Rewarded,
    Sample,
    kind_of,
)
from mmzero_async.schemas.ids import parent, root
from mmzero_async.schemas.packing import unpack_logprobs, unpack_tokens

Placed = tuple[int, Row]  # with the offset of the event that the row tells


def of_tree(walk: Walk, offsets: tuple[int, ...]) -> Iterator[Placed]:
    """The rows of one lineage from the offsets of its events."""
    renders: dict[str, list[Rendered]] = {}
    for offset in offsets:
        if walk.recent.record(offset).kind == "rendered":
            event = walk.recent.picture(offset)
            renders.setdefault(parent(event.drawing), []).append(event)
    for offset in offsets:
        told = walk.recent.of(offset)
        if isinstance(told, Proposed | Coded | Answered):
            drawn = renders.get(told.proposal, []) if isinstance(told, Coded) else []
            yield offset, row_of(told, _fate(walk, told), drawn)


def of_probe(event: Probed) -> Row:
    return row_of(event, Found(None), [])


def left_open(walk: Walk) -> list[CompleteGroup]:
    """Lineages that the end of the log cut off, as if they were complete."""
    return [
        CompleteGroup("proposer", tree.id, tree.version, tree.offsets())
        for tree in walk.lineage.trees.values()
    ]


def row_of(event: Generated, fate: Found, renders: list[Rendered]) -> Row:
    generation, name = event.generation, _name(event)
    told = fate.event
    images = [Picture(d, f"{name}.{i}.png") for i, d in enumerate(generation.images)]
    values = {
        "kind": kind_of(event),
        "role": generation.role,
        "version": generation.version,
        "question": event.question if isinstance(event, Answered | Probed) else None,
        "policy": generation.policy,
        "engine": generation.engine,
        "template": generation.template,
        "sampling": {
            "temperature": generation.sampling.temperature,
            "top_p": generation.sampling.top_p,
            "top_k": generation.sampling.top_k,
            "max_tokens": generation.sampling.max_tokens,
            "seed": generation.sampling.seed,
        },
        "prompt_token_ids": unpack_tokens(generation.prompt_token_ids),
        "images": images,
        "samples": [
            _sample(event, i, sample, told if isinstance(told, Rewarded) else None)
            for i, sample in enumerate(generation.samples)
        ],
        "renders": [_render(rendered) for rendered in renders],
        "facts": _terms(told.facts) if isinstance(told, Rewarded) else None,
        **fate_values(told),
        "detail": told.detail if isinstance(told, GroupRejected) else "",
    }
    if not _has_group(event):
        values |= {"fate": None}
    version = sampled_versions(generation)[0]
    return Row(name, root(name), generation.role, version, values, ())


def _sample(event: Generated, i: int, sample: Sample, rewarded: Rewarded | None) -> dict[str, Any]:
    outcomes = outcomes_of(event)
    answers = [o.answer for o in event.outcomes] if isinstance(event, Answered | Probed) else []
    return {
        "text": sample.text,
        "token_ids": unpack_tokens(sample.token_ids),
        "logprobs": unpack_logprobs(sample.logprobs),
        "versions": [
            {"start": span.start, "stop": span.stop, "version": span.version}
            for span in sample.versions
        ],
        "finish_reason": sample.finish_reason,
        "outcome": outcomes[i] if i < len(outcomes) else OK,
        "answer": answers[i] if i < len(answers) else None,
        "reward": rewarded.rewards[i] if rewarded else None,
        "advantage": rewarded.advantages[i] if rewarded else None,
        "terms": _terms(rewarded.terms[i]) if rewarded else None,
    }


def _terms(named: dict[str, float]) -> list[dict[str, Any]]:
    return [{"term": name, "value": value} for name, value in named.items()]


def _render(event: Rendered) -> dict[str, Any]:
    return {
        "drawing": event.drawing,
        "renderer": event.renderer,
        "failure": event.failure,
        "detail": event.detail,
        "ink": event.ink,
        "findings": [finding.detector for finding in event.findings],
    }


def _name(event: Generated) -> str:
    match event:
        case Proposed():
            return event.group
        case Coded():
            return event.proposal
        case _:
            return event.drawing


def _has_group(event: Generated) -> bool:
    """Easy answers and probes are in no group of their own."""
    return isinstance(event, Proposed | Coded) or (
        isinstance(event, Answered) and event.question == "hard"
    )


def _fate(walk: Walk, event: Proposed | Coded | Answered) -> Found:
    return walk.fates.of(event.generation.role, _name(event)) if _has_group(event) else Found(None)
