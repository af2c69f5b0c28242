"""Where the pipeline stands: what the watchdog and `mmzero why` say of each stage."""

from mmzero_async.schemas.events import Value


class Hand(Value, frozen=True, kw_only=True):
    """A worker that is here."""

    worker: str
    role: str
    silent_seconds: float = 0.0  # since its last word
    leases: int = 0
    free: int = 0  # more leases that it would take


class Refusal(Value, frozen=True, kw_only=True):
    """A worker that the log server would not let in."""

    worker: str
    reason: str
    seconds: float  # since it was told


class Held(Value, frozen=True, kw_only=True):
    """A piece of work in somebody's hands."""

    worker: str
    seconds: float  # since it was leased
    attempt: int = 1


class StageFlow(Value, frozen=True, kw_only=True):
    """One stage: what is due there, since when it stands still, and what it waits for."""

    stage: str  # "propose" | "code" | "render" | "answer" | "train/<role>"
    due: int  # pieces of work that the log calls for, those in hand among them; groups to train on
    held: int  # of them, in somebody's hands
    still_seconds: float  # since its last event, or since the log server started
    oldest: str = ""  # key of the work that waits longest
    oldest_seconds: float = 0.0
    holder: str = ""  # worker that has the oldest in hand
    waits_for: str = ""  # for people; empty when nothing is due
    stalled: bool = False  # something is due and nothing new came for longer than allowed
