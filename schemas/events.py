"""Every event that the log can hold: one tagged union, one Struct a kind.

Map-encoded (`kind` is the tag), so a field may be added with a default at any time and an older
reader skips what it does not know. A field is never renamed, retyped or reused: a new meaning is
a new field, a new shape a new kind. `SCHEMA_VERSION` grows when a reader must upcast.
"""

import typing
from typing import Any, Literal

import msgspec

# Those of the run itself stand in a room of their own; all are had from here.
from mmzero_async.schemas.event import SCHEMA_VERSION as SCHEMA_VERSION
from mmzero_async.schemas.event import Event as Event
from mmzero_async.schemas.run_events import Measured as Measured
from mmzero_async.schemas.run_events import RunFinished as RunFinished
from mmzero_async.schemas.run_events import RunStarted as RunStarted
from mmzero_async.schemas.run_events import StageMoved as StageMoved
from mmzero_async.schemas.run_events import StageStalled as StageStalled
from mmzero_async.schemas.run_events import WorkAbandoned as WorkAbandoned
from mmzero_async.schemas.run_events import WorkerFailed as WorkerFailed
from mmzero_async.schemas.run_events import WorkerJoined as WorkerJoined
from mmzero_async.schemas.run_events import WorkerLeft as WorkerLeft

Role = Literal["proposer", "coder", "solver"]
Question = Literal["easy", "hard"]
ROLES: tuple[Role, ...] = ("proposer", "coder", "solver")


class Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of the immutable values inside events."""


# --- what a policy generated, with its provenance ---------------------------------------------


class VersionSpan(msgspec.Struct, frozen=True, array_like=True):
    """Tokens [start, stop) of a sample were drawn under this policy version."""

    start: int
    stop: int
    version: int


class Sampling(Value, frozen=True, kw_only=True):
    """Sampling parameters as the engine was given them."""

    temperature: float
    top_p: float = 1.0
    top_k: int = 0  # 0: off
    max_tokens: int = 0
    seed: int | None = None


class Sample(Value, frozen=True, kw_only=True):
    """One completion. Log-probabilities are the engine's processed ones, i.e. after temperature."""

    token_ids: bytes  # int32 [T]
    logprobs: bytes  # float32 [T], behaviour log-probability of each token
    versions: list[VersionSpan]  # cover [0, T) without overlap
    text: str
    finish_reason: str  # "stop" | "length" | "abort"


class Generation(Value, frozen=True, kw_only=True):
    """One engine request: a prompt and its n samples. The samples form a group."""

    role: Role
    policy: str  # its name at the engine: the adapter's, "solver@17"; "solver" with full weights
    version: int  # policy version when the request was sent; with full weights its oldest token's
    prompt_token_ids: bytes  # int32 [P], as the engine saw them, image placeholders expanded
    sampling: Sampling
    template: str  # digest of the prompt template
    samples: list[Sample]
    images: list[str] = []  # blob digests, in the order of the prompt
    engine: str = ""  # engine id: name, version, dtype
    seconds: float = 0.0  # wall time of the request


# --- the four stages --------------------------------------------------------------------------


class Proposal(Value, frozen=True, kw_only=True):
    """A visual concept as the proposer wrote it."""

    content_type: str
    caption: str
    easy_question: str
    easy_answer: str
    hard_question: str
    hard_answer: str


class ProposalOutcome(Value, frozen=True, kw_only=True):
    """A parsed proposer sample, or why it could not be parsed."""

    proposal: Proposal | None = None
    failure: str = ""


class Proposed(Event, frozen=True, kw_only=True, tag="proposed"):
    """A proposer group: n proposals sampled from one prompt. Proposal j is `<group>.s<j>`."""

    group: str
    topic: str
    seed: int
    generation: Generation
    outcomes: list[ProposalOutcome]  # one a sample


class DrawingOutcome(Value, frozen=True, kw_only=True):
    """The SVG or the plotting program found in a coder sample, whichever the run asks for, or why
    none was found ("no_code" | "not_svg" | "not_program")."""

    svg: str | None = None
    failure: str = ""
    program: str | None = None

    @property
    def found(self) -> bool:
        """Whether there is something to render."""
        return self.svg is not None or self.program is not None


class Coded(Event, frozen=True, kw_only=True, tag="coded"):
    """A coder group: n drawings of one proposal. Drawing j is `<proposal>.d<j>`."""

    proposal: str
    generation: Generation
    outcomes: list[DrawingOutcome]  # one a sample


class Finding(Value, frozen=True, kw_only=True):
    """A way around reading the picture, as a detector found it (roles/shortcuts/)."""

    detector: str
    detail: str = ""


class Rendered(Event, frozen=True, kw_only=True, tag="rendered"):
    """A drawing became a picture (PNG blob), or failed with its kind and detail."""

    drawing: str
    renderer: str  # engine id and version
    picture: str | None = None  # blob digest
    width: int = 0  # pixels
    height: int = 0
    failure: str = ""  # "" when rendered, else "blank", "invalid", "timeout", "crashed", ...
    detail: str = ""
    mended: list[str] = []  # lossless mends applied before rendering
    ink: float = 0.0  # share of pixels that differ from the background
    seconds: float = 0.0
    fingerprint: bytes = (
        b""  # of the picture (rendering/fingerprint.py); alike ones differ in few bits
    )
    findings: list[Finding] = []  # of detectors that look at one picture
    structure: bytes = b""  # of the drawing (rendering/structure.py); alike ones share numbers
    not_applicable: list[str] = []  # detectors that cannot look at this kind of drawing


class AnswerOutcome(Value, frozen=True, kw_only=True):
    """What stands in a solver sample's last \\boxed{}, and whether the format was kept."""

    answer: str | None = None
    format_ok: bool = False


class Answered(Event, frozen=True, kw_only=True, tag="answered"):
    """n solver answers to one question on one picture. For "hard" they form a solver group."""

    drawing: str
    question: Question
    generation: Generation
    outcomes: list[AnswerOutcome]  # one a sample


class Probed(Event, frozen=True, kw_only=True, tag="probed"):
    """A question asked again without its picture, after it was answered with it.

    Trains nobody. What the silver answer was, and how many blind answers agree with it, is written
    as it was graded then; the raw answers stand beside it.
    """

    drawing: str
    question: Question
    without: Literal["none", "other"]  # no picture, or another one of the run
    generation: Generation
    outcomes: list[AnswerOutcome]  # one a sample
    silver: str | None = None  # majority of the answers that saw the picture
    sighted: float = 0.0  # their share that gave it
    agreed: int = 0  # blind answers that did
    other: str = ""  # digest of the picture that was shown instead


# --- learning ---------------------------------------------------------------------------------


class Rewarded(Event, frozen=True, kw_only=True, tag="rewarded"):
    """Rewards of one group as it was trained on, term by term. `rewards[i]` = sum of `terms[i]`."""

    role: Role
    group: str
    rewards: list[float]
    terms: list[dict[str, float]]
    advantages: list[float]
    step: int
    facts: dict[str, float] = {}  # e.g. render_rate, easy_consistency, hard_consistency


class GroupRejected(Event, frozen=True, kw_only=True, tag="group_rejected"):
    """A complete group that will never be trained on, and why."""

    role: Role
    group: str
    reason: str  # "stale" | "zero_variance" | "render_rate" | "consistency" | "incomplete" | ...
    detail: str = ""


class StepCommitted(Event, frozen=True, kw_only=True, tag="step_committed"):
    """One optimiser step of one role. Committed in one transaction with its Rewarded events."""

    role: Role
    step: int  # 1, 2, ...
    version: int  # the policy version that this step made
    groups: list[str]  # consumed; each is consumed by at most one step
    offsets: list[int]  # log offsets of the events that the batch was built from
    checkpoint: str  # folder, relative to the run
    digest: str  # of the weights' file
    batch_digest: str  # of the tensors that were trained on
    metrics: dict[str, float]


class Paced(Event, frozen=True, kw_only=True, tag="paced"):
    """How far generation may run ahead of a role's learner from here on, and why that is new.

    Committed with the step that called for it, and a function of the role's StepCommitted events.
    """

    role: Role
    step: int  # that called for it
    eta: int  # steps' worth of groups that may be ready
    before: int
    reason: str  # "ess_share" | "drift_kl_older_versions": tightened; "calm": relaxed
    figure: float = 0.0  # the step's, beyond `bound`
    bound: float = 0.0


class PolicyPublished(Event, frozen=True, kw_only=True, tag="policy_published"):
    """The engine serves this version of the role from now on."""

    role: Role
    version: int
    policy: str  # name at the engine
    checkpoint: str
    digest: str
    seconds: float = 0.0


class Evaluated(Event, frozen=True, kw_only=True, tag="evaluated"):
    """Accuracy on the held-out scenes, by question kind: kind -> [correct, asked]."""

    role: Role
    version: int
    moment: str  # "before" | "after" | "manual"
    mode: str  # "greedy" | "sampled"
    by_kind: dict[str, tuple[int, int]]
    hard_kinds: list[str]
    seed: int
    seconds: float = 0.0


# --- any of them, and as bytes ----------------------------------------------------------------


class UnknownEvent(msgspec.Struct, frozen=True):
    """An event of a kind that this version does not know: kept as bytes, skipped by projections."""

    kind: str
    body: bytes


KnownEvent = (
    Proposed
    | Coded
    | Rendered
    | Answered
    | Probed
    | Rewarded
    | GroupRejected
    | StepCommitted
    | Paced
    | PolicyPublished
    | Evaluated
    | RunStarted
    | RunFinished
    | WorkerJoined
    | WorkerLeft
    | WorkerFailed
    | WorkAbandoned
    | StageStalled
    | StageMoved
    | Measured
)
AnyEvent = KnownEvent | UnknownEvent

KINDS: frozenset[str] = frozenset(
    str(kind.__struct_config__.tag) for kind in typing.get_args(KnownEvent)
)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(KnownEvent)


def kind_of(event: Event) -> str:
    """The tag under which an event is stored."""
    return str(event.__struct_config__.tag)


def encode_event(event: Event) -> bytes:
    return _encoder.encode(event)


def decode_event(kind: str, body: bytes | memoryview) -> AnyEvent:
    """The event, or UnknownEvent for a kind of a newer writer.

    Raises msgspec.ValidationError or DecodeError when a known kind does not fit its schema.
    """
    if kind not in KINDS:
        return UnknownEvent(kind=kind, body=bytes(body))
    event = _decoder.decode(body)
    if kind_of(event) != kind:
        raise msgspec.ValidationError(f"an event of kind {kind_of(event)} was sent as {kind}")
    return typing.cast(AnyEvent, event)
