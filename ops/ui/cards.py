"""One drawing as the page shows it: briefly as a card of the gallery, or all that is known."""

from typing import Any

from mmzero_async.ops.ui.trees import LONGEST, Tree, figures
from mmzero_async.roles.shortcuts.consequences import findings
from mmzero_async.roles.solver import agrees, tally
from mmzero_async.schemas.about import sampled_versions
from mmzero_async.schemas.events import Answered, Generation, Probed, Question, Role
from mmzero_async.schemas.ids import indices, parent, root

QUESTIONS: tuple[Question, ...] = ("easy", "hard")


def card(tree: Tree, drawing: str) -> dict[str, Any]:
    """What a card shows. LookupError when the log knows no such drawing."""
    coded = tree.coded[parent(drawing)]
    outcome = coded.outcomes[indices(drawing)[2]]
    rendered = tree.rendered.get(drawing)
    proposal = tree.proposal(drawing)
    failure = rendered.failure if rendered else outcome.failure
    return {
        "id": drawing,
        "offset": tree.offsets.get(drawing, tree.offsets.get(parent(drawing), 0)),
        "seconds": tree.seconds.get(drawing, tree.seconds.get(parent(drawing), 0.0)),
        "picture": rendered.picture if rendered else None,
        "width": rendered.width if rendered else 0,
        "height": rendered.height if rendered else 0,
        "failure": failure,
        "detail": (rendered.detail if rendered else "")[:LONGEST],
        "topic": tree.proposed.topic if tree.proposed else "",
        "content_type": proposal.content_type if proposal else "",
        "caption": proposal.caption if proposal else "",
        "questions": {q: _question(tree, drawing, q) for q in QUESTIONS},
        "versions": _versions(tree, drawing),
        "groups": {role: _fate(tree, role, group) for role, group in tree.groups_of(drawing)},
        "reward": _reward(tree, drawing),
        "findings": figures(findings(rendered, "")),
    }


def whole(tree: Tree, drawing: str) -> dict[str, Any]:
    """The card, and every text behind it: drawing, answers with their reasoning, terms, probes."""
    sample = indices(drawing)[2]
    coded = tree.coded[parent(drawing)]
    outcome = coded.outcomes[sample]
    proposed = tree.proposed
    return card(tree, drawing) | {
        "code": (outcome.svg or outcome.program or "")[:LONGEST],
        "code_text": coded.generation.samples[sample].text,
        "proposer_text": (
            proposed.generation.samples[indices(drawing)[1]].text if proposed is not None else ""
        ),
        "generations": _generations(tree, drawing),
        "answers": {q: _answers(tree, drawing, q) for q in QUESTIONS},
        "probes": [_probe(event) for event in tree.probed.get(drawing, [])],
        "rewards": {
            role: figures(tree.rewarded[role, group])
            for role, group in tree.groups_of(drawing)
            if (role, group) in tree.rewarded
        },
        "siblings": [name for name in tree.drawings() if name != drawing],
        "offsets": {
            name: tree.offsets[name]
            for name in (root(drawing), parent(drawing), drawing)
            if name in tree.offsets
        },
        "abandoned": {
            work: reason
            for work, reason in tree.abandoned.items()
            if drawing in work.split("/") or parent(drawing) in work.split("/")
        },
        "mended": tree.rendered[drawing].mended if drawing in tree.rendered else [],
        "renderer": tree.rendered[drawing].renderer if drawing in tree.rendered else "",
    }


def _question(tree: Tree, drawing: str, question: Question) -> dict[str, Any]:
    proposal = tree.proposal(drawing)
    asked, own = "", ""
    if proposal is not None:
        easy = question == "easy"
        asked = proposal.easy_question if easy else proposal.hard_question
        own = proposal.easy_answer if easy else proposal.hard_answer
    event = tree.answered.get((drawing, question))
    votes = tally([outcome.answer for outcome in event.outcomes] if event else [])
    return {
        "question": asked,
        "proposer_answer": own,
        "silver": votes.silver,
        "agreement": votes.consistency if event else None,
        "same": agrees(votes.silver, own) if event else None,
        "votes": [list(count) for count in votes.counts],
        "asked": votes.asked,
    }


def _answers(tree: Tree, drawing: str, question: Question) -> list[dict[str, Any]]:
    event = tree.answered.get((drawing, question))
    if event is None:
        return []
    silver = tally([outcome.answer for outcome in event.outcomes]).silver
    rewarded = tree.rewarded.get(("solver", drawing)) if question == "hard" else None
    return [
        {
            "answer": outcome.answer,
            "format_ok": outcome.format_ok,
            "text": sample.text,
            "finish": sample.finish_reason,
            "agrees": agrees(outcome.answer, silver),
            "versions": sorted({span.version for span in sample.versions}),
            **(
                {"reward": rewarded.rewards[i], "advantage": rewarded.advantages[i]}
                if rewarded and i < len(rewarded.rewards) and i < len(rewarded.advantages)
                else {}
            ),
        }
        for i, (outcome, sample) in enumerate(
            zip(event.outcomes, event.generation.samples, strict=False)
        )
    ]


def _probe(event: Probed) -> dict[str, Any]:
    return {
        "question": event.question,
        "without": event.without,
        "silver": event.silver,
        "sighted": event.sighted,
        "agreed": event.agreed,
        "answers": [outcome.answer for outcome in event.outcomes],
    }


def _generations(tree: Tree, drawing: str) -> dict[str, dict[str, Any]]:
    made: dict[str, Generation] = {}
    if tree.proposed is not None:
        made["proposer"] = tree.proposed.generation
    made["coder"] = tree.coded[parent(drawing)].generation
    for question in QUESTIONS:
        if (drawing, question) in tree.answered:
            made[question] = tree.answered[drawing, question].generation
    return {name: _generation(generation) for name, generation in made.items()}


def _generation(generation: Generation) -> dict[str, Any]:
    oldest, newest = sampled_versions(generation)
    return {
        "policy": generation.policy,
        "versions": [oldest, newest],
        "temperature": generation.sampling.temperature,
        "seconds": generation.seconds,
        "engine": generation.engine,
    }


def _versions(tree: Tree, drawing: str) -> dict[str, list[int]]:
    """Oldest and newest version of each policy that had a hand in it."""
    found: dict[str, list[int]] = {}
    if tree.proposed is not None:
        found["proposer"] = list(sampled_versions(tree.proposed.generation))
    found["coder"] = list(sampled_versions(tree.coded[parent(drawing)].generation))
    answered = [tree.answered[drawing, q] for q in QUESTIONS if (drawing, q) in tree.answered]
    if answered:
        spans = [_span(event) for event in answered]
        found["solver"] = [min(low for low, _ in spans), max(high for _, high in spans)]
    return found


def _span(event: Answered) -> tuple[int, int]:
    return sampled_versions(event.generation)


def _fate(tree: Tree, role: Role, group: str) -> dict[str, Any]:
    fate = tree.fates.get((role, group))
    if fate is None:
        return {"group": group, "state": "waiting"}
    return {"group": group, **figures(fate)}


def _reward(tree: Tree, drawing: str) -> dict[str, float | None]:
    """What the drawing's own samples earned; of the solver the mean over its answers."""
    _, proposal, own = indices(drawing)
    found: dict[str, float | None] = {}
    for (role, group), place in zip(tree.groups_of(drawing), (proposal, own, None), strict=True):
        event = tree.rewarded.get((role, group))
        if event is None or not event.rewards:
            found[role] = None
        elif place is None:
            found[role] = sum(event.rewards) / len(event.rewards)
        else:
            found[role] = event.rewards[place] if place < len(event.rewards) else None
    return found
