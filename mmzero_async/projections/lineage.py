"""The tree that grows under each proposer prompt, and the moment at which a group is complete.

proposer group -> proposals -> drawings -> pictures -> easy and hard answers. A node that cannot go
on (unparseable, not rendered, abandoned) counts as settled. When all below a node is settled, the
group that it heads is complete and is reported once, with the offsets of all events that its
reward needs. A tree is forgotten when its proposer group is complete: memory is bounded by what
is open.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from mmzero_async.projections.copies import Copies
from mmzero_async.projections.making import Making
from mmzero_async.projections.probes import Probes
from mmzero_async.projections.settings import Settings
from mmzero_async.schemas.events import (
    Answered,
    AnyEvent,
    Coded,
    Probed,
    Proposal,
    Proposed,
    Question,
    Rendered,
    Role,
    WorkAbandoned,
)
from mmzero_async.schemas.ids import drawing_id, indices, proposal_id, root
from mmzero_async.schemas.work import BLIND, Work, completes, work_key

QUESTIONS: tuple[Question, ...] = ("easy", "hard")


@dataclass(frozen=True, slots=True)
class CompleteGroup:
    """A group whose rewards can be computed from the events at `offsets` (ascending)."""

    role: Role
    id: str
    version: int  # oldest policy version among its samples
    offsets: tuple[int, ...]
    copies: tuple[tuple[str, str], ...] = ()  # (drawing, the earlier one that it looks like)
    novelty: float | None = None  # of a solver group's picture, see Copies.novelty


@dataclass(slots=True)
class Drawing:
    id: str
    settled: bool = False
    rendered: int | None = None  # offset
    picture: str | None = None
    answers: dict[Question, int] = field(default_factory=dict)  # offsets
    solver_version: int = 0
    copy_of: str = ""  # an earlier drawing
    novelty: float | None = None
    awaited: set[Question] = field(default_factory=set)  # probes that the group waits for
    probes: list[int] = field(default_factory=list)  # offsets of those that came

    @property
    def sampled_by(self) -> int | None:
        """The version that its group's samples are of; None before there are any."""
        return self.solver_version if "hard" in self.answers else None

    def offsets(self) -> list[int]:
        found = [] if self.rendered is None else [self.rendered]
        return found + list(self.answers.values()) + self.probes


@dataclass(slots=True)
class ProposalNode:
    id: str
    proposal: Proposal | None
    settled: bool = False
    coded: int | None = None  # offset
    version: int = 0
    drawings: list[Drawing] = field(default_factory=list)

    @property
    def sampled_by(self) -> int | None:
        return None if self.coded is None else self.version

    def offsets(self) -> list[int]:
        found = [] if self.coded is None else [self.coded]
        return found + [o for drawing in self.drawings for o in drawing.offsets()]


@dataclass(slots=True)
class Tree:
    """All that descends from one proposer prompt."""

    id: str
    proposed: int  # offset
    version: int
    proposals: list[ProposalNode]

    def offsets(self) -> tuple[int, ...]:
        below = (o for proposal in self.proposals for o in proposal.offsets())
        return tuple(sorted([self.proposed, *below]))


class Lineage:
    """`apply` each event in offset order; it returns new due work and newly complete groups."""

    def __init__(self) -> None:
        self.trees: dict[str, Tree] = {}
        self.settled_prompts = SettledPrompts()
        # Nodes that are not settled, counted as they come and go: admission asks at every lease.
        self.unsettled: dict[Role, int] = {"coder": 0, "solver": 0}
        self.making = Making()  # the versions of groups that have their samples, not yet all else
        self.open: dict[str, Work] = {}  # work that the log calls for, by key
        self.copies = Copies()
        self.probes = Probes()

    def configure(self, settings: Settings) -> None:
        """The run's own settings, before its first proposal."""
        self.copies = Copies.of(settings.shortcuts)
        self.probes = Probes(settings.probe, settings.run.seed)

    def admits(self, event: AnyEvent) -> bool:
        """Whether the log still waits for this: False for a second settlement of the same work."""
        key = completes(event)
        return key is None or self._awaits(key)

    def _awaits(self, key: str) -> bool:
        if key.startswith("propose/"):
            return indices(key.removeprefix("propose/"))[0] not in self.settled_prompts
        return key in self.open

    def apply(self, offset: int, event: AnyEvent) -> tuple[list[Work], list[CompleteGroup]]:
        key = completes(event)
        if key is None or not self._awaits(key):
            return [], []
        self.open.pop(key, None)
        match event:
            case Proposed():
                due, done = self._proposed(offset, event)
            case Coded():
                due, done = self._coded(offset, event)
            case Rendered():
                due, done = self._rendered(offset, event)
            case Answered():
                due, done = self._answered(offset, event)
            case Probed():
                due, done = [], self._probed(offset, event)
            case WorkAbandoned():
                due, done = [], self._abandoned(event)
            case _:
                return [], []
        for work in due:
            self.open[work.key] = work
        return due, done

    def _proposed(self, offset: int, event: Proposed) -> tuple[list[Work], list[CompleteGroup]]:
        self.settled_prompts.add(indices(event.group)[0])
        nodes = [
            ProposalNode(
                id=proposal_id(event.group, i),
                proposal=outcome.proposal,
                settled=outcome.proposal is None,
            )
            for i, outcome in enumerate(event.outcomes)
        ]
        self.unsettled["coder"] += sum(not node.settled for node in nodes)
        tree = Tree(event.group, offset, oldest_version(event), nodes)
        self.trees[tree.id] = tree
        self.making.began("proposer", tree.version)
        due = [
            Work(stage="code", target=node.id, proposal=node.proposal)
            for node in nodes
            if not node.settled
        ]
        return due, self._finish_tree(tree)

    def _coded(self, offset: int, event: Coded) -> tuple[list[Work], list[CompleteGroup]]:
        tree, node = self._proposal(event.proposal)
        node.coded, node.version = offset, oldest_version(event)
        self.making.began("coder", node.version)
        node.drawings = [
            Drawing(id=drawing_id(node.id, i), settled=not outcome.found)
            for i, outcome in enumerate(event.outcomes)
        ]
        self.unsettled["solver"] += sum(not drawing.settled for drawing in node.drawings)
        due = [
            Work(
                stage="render",
                target=drawing.id,
                svg=outcome.svg or "",
                program=outcome.program or "",
                proposal=node.proposal,
            )
            for drawing, outcome in zip(node.drawings, event.outcomes, strict=True)
            if outcome.found
        ]
        return due, self._finish_proposal(tree, node)

    def _rendered(self, offset: int, event: Rendered) -> tuple[list[Work], list[CompleteGroup]]:
        tree, node, drawing = self._drawing(event.drawing)
        drawing.rendered, drawing.picture = offset, event.picture
        if event.picture is None:
            self._settle("solver", drawing)
            return [], self._finish_proposal(tree, node)
        drawing.novelty = self.copies.novelty(event)
        drawing.copy_of = self.copies.see(event)
        self.probes.rendered(event)
        due = [
            Work(
                stage="answer",
                target=drawing.id,
                proposal=node.proposal,
                picture=event.picture,
                question=question,
            )
            for question in QUESTIONS
        ]
        return due, []

    def _answered(self, offset: int, event: Answered) -> tuple[list[Work], list[CompleteGroup]]:
        tree, node, drawing = self._drawing(event.drawing)
        drawing.answers[event.question] = offset
        if event.question == "hard":
            drawing.solver_version = oldest_version(event)
            self.making.began("solver", drawing.solver_version)
        probe = self.probes.due(event, node.proposal)
        if probe is not None and self.probes.awaited:
            drawing.awaited.add(event.question)
        return [probe] if probe else [], self._finish_drawing(tree, node, drawing)

    def _probed(self, offset: int, event: Probed) -> list[CompleteGroup]:
        self.probes.settled()
        if not self.probes.awaited:
            return []
        tree, node, drawing = self._drawing(event.drawing)
        drawing.awaited.discard(event.question)
        drawing.probes.append(offset)
        return self._finish_drawing(tree, node, drawing)

    def _finish_drawing(
        self, tree: Tree, node: ProposalNode, drawing: Drawing
    ) -> list[CompleteGroup]:
        if drawing.settled or drawing.awaited or len(drawing.answers) < len(QUESTIONS):
            return []
        self._settle("solver", drawing)
        offsets = tuple(sorted([tree.proposed, *drawing.offsets()]))
        version = drawing.solver_version
        copies = copies_in([drawing])
        done = CompleteGroup("solver", drawing.id, version, offsets, copies, drawing.novelty)
        return [done, *self._finish_proposal(tree, node)]

    def _abandoned(self, event: WorkAbandoned) -> list[CompleteGroup]:
        stage, target = event.work.split("/")[:2]
        if stage == "propose":
            self.settled_prompts.add(indices(target)[0])
            return []
        if stage == "code":
            tree, node = self._proposal(target)
            self._settle("coder", node)
            return self._finish_tree(tree)
        if event.work.endswith(BLIND):
            return self._probe_abandoned(target, event.work)
        tree, node, drawing = self._drawing(target)
        self._settle("solver", drawing)
        if stage == "answer":
            for question in QUESTIONS:  # the other question would serve no group any more
                self.open.pop(work_key("answer", target, question), None)
                probe = work_key("answer", target, question, blind=True)
                if self.probes.awaited and self.open.pop(probe, None) is not None:
                    self.probes.settled()
        return self._finish_proposal(tree, node)

    def _probe_abandoned(self, target: str, work: str) -> list[CompleteGroup]:
        """The group goes on without it."""
        self.probes.settled()
        if not self.probes.awaited:
            return []
        tree, node, drawing = self._drawing(target)
        drawing.awaited = {
            q for q in drawing.awaited if work_key("answer", target, q, blind=True) != work
        }
        return self._finish_drawing(tree, node, drawing)

    def _settle(self, role: Role, node: ProposalNode | Drawing) -> None:
        if node.settled:
            return
        node.settled = True
        self.unsettled[role] -= 1
        if node.sampled_by is not None:
            self.making.ended(role, node.sampled_by)

    def _finish_proposal(self, tree: Tree, node: ProposalNode) -> list[CompleteGroup]:
        if node.settled or not all(drawing.settled for drawing in node.drawings):
            return []
        self._settle("coder", node)
        offsets = tuple(sorted([tree.proposed, *node.offsets()]))
        copies = copies_in(node.drawings)
        done = [CompleteGroup("coder", node.id, node.version, offsets, copies)]
        return done + self._finish_tree(tree)

    def _finish_tree(self, tree: Tree) -> list[CompleteGroup]:
        if not all(node.settled for node in tree.proposals):
            return []
        del self.trees[tree.id]
        self.making.ended("proposer", tree.version)
        copies = copies_in(d for node in tree.proposals for d in node.drawings)
        return [CompleteGroup("proposer", tree.id, tree.version, tree.offsets(), copies)]

    def _proposal(self, target: str) -> tuple[Tree, ProposalNode]:
        tree = self.trees[root(target)]
        return tree, tree.proposals[indices(target)[1]]

    def _drawing(self, target: str) -> tuple[Tree, ProposalNode, Drawing]:
        tree, node = self._proposal(target)
        return tree, node, node.drawings[indices(target)[2]]


class SettledPrompts:
    """The set of prompt numbers that are settled: a dense prefix and what lies beyond it."""

    def __init__(self) -> None:
        self.prefix = 0
        self.beyond: set[int] = set()

    def __contains__(self, prompt: int) -> bool:
        return prompt < self.prefix or prompt in self.beyond

    def add(self, prompt: int) -> None:
        self.beyond.add(prompt)
        while self.prefix in self.beyond:
            self.beyond.remove(self.prefix)
            self.prefix += 1


def copies_in(drawings: Iterable[Drawing]) -> tuple[tuple[str, str], ...]:
    return tuple((drawing.id, drawing.copy_of) for drawing in drawings if drawing.copy_of)


def oldest_version(event: Proposed | Coded | Answered) -> int:
    """The oldest policy version that drew any token of the event's samples."""
    spans = [span.version for sample in event.generation.samples for span in sample.versions]
    return min(spans, default=event.generation.version)
