"""How many new proposer prompts may start: generation is paced so that work need not be discarded.

After AReaL (arXiv 2505.24298): a role may have at most (eta + 1) steps' worth of groups ahead of
the learner, counting those still being made. As trained groups leave both sides of that
inequality, no version number appears in it. eta is the configured one, or less where the log says
so (pace.py).

That alone would let a slow group starve: quick ones complete before it again and again, until it
is too stale to be used. So no prompt starts whose groups could push the oldest one that is being
made beyond `max_staleness`, even if every group of every open prompt overtook it.
"""

from mmzero_async.config import Config, LearnerConfig, RoleLearning
from mmzero_async.projections.lineage import Lineage
from mmzero_async.projections.making import Making
from mmzero_async.projections.pipeline import Pipeline
from mmzero_async.schemas.events import ROLES, Role


def open_groups(lineage: Lineage) -> dict[Role, int]:
    """Groups in the making, a role."""
    return {"proposer": len(lineage.trees), **lineage.unsettled}


def holding_back(pipeline: Pipeline, config: Config, leased_prompts: int, in_hand: Making) -> str:
    """Why no more proposer prompt may be leased now, for people; empty: one may.

    Nobody waits for groups of a role that has not its turn, and a turn is given no more groups than
    its steps still take.

    Args:
        leased_prompts: with proposers, not in the log yet.
        in_hand: the versions that workers sample from at this moment.
    """
    admission, schedule = config.admission, pipeline.schedule
    if schedule.over:
        return "nothing: the schedule is over"
    running = open_groups(pipeline.lineage)
    running["proposer"] += leased_prompts
    prompts = running["proposer"]
    if prompts >= admission.max_running_groups:
        return (
            f"open prompts to be settled: {prompts} of at most "
            f"{admission.max_running_groups} (admission.max_running_groups)"
        )
    for role in ROLES:
        learning = role_learning(config.learner, role)
        if not (learning.train and schedule.trains(role)):
            continue
        steps, left = pipeline.pace.eta(role, admission) + 1, schedule.left(role)
        ready = len(pipeline.book.ready[role])
        ahead = ready + running[role]
        most = (steps if left is None else min(steps, left)) * learning.groups
        if ahead >= most:
            why = "its turn" if left is not None and left < steps else "admission.eta"
            return (
                f"the learner: {ahead} {role} groups are ready or in the making, at most {most} "
                f"may be ({why})"
            )
        behind = versions_behind(pipeline, role, in_hand)
        before = steps_before(ready + (prompts + 1) * fan_out(config, role), learning.groups)
        if prompts and behind + before > admission.max_staleness:
            return (
                f"the oldest {role} group in the making: it is {behind} versions behind, and up to "
                f"{before} steps may come before it (admission.max_staleness = "
                f"{admission.max_staleness})"
            )
    return ""


def versions_behind(pipeline: Pipeline, role: Role, in_hand: Making) -> int:
    """How old the oldest group in the making is; 0 where none has samples or is being sampled."""
    oldest = [m.oldest(role) for m in (pipeline.lineage.making, in_hand)]
    known = [version for version in oldest if version is not None]
    return max(0, pipeline.policies.version(role) - min(known)) if known else 0


def steps_before(groups: int, a_step: int) -> int:
    """Steps that may be taken before the last of so many groups is part of one."""
    return -(-groups // a_step) - 1


def fan_out(config: Config, role: Role) -> int:
    """Groups of a role that come of one prompt, at most."""
    match role:
        case "proposer":
            return 1
        case "coder":
            return config.proposer.samples
        case "solver":
            return config.proposer.samples * config.coder.samples


def role_learning(learner: LearnerConfig, role: Role) -> RoleLearning:
    match role:
        case "proposer":
            return learner.proposer
        case "coder":
            return learner.coder
        case "solver":
            return learner.solver
