"""One complete group becomes one row, or a reason why it does not. Pure: pictures are named, not
read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mmzero_async.ops.datasets.groups import Group
from mmzero_async.ops.datasets.options import Kind
from mmzero_async.ops.datasets.prompts import Messages, Prompts, assistant
from mmzero_async.projections.lineage import oldest_version
from mmzero_async.roles.facts import PictureFacts, picture_facts, render_rate
from mmzero_async.schemas.events import (
    Coded,
    GroupRejected,
    Proposal,
    Proposed,
    Rewarded,
    Role,
)
from mmzero_async.schemas.ids import drawing_id, parent, proposal_id, root

NO_REWARDS, NO_CONTRAST = "no_rewards", "no_contrast"


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture by its digest, as it is called in the dataset."""

    digest: str
    name: str


@dataclass(frozen=True, slots=True)
class Row:
    id: str
    lineage: str  # `g12`
    role: Role
    version: int
    values: dict[str, Any]  # by column, but for those that every row has
    words: tuple[str, ...]  # what makes it a duplicate of another, with
    picture: int | None = None  # offset of the picture that it shows


@dataclass(frozen=True, slots=True)
class Told:
    """What a row is made from."""

    group: Group
    prompts: Prompts


def row_of(kind: Kind, group: Group, prompts: Prompts) -> Row | str:
    """The row, or why there is none: NO_REWARDS (nobody was trained on the group), NO_CONTRAST (all
    its rewards, or the two texts, are alike)."""
    return _ROWS[kind](Told(group, prompts))


def _solver(told: Told) -> Row:
    group = told.group
    easy, hard = group.answered[group.id, "easy"], group.answered[group.id, "hard"]
    proposal, rendered = proposal_of(group), group.rendered[group.id]
    facts = picture_facts(easy, hard, proposal)
    assert rendered.picture is not None, "only pictures are asked about"
    values = {
        "image": Picture(rendered.picture, f"{group.id}.png"),
        "prompt": told.prompts.solver(hard.generation.template, proposal.hard_question),
        "solution": facts.silver,
        **_proposal_values(proposal),
        "silver_answer": facts.silver,
        "easy_answers": [outcome.answer for outcome in easy.outcomes],
        "hard_answers": [outcome.answer for outcome in hard.outcomes],
        "solvability": facts.solvability,
        "hard_consistency": facts.hard_consistency,
        "difficulty": facts.difficulty,
        "proposer_version": oldest_version(group.proposed),
        "solver_version": group.complete.version,
        "rewards": group.rewards,
        **fate_values(group.fate.event),
    }
    return _row(group, values, (proposal.easy_question, proposal.hard_question), group.id)


def _coder(told: Told) -> Row:
    group = told.group
    proposal, coded = proposal_of(group), group.main
    assert isinstance(coded, Coded), "a coder group is what was drawn of a proposal"
    names = [drawing_id(group.id, i) for i in range(len(coded.outcomes))]
    pictures: list[Picture] = []
    drawings = []
    for i, (name, outcome) in enumerate(zip(names, coded.outcomes, strict=True)):
        rendered, facts = group.rendered.get(name), facts_of(group, name)
        drawn = rendered is not None and rendered.picture is not None
        if rendered is not None and rendered.picture is not None:
            pictures.append(Picture(rendered.picture, f"{name}.png"))
        drawings.append(
            {
                "id": name,
                "code": outcome.svg if outcome.svg is not None else outcome.program,
                "failure": outcome.failure or (rendered.failure if rendered else "abandoned"),
                "picture": len(pictures) - 1 if drawn else None,
                "solvability": facts.solvability if facts else None,
                "difficulty": facts.difficulty if facts else None,
                "reward": group.rewards[i] if group.rewards else None,
            }
        )
    values = {
        "prompt": told.prompts.coder(coded.generation.template, proposal),
        **_proposal_values(proposal),
        "drawings": drawings,
        "pictures": pictures,
        "render_rate": render_rate([group.rendered.get(name) for name in names]),
        "proposer_version": oldest_version(group.proposed),
        "coder_version": group.complete.version,
        **fate_values(group.fate.event),
    }
    words = (proposal.caption, proposal.easy_question, proposal.hard_question)
    return _row(group, values, words)


def _proposer(told: Told) -> Row:
    group, event = told.group, told.group.proposed
    texts = [sample.text for sample in event.generation.samples]
    values = {
        "prompt": told.prompts.proposer(event),
        "topic": event.topic,
        "proposals": [_proposed(group, i, text) for i, text in enumerate(texts)],
        "proposer_version": group.complete.version,
        **fate_values(group.fate.event),
    }
    return _row(group, values, (event.topic, *texts))


def _proposed(group: Group, i: int, text: str) -> dict[str, Any]:
    name, outcome = proposal_id(group.id, i), group.proposed.outcomes[i]
    coded = group.coded.get(name)
    drawings = [drawing_id(name, j) for j in range(len(coded.outcomes))] if coded else []
    facts = [found for drawing in drawings if (found := facts_of(group, drawing)) is not None]
    return {
        "id": name,
        "text": text,
        "failure": outcome.failure,
        **(_proposal_values(outcome.proposal) if outcome.proposal else {}),
        "drawings": len(drawings),
        "pictures": len(facts),
        "solvability": sum(f.solvability for f in facts) / len(facts) if facts else None,
        "difficulty": sum(f.difficulty for f in facts) / len(facts) if facts else None,
        "reward": group.rewards[i] if group.rewards else None,
    }


def _preference(told: Told) -> Row | str:
    """The best sample of a group and its worst; of equals the first."""
    group, rewards = told.group, told.group.rewards
    if not rewards:
        return NO_REWARDS
    texts = [sample.text for sample in group.main.generation.samples]
    best, worst = rewards.index(max(rewards)), rewards.index(min(rewards))
    if rewards[best] <= rewards[worst] or texts[best] == texts[worst]:
        return NO_CONTRAST
    values = {
        **_role_values(told),
        "chosen": assistant(texts[best]),
        "rejected": assistant(texts[worst]),
        "chosen_reward": rewards[best],
        "rejected_reward": rewards[worst],
    }
    asked = values["prompt"][0]["content"]
    return _row(group, values, (asked, texts[best], texts[worst]), _shown(group))


def _sft(told: Told) -> Row | str:
    """The best sample of a group; of equals the first."""
    group, rewards = told.group, told.group.rewards
    if not rewards:
        return NO_REWARDS
    best = rewards.index(max(rewards))
    text = group.main.generation.samples[best].text
    values = {**_role_values(told), "completion": assistant(text), "reward": rewards[best]}
    return _row(group, values, (values["prompt"][0]["content"], text), _shown(group))


def _role_values(told: Told) -> dict[str, Any]:
    group, shown = told.group, _shown(told.group)
    rewarded = group.fate.event
    picture = group.rendered[shown].picture if shown else None
    return {
        "role": group.complete.role,
        "version": group.complete.version,
        "images": [Picture(picture, f"{shown}.png")] if picture is not None else [],
        "prompt": _asked(told),
        "step": rewarded.step if isinstance(rewarded, Rewarded) else None,
    }


def _asked(told: Told) -> Messages:
    group, main = told.group, told.group.main
    template = main.generation.template
    match main:
        case Proposed():
            return told.prompts.proposer(main)
        case Coded():
            return told.prompts.coder(template, proposal_of(group))
        case _:
            return told.prompts.solver(template, proposal_of(group).hard_question)


def _shown(group: Group) -> str:
    return group.id if group.complete.role == "solver" else ""


def _row(group: Group, values: dict[str, Any], words: tuple[str, ...], shown: str = "") -> Row:
    complete, picture = group.complete, group.offsets.get(shown)
    return Row(group.id, root(group.id), complete.role, complete.version, values, words, picture)


def facts_of(group: Group, drawing: str) -> PictureFacts | None:
    """None where no picture was answered about."""
    easy = group.answered.get((drawing, "easy"))
    hard = group.answered.get((drawing, "hard"))
    proposal = group.proposal(parent(drawing))
    if easy is None or hard is None or proposal is None:
        return None
    return picture_facts(easy, hard, proposal)


def proposal_of(group: Group) -> Proposal:
    found = group.proposal(group.id)
    assert found is not None, "only parsed proposals are drawn"
    return found


def fate_values(event: Rewarded | GroupRejected | None) -> dict[str, Any]:
    match event:
        case Rewarded():
            return {"fate": "trained", "step": event.step}
        case GroupRejected():
            return {"fate": f"rejected: {event.reason}", "step": None}
        case _:
            return {"fate": "pending", "step": None}


def _proposal_values(proposal: Proposal) -> dict[str, str]:
    return {
        "content_type": proposal.content_type,
        "caption": proposal.caption,
        "easy_question": proposal.easy_question,
        "easy_answer": proposal.easy_answer,
        "hard_question": proposal.hard_question,
        "hard_answer": proposal.hard_answer,
    }


_ROWS: dict[Kind, Callable[[Told], Row | str]] = {
    "solver": _solver,
    "coder": _coder,
    "proposer": _proposer,
    "preference": _preference,
    "sft": _sft,
}
