"""How many new proposer prompts may start: generation is paced so that work need not be discarded.

After AReaL (arXiv 2505.24298): a role may have at most (eta + 1) steps' worth of groups ahead of
the learner, counting those still being made. As trained groups leave both sides of that
inequality, no version number appears in it. eta is the configured one, or less where the log says
so (pace.py).
"""

from mmzero_async.config import AdmissionConfig, LearnerConfig, RoleLearning
from mmzero_async.projections.groups import GroupBook
from mmzero_async.projections.lineage import Lineage
from mmzero_async.projections.pace import Pace
from mmzero_async.schemas.events import ROLES, Role


def open_groups(lineage: Lineage) -> dict[Role, int]:
    """Groups in the making, a role."""
    proposals = [p for tree in lineage.trees.values() for p in tree.proposals if not p.settled]
    drawings = sum(1 for p in proposals for d in p.drawings if not d.settled)
    return {"proposer": len(lineage.trees), "coder": len(proposals), "solver": drawings}


def holding_back(
    lineage: Lineage,
    book: GroupBook,
    pace: Pace,
    leased_prompts: int,
    admission: AdmissionConfig,
    learner: LearnerConfig,
) -> str:
    """Why no more proposer prompt may be leased now, for people; empty: one may."""
    running = open_groups(lineage)
    open_prompts = running["proposer"] + leased_prompts
    if open_prompts >= admission.max_running_groups:
        return (
            f"open prompts to be settled: {open_prompts} of at most "
            f"{admission.max_running_groups} (admission.max_running_groups)"
        )
    for role in ROLES:
        learning = role_learning(learner, role)
        ahead = len(book.ready[role]) + running[role]
        most = (pace.eta(role, admission) + 1) * learning.groups
        if learning.train and ahead >= most:
            return (
                f"the learner: {ahead} {role} groups are ready or in the making, at most {most} "
                f"may be (admission.eta)"
            )
    return ""


def role_learning(learner: LearnerConfig, role: Role) -> RoleLearning:
    match role:
        case "proposer":
            return learner.proposer
        case "coder":
            return learner.coder
        case "solver":
            return learner.solver
