"""Events of the run itself: its beginning and end, its workers, its stages, its figures."""

from mmzero_async.schemas.event import SCHEMA_VERSION, Event


class RunStarted(Event, frozen=True, kw_only=True, tag="run_started"):
    """What the run is, once a log; only who joined may stand before it."""

    run: str
    config: str  # the complete configuration as JSON
    config_digest: str
    base_model: str
    base_digest: str
    seed: int
    code_version: str
    schema_version: int = SCHEMA_VERSION
    grader: str = ""  # what answers were compared by; "": a grader before version 3


class RunFinished(Event, frozen=True, kw_only=True, tag="run_finished"):
    reason: str  # "limit": of minutes or steps; "schedule": its last turn is over


class WorkerJoined(Event, frozen=True, kw_only=True, tag="worker_joined"):
    worker: str
    role: str
    host: str
    pid: int


class WorkerLeft(Event, frozen=True, kw_only=True, tag="worker_left"):
    """Said goodbye, or was missed: reason "goodbye" | "silent" | "replaced"."""

    worker: str
    role: str
    reason: str


class WorkerFailed(Event, frozen=True, kw_only=True, tag="worker_failed"):
    """A worker's own report of an error in one piece of work or in itself."""

    worker: str
    role: str
    error: str
    work: str = ""


class WorkAbandoned(Event, frozen=True, kw_only=True, tag="work_abandoned"):
    """A piece of work that is given up on; its node counts as failed."""

    work: str
    reason: str
    attempts: int


class StageStalled(Event, frozen=True, kw_only=True, tag="stage_stalled"):
    """Nothing new came in a stage for long, though work was due: the watchdog's word, once a stall.

    `stage`: "propose" | "code" | "render" | "answer" | "train/<role>".
    """

    stage: str
    seconds: float  # without anything new
    due: int  # pieces of work, or groups to train on
    held: int  # of them, in workers' hands
    oldest: str  # key of the work that waits longest, or a group's id
    holder: str = ""  # worker that has it
    waits_for: str = ""


class StageMoved(Event, frozen=True, kw_only=True, tag="stage_moved"):
    """A stage that had stalled goes on, or nothing is due there any more."""

    stage: str
    seconds: float  # since it was found stalled


class Measured(Event, frozen=True, kw_only=True, tag="measured"):
    """Figures of one process or of the whole run, e.g. peak resident bytes, busy seconds."""

    source: str
    figures: dict[str, float]
