"""Which groups the next step is made of: a pure function of the log and the configuration.

Complete groups are looked at oldest first. What a filter refuses, or has grown too stale, is
rejected for good by an event; what passes waits until its role has a full window.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from mmzero_async.config import Config
from mmzero_async.learner.scoring import Scored, score
from mmzero_async.learner.window import Window
from mmzero_async.log.interface import View
from mmzero_async.projections.admission import role_learning
from mmzero_async.projections.lineage import CompleteGroup
from mmzero_async.projections.pipeline import Pipeline
from mmzero_async.projections.schedule import OUT_OF_PHASE
from mmzero_async.roles.advantages import window_advantages
from mmzero_async.roles.diversity import batch_context
from mmzero_async.roles.filters import Rejection
from mmzero_async.schemas.events import ROLES, AnyEvent, GroupRejected, Proposed, Rendered, Role
from mmzero_async.schemas.ids import parent

Events = Callable[[CompleteGroup], list[AnyEvent]]


def events_from(reader: View) -> Events:
    """The events of a group, read from the log and checked."""
    return lambda group: [reader.get(offset).event() for offset in group.offsets]


@dataclass(slots=True)
class Candidates:
    """Groups that passed their filters and wait for a window, a role, oldest first."""

    config: Config
    passed: dict[Role, dict[str, Scored]] = field(
        default_factory=lambda: {role: {} for role in ROLES}
    )
    _remembered: Sequence[list[CompleteGroup]] = ()
    _rejecting: set[tuple[Role, str]] = field(default_factory=set)
    _turn: tuple[int, Role] | None = None

    def refresh(self, pipeline: Pipeline, events: Events) -> list[GroupRejected]:
        """Takes in what has become ready; returns the rejections to be committed."""
        rejections = []
        self._remembered = pipeline.book.remembered
        self._follow(pipeline)
        for role in ROLES:
            ready = pipeline.book.ready[role]
            waiting = self.passed[role]
            for gone in [group for group in waiting if group not in ready]:
                del waiting[gone]
            self._rejecting = {(r, g) for r, g in self._rejecting if r != role or g in ready}
            for group in ready.values():
                if (role, group.id) in self._rejecting:
                    continue
                verdict = self.judge(group, pipeline, events)
                if isinstance(verdict, Rejection):
                    waiting.pop(group.id, None)
                    self._rejecting.add((role, group.id))
                    rejections.append(
                        GroupRejected(
                            role=role,
                            group=group.id,
                            reason=verdict.reason,
                            detail=verdict.detail,
                        )
                    )
                else:
                    waiting[group.id] = verdict
        return rejections

    def _follow(self, pipeline: Pipeline) -> None:
        """With another turn, what was not rejected by its end is looked at anew: a learner says all
        its rejections before the step that ends a turn, so whoever replays that knows no other."""
        phase = pipeline.schedule.phase
        turn = (phase.iteration, phase.role) if phase else None
        if turn != self._turn:
            self._rejecting.clear()
        self._turn = turn

    def judge(self, group: CompleteGroup, pipeline: Pipeline, events: Events) -> Scored | Rejection:
        """A ready group's rewards, or why it will not be trained on, as things stand now."""
        if not role_learning(self.config.learner, group.role).train:
            return Rejection("frozen", f"{group.role} is not trained in this run")
        if not pipeline.schedule.trains(group.role):
            return Rejection(OUT_OF_PHASE, pipeline.schedule.whose_turn)
        staleness = pipeline.policies.version(group.role) - group.version
        if staleness > self.config.admission.max_staleness:
            limit = self.config.admission.max_staleness
            return Rejection("stale", f"{staleness} versions behind, at most {limit} are used")
        known = self.passed[group.role].get(group.id)
        return known if known is not None else score(group, events(group), self.config)

    def fullest(self) -> Role | None:
        """The role whose window is fullest, if any has enough groups for a step."""
        fill = {
            role: len(self.passed[role]) / role_learning(self.config.learner, role).groups
            for role in ROLES
            if role_learning(self.config.learner, role).train
        }
        best = max(fill, key=lambda role: fill[role], default=None)
        return best if best is not None and fill[best] >= 1.0 else None

    def window(self, role: Role, events: Events) -> tuple[Window, list[Scored]]:
        """The oldest groups of a role, scored in their final form."""
        count = role_learning(self.config.learner, role).groups
        chosen = list(self.passed[role].values())[:count]
        memory = captions(self._remembered, events, self.config) if role == "proposer" else []
        chosen = final_form(role, chosen, events, self.config, memory)
        return Window(role, tuple(scored.batch() for scored in chosen)), chosen


def captions(steps: Sequence[list[CompleteGroup]], events: Events, config: Config) -> list[str]:
    """Those of the newest proposer steps, as far back as the configuration remembers."""
    wanted = config.proposer
    remembered = list(steps)[-wanted.memory_steps :] if wanted.memory_weight else []
    return [
        outcome.proposal.caption
        for step in remembered
        for group in step
        for event in events(group)
        if isinstance(event, Proposed)
        for outcome in event.outcomes
        if outcome.proposal is not None
    ]


def structures_of(chosen: Sequence[Scored], events: Events) -> dict[str, list[bytes]]:
    """Those of the pictures of each proposal, by its id."""
    found: dict[str, list[bytes]] = {}
    for scored in chosen:
        for event in events(scored.group):
            if isinstance(event, Rendered) and event.picture is not None:
                found.setdefault(parent(event.drawing), []).append(event.structure)
    return found


def final_form(
    role: Role,
    chosen: list[Scored],
    events: Events,
    config: Config,
    memory: Sequence[str] = (),
) -> list[Scored]:
    """A window's groups as they are trained on: what compares them with each other, and proposals
    with the captions of the steps before them, is added."""
    if role == "proposer":
        chosen = _with_batch_terms(chosen, events, config, memory)
    learner = config.learner
    if learner.scale_rewards != "batch":
        return chosen
    rewards = [scored.rewards for scored in chosen]
    scaled = window_advantages(rewards, learner.scale_rewards, learner.baseline)
    return [
        replace(scored, advantages=advantages.tolist())
        for scored, advantages in zip(chosen, scaled, strict=True)
    ]


def _with_batch_terms(
    chosen: list[Scored], events: Events, config: Config, memory: Sequence[str]
) -> list[Scored]:
    """The proposer's rewards again, with the penalties that compare a window's proposals."""
    proposed = [scored.proposed for scored in chosen]
    drawn = structures_of(chosen, events) if config.proposer.structure_weight else {}
    context = batch_context(proposed, config.proposer, memory, drawn)
    final = []
    for scored in chosen:
        again = score(scored.group, events(scored.group), config, context)
        # A group that the penalties leave without variance stays: its advantages are zero.
        final.append(again if isinstance(again, Scored) else scored)
    return final
