"""One committed step under other settings, beside itself: same groups, same checkpoint.

Both are taken here and now, so that nothing but the settings differs. Which groups other filters
would have chosen is told apart, and not trained on. It writes nothing into the run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from mmzero_async.config import Config
from mmzero_async.learner.errors import LearnerError
from mmzero_async.learner.rerun import Moment, Taken, moment_of, take
from mmzero_async.learner.scoring import Scored, score
from mmzero_async.learner.settings import other_settings
from mmzero_async.learner.window import Window
from mmzero_async.learner.windows import Candidates, Events, captions, events_from, final_form
from mmzero_async.log.reader import LogReader
from mmzero_async.projections.admission import role_learning
from mmzero_async.roles.filters import Rejection
from mmzero_async.schemas.events import Role

IN, WAITING = "in the window", "waiting"  # else the reason of a rejection


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a group, and what would have."""

    group: str
    committed: str
    other: str


@dataclass(frozen=True, slots=True)
class WhatIf:
    moment: Moment
    other_config: Config
    committed: Taken
    other: Taken
    left_out: dict[str, str]  # groups without a gradient under the other settings, and why
    rescored: int  # groups whose advantages are other ones
    fates: list[Fate]  # of every group that was there when the window was chosen, oldest first

    @property
    def same_bits(self) -> bool:
        """Whether this machine makes of the committed settings what was committed."""
        return self.moment.committed.digest == self.committed.digest


def what_if(
    run: Path, base: Path, reader: LogReader, role: Role, step: int, overrides: Sequence[str]
) -> WhatIf:
    """Takes the step twice, as committed and under the overrides.

    Raises ConfigError for overrides that cannot be, LearnerError when there is no such step or no
    group keeps a gradient, and what `take` raises.
    """
    moment, events = moment_of(reader, role, step), events_from(reader)
    other = other_settings(moment.config, overrides)
    again, left_out = _scored_again(moment, other, events)
    if not again:
        why = next(iter(left_out.values()))
        raise LearnerError(
            f"{role} step {step}: under these settings none of its {len(moment.chosen)} groups has "
            f"a gradient ({why})"
        )
    window = Window(role, tuple(scored.batch() for scored in again))
    before = {scored.group.id: scored.advantages for scored in moment.chosen}
    return WhatIf(
        moment=moment,
        other_config=other,
        committed=take(run, base, reader, moment, moment.config, moment.window),
        other=take(run, base, reader, moment, other, window),
        left_out=left_out,
        rescored=sum(scored.advantages != before[scored.group.id] for scored in again),
        fates=_fates(moment, other, events),
    )


def _scored_again(
    moment: Moment, other: Config, events: Events
) -> tuple[list[Scored], dict[str, str]]:
    """The window's groups under the other settings, whatever the other filters say."""
    was = moment.config
    config = msgspec.structs.replace(other, filters=was.filters, schedule=was.schedule)
    kept: list[Scored] = []
    left_out: dict[str, str] = {}
    for scored in moment.chosen:
        verdict = score(scored.group, events(scored.group), config)
        if isinstance(verdict, Scored):
            kept.append(verdict)
        else:
            left_out[scored.group.id] = f"{verdict.reason}: {verdict.detail}"
    memory = captions(moment.pipeline.book.remembered, events, config)
    return final_form(moment.window.role, kept, events, config, memory), left_out


def _fates(moment: Moment, other: Config, events: Events) -> list[Fate]:
    role = moment.window.role
    trained = {scored.group.id for scored in moment.chosen}
    candidates, passing = Candidates(other), 0
    fates = []
    for group in moment.considered.values():
        was = IN if group.id in trained else moment.refused.get(group.id, WAITING)
        verdict = candidates.judge(group, moment.pipeline, events)
        if isinstance(verdict, Rejection):
            fates.append(Fate(group.id, was, verdict.reason))
            continue
        passing += 1
        chosen = passing <= role_learning(other.learner, role).groups
        fates.append(Fate(group.id, was, IN if chosen else WAITING))
    return fates
