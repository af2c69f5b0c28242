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
from mmzero_async.projections.schedule import Schedule
from mmzero_async.schemas.events import ROLES, Role


def open_groups(lineage: Lineage) -> dict[Role, int]:
    """Groups in the making, a role."""
    return {"proposer": len(lineage.trees), **lineage.unsettled}


def holding_back(
    lineage: Lineage,
    book: GroupBook,
    pace: Pace,
    leased_prompts: int,
    admission: AdmissionConfig,
    learner: LearnerConfig,
    schedule: Schedule,
) -> str:
    """Why no more proposer prompt may be leased now, for people; empty: one may.

    Nobody waits for groups of a role that has not its turn, and a turn is given no more groups than
    its steps still take.
    """
    if schedule.over:
        return "nothing: the schedule is over"
    running = open_groups(lineage)
    running["proposer"] += leased_prompts
    if running["proposer"] >= admission.max_running_groups:
        return (
            f"open prompts to be settled: {running['proposer']} of at most "
            f"{admission.max_running_groups} (admission.max_running_groups)"
        )
    for role in ROLES:
        learning = role_learning(learner, role)
        if not (learning.train and schedule.trains(role)):
            continue
        steps, left = pace.eta(role, admission) + 1, schedule.left(role)
        ahead = len(book.ready[role]) + running[role]
        most = (steps if left is None else min(steps, left)) * learning.groups
        if ahead >= most:
            why = "its turn" if left is not None and left < steps else "admission.eta"
            return (
                f"the learner: {ahead} {role} groups are ready or in the making, at most {most} "
                f"may be ({why})"
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
