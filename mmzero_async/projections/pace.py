"""How far generation may run ahead of a learner: tightened when samples stray, relaxed after.

Additive increase, multiplicative decrease on admission's eta, from the figures of committed steps.
A decision is an event, committed with the step that called for it, so whoever reads the log knows
the pace, and anybody can derive it again from the steps.
"""

from collections import deque
from dataclasses import dataclass, field

from mmzero_async.config import AdmissionConfig
from mmzero_async.schemas.events import ROLES, AnyEvent, Paced, Role, StepCommitted

LONGEST = 64  # steps remembered, the most that admission.calm_steps can ask for


@dataclass(frozen=True, slots=True)
class Stray:
    """How far one step's samples were off the policy."""

    ess: float
    drift: float

    @classmethod
    def of(cls, step: StepCommitted) -> "Stray":
        """What a step does not tell counts as on policy."""
        return cls(
            ess=step.metrics.get("ess_share", 1.0),
            drift=step.metrics.get("drift_kl_older_versions", 0.0),
        )


@dataclass(slots=True)
class Pace:
    """`apply` every event; then `eta` of a role as decided, and `decide` what a step calls for."""

    decided: dict[Role, int] = field(default_factory=dict)
    # Of the steps since the last decision, the newest last.
    since: dict[Role, deque[Stray]] = field(
        default_factory=lambda: {role: deque(maxlen=LONGEST) for role in ROLES}
    )

    def apply(self, event: AnyEvent) -> None:
        match event:
            case StepCommitted():
                self.since[event.role].append(Stray.of(event))
            case Paced():
                self.decided[event.role] = event.eta
                self.since[event.role].clear()
            case _:
                pass

    def eta(self, role: Role, admission: AdmissionConfig) -> int:
        """Steps' worth of groups that may be ready, never more than configured."""
        return min(self.decided.get(role, admission.eta), admission.eta)

    def decide(self, step: StepCommitted, admission: AdmissionConfig) -> Paced | None:
        """What a step that is about to be committed calls for; a pure function of the log.

        A step beyond a bound halves eta, at most once in `calm_steps` steps, for what is in flight
        was admitted before. After as many steps within the bounds eta grows by one.
        """
        now, role = Stray.of(step), step.role
        recent = [*self.since[role], now][-admission.calm_steps :]
        settled = role not in self.decided or len(recent) == admission.calm_steps
        eta = self.eta(role, admission)
        beyond = _beyond(now, admission)
        if beyond is not None and settled and eta > 0:
            reason, figure, bound = beyond
            return Paced(
                role=role,
                step=step.step,
                eta=eta // 2,
                before=eta,
                reason=reason,
                figure=figure,
                bound=bound,
            )
        calm = all(_beyond(stray, admission) is None for stray in recent)
        if calm and len(recent) == admission.calm_steps and eta < admission.eta:
            return Paced(role=role, step=step.step, eta=eta + 1, before=eta, reason="calm")
        return None


def _beyond(stray: Stray, admission: AdmissionConfig) -> tuple[str, float, float] | None:
    """Which bound is crossed, by what figure."""
    if stray.ess < admission.ess_floor:
        return "ess_share", stray.ess, admission.ess_floor
    if 0.0 < admission.drift_ceiling < stray.drift:
        return "drift_kl_older_versions", stray.drift, admission.drift_ceiling
    return None
