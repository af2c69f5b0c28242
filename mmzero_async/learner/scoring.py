"""From the events of one complete group to its rewards: the pure middle of the learner.

`score` says what a group is worth, or why it will not be trained on. The proposer's penalties on
its whole batch (content types, likeness) need the window: `score` takes them as a context.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from mmzero_async.config import Config, Consistency
from mmzero_async.learner.window import GroupBatch
from mmzero_async.projections import structures
from mmzero_async.projections.lineage import CompleteGroup
from mmzero_async.roles import coder, filters, proposer, solver
from mmzero_async.roles.advantages import group_advantages, rewards_of
from mmzero_async.roles.diversity import BatchContext
from mmzero_async.roles.facts import PictureFacts, picture_facts, render_rate
from mmzero_async.roles.filters import Rejection
from mmzero_async.roles.shortcuts import consequences
from mmzero_async.schemas.events import (
    Answered,
    AnyEvent,
    Coded,
    Finding,
    Generation,
    Probed,
    Proposal,
    Proposed,
    Question,
    Rendered,
)
from mmzero_async.schemas.ids import drawing_id, indices, parent, proposal_id


@dataclass(frozen=True, slots=True)
class Scored:
    """A group with rewards: terms and facts by name, one reward and advantage a sample."""

    group: CompleteGroup
    generation: Generation
    terms: list[dict[str, float]]
    rewards: list[float]
    advantages: list[float]
    facts: dict[str, float]
    proposed: Proposed

    def batch(self) -> GroupBatch:
        return GroupBatch(
            self.group.id, self.generation, self.rewards, self.advantages, self.group.offsets
        )


@dataclass(slots=True)
class Members:
    """The events of one group, by what they are about."""

    proposed: Proposed | None = None
    coded: dict[str, Coded] = field(default_factory=dict)
    rendered: dict[str, Rendered] = field(default_factory=dict)
    answered: dict[tuple[str, Question], Answered] = field(default_factory=dict)
    probed: dict[tuple[str, Question], Probed] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)  # drawing -> the one it looks like
    consistency: Consistency = "asked"  # solver.consistency

    @classmethod
    def of(
        cls,
        events: Iterable[AnyEvent],
        copies: Iterable[tuple[str, str]] = (),
        consistency: Consistency = "asked",
    ) -> "Members":
        members = cls(copies=dict(copies), consistency=consistency)
        for event in events:
            match event:
                case Proposed():
                    members.proposed = event
                case Coded():
                    members.coded[event.proposal] = event
                case Rendered():
                    members.rendered[event.drawing] = event
                case Answered():
                    members.answered[event.drawing, event.question] = event
                case Probed():
                    members.probed[event.drawing, event.question] = event
                case _:
                    pass
        return members

    def proposal(self, proposal: str) -> Proposal | None:
        if self.proposed is None:
            return None
        return self.proposed.outcomes[indices(proposal)[1]].proposal

    def facts(self, drawing: str) -> PictureFacts | None:
        """None when the drawing never became a picture with answers to both questions."""
        easy = self.answered.get((drawing, "easy"))
        hard = self.answered.get((drawing, "hard"))
        proposal = self.proposal(parent(drawing))
        if easy is None or hard is None or proposal is None:
            return None
        return picture_facts(easy, hard, proposal, self.consistency)

    def findings(self, drawing: str) -> list[Finding]:
        return consequences.findings(self.rendered.get(drawing), self.copies.get(drawing, ""))

    def blind_agreement(self, drawings: list[str]) -> float:
        """Mean share of blind answers that agree with the silver one, over the hard questions of
        these drawings that were probed; 0 if none was."""
        shares = []
        for drawing in drawings:
            probe, hard = self.probed.get((drawing, "hard")), self.answered.get((drawing, "hard"))
            if probe is not None and hard is not None:
                shares.append(solver.blind_share(probe, hard, self.consistency))
        return sum(shares) / len(shares) if shares else 0.0

    def structures(self, proposal: str) -> list[bytes]:
        """Of the pictures of a proposal."""
        renders = [self.rendered.get(drawing) for drawing in self.drawings(proposal)]
        return [r.structure for r in renders if r is not None and r.picture is not None]

    def drawings(self, proposal: str) -> list[str]:
        coded = self.coded.get(proposal)
        count = len(coded.outcomes) if coded else 0
        return [drawing_id(proposal, i) for i in range(count)]


def score(
    group: CompleteGroup,
    events: Iterable[AnyEvent],
    config: Config,
    batch: BatchContext | None = None,
) -> Scored | Rejection:
    """The group's rewards and advantages, or the reason to reject it (filters, no variance).

    With a batch context a proposer group is scored in its final form and never rejected.
    """
    members = Members.of(events, group.copies, config.solver.consistency)
    if members.proposed is None:
        return Rejection("incomplete", "its Proposed event is missing")
    match group.role:
        case "proposer":
            return _proposer(group, members, members.proposed, config, batch)
        case "coder":
            return _coder(group, members, members.proposed, config)
        case "solver":
            return _solver(group, members, members.proposed, config)


def _proposer(
    group: CompleteGroup,
    members: Members,
    proposed: Proposed,
    config: Config,
    batch: BatchContext | None,
) -> Scored | Rejection:
    per_sample: list[list[PictureFacts | None] | None] = []
    for i, outcome in enumerate(proposed.outcomes):
        if outcome.proposal is None:
            per_sample.append(None)
        else:
            drawings = members.drawings(proposal_id(group.id, i))
            per_sample.append([members.facts(drawing) for drawing in drawings])
    terms = proposer.proposer_terms(proposed, per_sample, config.proposer, batch or BatchContext())
    terms = consequences.with_terms(terms, _proposer_penalties(group, members, proposed, config))
    parsed = sum(outcome.proposal is not None for outcome in proposed.outcomes)
    facts = {"parsed": parsed / max(1, len(proposed.outcomes))}
    names = [proposal_id(group.id, i) for i in range(len(proposed.outcomes))]
    facts |= _spread([drawn for name in names for drawn in members.structures(name)])
    # With the window's penalties it is chosen already: alike rewards then have no advantage.
    final = batch is not None
    bounds = filters.proposer_bounds(config.filters) + _curriculum(group, config)
    rejection = filters.check(bounds, facts | _version(group))
    if rejection is not None and not final:
        return rejection
    return _finish(group, proposed.generation, terms, facts, proposed, config, final=final)


def _proposer_penalties(
    group: CompleteGroup, members: Members, proposed: Proposed, config: Config
) -> list[dict[str, float]]:
    """For shortcuts in its pictures, and for questions answered without them."""
    below = [members.drawings(proposal_id(group.id, i)) for i in range(len(proposed.outcomes))]
    found = [[members.findings(drawing) for drawing in drawings] for drawings in below]
    weight = config.shortcuts.proposer_penalty
    terms = consequences.penalties(found, weight, config.shortcuts)
    if config.probe.penalty:
        for term, drawings in zip(terms, below, strict=True):
            term["blind"] = -config.probe.penalty * members.blind_agreement(drawings)
    return terms


def _coder(
    group: CompleteGroup, members: Members, proposed: Proposed, config: Config
) -> Scored | Rejection:
    coded = members.coded.get(group.id)
    if coded is None:
        return Rejection("incomplete", "its Coded event is missing")
    drawings = members.drawings(group.id)
    renders = [members.rendered.get(drawing) for drawing in drawings]
    facts = [members.facts(drawing) for drawing in drawings]
    rate = render_rate(renders)
    group_facts = {"render_rate": rate} | _spread(members.structures(group.id))
    bounds = filters.coder_bounds(config.filters) + _curriculum(group, config)
    rejection = filters.check(bounds, group_facts | _version(group))
    if rejection is not None:
        return rejection
    terms = coder.coder_terms(coded.outcomes, renders, facts, config.coder)
    found = [[members.findings(drawing)] for drawing in drawings]
    shortcuts = config.shortcuts
    more = consequences.penalties(found, shortcuts.coder_penalty, shortcuts)
    terms = consequences.with_terms(terms, more)
    return _finish(group, coded.generation, terms, group_facts, proposed, config)


def _spread(drawings: list[bytes]) -> dict[str, float]:
    """The fact where it is known: not of a lone picture, nor of a log before it was recorded."""
    found = structures.spread(drawings)
    return {} if found is None else {"structure_spread": found}


def _solver(
    group: CompleteGroup, members: Members, proposed: Proposed, config: Config
) -> Scored | Rejection:
    facts = members.facts(group.id)
    if facts is None:
        return Rejection("incomplete", "its answers are missing")
    told = facts.as_dict()
    if group.novelty is not None:
        told["structure_novelty"] = group.novelty
    bounds = filters.solver_bounds(config.filters) + _curriculum(group, config)
    rejection = filters.check(bounds, told | _version(group))
    rejection = rejection or consequences.rejection(members.findings(group.id), config.shortcuts)
    if rejection is not None:
        return rejection
    hard = members.answered[group.id, "hard"]
    terms = solver.solver_terms(hard, config.solver)
    return _finish(group, hard.generation, terms, told, proposed, config)


def _version(group: CompleteGroup) -> dict[str, float]:
    """A fact for filters alone: the samples say it, so `Rewarded` need not."""
    return {"version": float(group.version)}


def _curriculum(group: CompleteGroup, config: Config) -> tuple[filters.Bound, ...]:
    return filters.curriculum_bounds(config.schedule.curriculum, group.role, group.version)


def _finish(
    group: CompleteGroup,
    generation: Generation,
    terms: list[dict[str, float]],
    facts: dict[str, float],
    proposed: Proposed,
    config: Config,
    *,
    final: bool = False,
) -> Scored | Rejection:
    rewards = rewards_of(terms)
    learner = config.learner
    rejection = None if final else filters.zero_variance(rewards)
    if rejection is None and learner.mask_truncated_completions and not final:
        rejection = filters.all_truncated(generation.samples)
    if rejection is not None:
        return rejection
    advantages = group_advantages(rewards, learner.scale_rewards, learner.baseline)
    return Scored(
        group, generation, terms, rewards, np.asarray(advantages).tolist(), facts, proposed
    )
