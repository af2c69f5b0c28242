"""The configuration: one TOML file, read strictly; `section.key=value` overrides any value.

Unknown keys and wrong types are refused with the place and what was expected. The presets in
`mmzero_async/presets/` are complete, commented files; `seedling.toml` is the default.
"""

import hashlib
import math
import tomllib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from mmzero_async.engine_options import PoolOptions, unusable_pool
from mmzero_async.filter_options import FactBound, unusable
from mmzero_async.loss_options import LossName, LossOptions, contradiction
from mmzero_async.schedule_options import ScheduleOptions, impossible
from mmzero_async.schemas.events import ROLES
from mmzero_async.shortcut_options import ShortcutConfig
from mmzero_async.telemetry_options import LogsOptions, MetricsOptions
from mmzero_async.tracker_options import TrackerOptions
from mmzero_async.weight_options import WeightOptions, unservable


class ConfigError(ValueError):
    """A configuration that cannot be used: says what, where and what to do."""


Count = Annotated[int, msgspec.Meta(ge=1)]
DrawingKind = Literal["svg", "matplotlib"]
Consistency = Literal["asked", "valid"]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all sections: frozen, unknown keys refused."""


class RunConfig(_Section, frozen=True, kw_only=True):
    """What is trained, from what, and for how long."""

    base_model: str = "seedling"  # "seedling" or a model's folder: docs/FAMILIES.md
    seed: int = 20260310
    max_minutes: float = 20.0  # 0: no limit
    max_steps: int = 0  # stop when every role took this many steps; 0: no limit
    evaluate: bool = True  # held-out score before and after


class LogConfig(_Section, frozen=True, kw_only=True):
    """The log server."""

    host: str = "127.0.0.1"
    port: int = 5701  # 0: any free port
    keys: str = ""  # folder of CURVE keys; empty: none, and loopback only
    read_port: int = 0  # of the read server; 0: any free port, see log.read.url in the run's folder
    map_gib: int = 64  # sparse; the file grows with use
    sync: Literal["full", "nometasync", "nosync"] = "full"
    max_batch: int = 256  # messages a group commit
    max_message_mib: int = 64
    credits: int = 64  # unacknowledged appends a worker may have
    heartbeat_seconds: float = 1.0
    dead_seconds: float = 4.0
    lease_seconds: float = 120.0
    max_attempts: int = 3  # leases of one piece of work before it is abandoned
    warn_reader_seconds: float = 60.0  # in one read transaction, before a reader is warned of
    warn_free_share: float = 0.05  # of the log's disk, below which it is warned of
    stall_seconds: float = 60.0  # with work due and nothing new, before a stage stalls; 0: never


class EngineConfig(PoolOptions, frozen=True, kw_only=True):
    """The vLLM servers; all of one kind."""

    host: str = "127.0.0.1"
    port: int = 8701  # 0: any free port
    url: str = ""  # engines that run already, separated by commas; empty: start our own
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    max_model_len: int = 1024
    max_num_seqs: int = 64
    max_loras: int = 6  # two versions a role
    max_lora_rank: int = 16
    kv_cache_gib: float = 0.5  # CPU engine
    threads: int = 1  # CPU engine
    gpu_memory_utilization: float = 0.5
    start_seconds: float = 300.0
    request_seconds: float = 120.0


class SamplingConfig(_Section, frozen=True, kw_only=True):
    temperature: float = 1.0
    top_p: float = 1.0  # below 1 the ratio would measure the truncated mass: see off-policy docs
    max_tokens: int = 256


class ProposerConfig(_Section, frozen=True, kw_only=True):
    """Reward constants after MM-Zero, section on the proposer."""

    samples: Count = 4
    sampling: SamplingConfig = SamplingConfig(max_tokens=160)
    solvability_cap: float = 0.5
    low_difficulty: float = 0.15
    low_difficulty_penalty: float = 0.3
    type_share_limit: float = 0.5
    type_penalty: float = 0.15
    diversity_cap: float = 0.5
    diversity_threshold: float = 0.25
    diversity_scale: float = 0.5
    diversity_weights: tuple[float, float, float] = (0.45, 0.20, 0.35)
    memory_weight: float = 0.0  # times the largest BLEU with a caption of the steps before; 0: off
    memory_steps: Annotated[int, msgspec.Meta(ge=1, le=32)] = 5
    structure_weight: float = 0.0  # times the largest likeness with another's picture; 0: off
    unparseable: float = -1.0


class CoderConfig(_Section, frozen=True, kw_only=True):
    """Reward constants after MM-Zero, section on the coder."""

    samples: Count = 4
    sampling: SamplingConfig = SamplingConfig(max_tokens=256)
    rendered: float = 1.0
    not_rendered: float = -0.1
    no_code: float = -0.05
    not_svg: float = -0.5
    floor: float = -0.5
    drawing: DrawingKind = "svg"  # or plotting programs, run in a sandbox (docs/RENDERING.md)
    difficulty: Literal["min", "any"] = "min"  # min(c, 1 - c), or 1 if any answer exists


class SolverConfig(_Section, frozen=True, kw_only=True):
    """Reward constants after MM-Zero, section on the solver."""

    easy_samples: Count = 4
    hard_samples: Count = 8
    sampling: SamplingConfig = SamplingConfig(max_tokens=64)
    answer_weight: float = 0.9
    format_weight: float = 0.1
    consistency: Consistency = "asked"  # share of all samples, or of those that gave an answer


class RendererConfig(_Section, frozen=True, kw_only=True):
    engine: Literal["resvg-py", "svg2png-py"] = "resvg-py"  # the second: a faster build of resvg
    size: Annotated[int, msgspec.Meta(ge=8, le=4096)] = 96  # pixels, square
    children: int = 1
    wall_seconds: float = 5.0
    memory_mib: int = 512
    max_svg_kib: int = 64
    structure: bool = True  # what a drawing is made of stands in its event, in 128 bytes


class ProbeConfig(_Section, frozen=True, kw_only=True):
    """Answered questions that are asked again without their picture (projections/probes.py)."""

    share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0  # of the questions, easy and hard
    samples: Count = 4  # blind answers a question
    without: Literal["none", "other", "either"] = "either"  # no picture, another one, by lot
    penalty: Annotated[float, msgspec.Meta(ge=0)] = 0.0  # proposer's, times the blind agreement


class FilterConfig(_Section, frozen=True, kw_only=True):
    """Which complete groups are trained on; what fails is rejected with the reason."""

    coder_render_rate: tuple[float, float] = (0.25, 0.75)
    solver_easy_consistency: float = 0.5
    solver_hard_consistency: tuple[float, float] = (0.25, 0.75)
    solver_agreement: float = 0.0  # 1: the silver answer must be the proposer's own hard answer
    # Besides these, bounds on any fact that is recorded of the role's groups.
    proposer: tuple[FactBound, ...] = ()
    coder: tuple[FactBound, ...] = ()
    solver: tuple[FactBound, ...] = ()


class RoleLearning(_Section, frozen=True, kw_only=True):
    """How one role is trained."""

    groups: Count  # groups a step
    lr: float
    warmup_steps: Annotated[int, msgspec.Meta(ge=0)] = 0  # the rate grows linearly for so many
    train: bool = True


class LearnerConfig(WeightOptions, frozen=True, kw_only=True):
    """The optimiser, the loss and its off-policy correction (docs/LOSSES.md)."""

    proposer: RoleLearning = RoleLearning(groups=18, lr=1e-6)
    coder: RoleLearning = RoleLearning(groups=8, lr=1e-6)
    solver: RoleLearning = RoleLearning(groups=16, lr=1e-6)
    lora_rank: int = 16
    lora_alpha: int = 32
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.95)
    max_grad_norm: float = 1.0
    loss: LossName = "tis"  # token-level truncated importance sampling; TRL's loss_type and others
    is_cap: float = 2.0  # of "tis": cap C on pi / mu a token
    kl_coefficient: float = 0.0  # of "tis": k3 estimator against the base
    loss_options: LossOptions = LossOptions()  # of the others, under TRL's names
    num_iterations: Count = 1  # optimiser steps a window
    lr_by_ess: Annotated[float, msgspec.Meta(ge=0)] = 0.0  # VCPO's rho_0; 0: off
    scale_rewards: Literal["group", "batch", "none"] = "group"
    baseline: Literal["group", "leave_one_out"] = "group"  # "leave_one_out": RLOO
    mask_truncated_completions: bool = False  # cut-off samples count in the baseline alone
    micro_batch_tokens: int = 4096  # padded tokens a forward pass
    threads: int = 1
    device: Literal["cpu", "cuda"] = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the frozen base
    keep_checkpoints: int = 0  # 0: all; else the newest of each role
    # Steps of a role between two looks whether its pictures matter; 0: never. Also at start.
    canary_steps: Annotated[int, msgspec.Meta(ge=0)] = 20


class AdmissionConfig(_Section, frozen=True, kw_only=True):
    """Generation is paced, not discarded."""

    max_running_groups: int = 6  # proposer groups open at once
    eta: int = 4  # ready groups a role may have, in steps
    max_staleness: int = 8  # a group older than this is rejected as stale
    drain: bool = False  # a step waits until no prompt is open: synchronous, with eta = 0
    # A guard on eta, a role: halved when a step's samples were too far off, one more when calm.
    ess_floor: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0  # least ess_share; 0: off
    drift_ceiling: Annotated[float, msgspec.Meta(ge=0)] = 0.0  # of drift_kl_older_versions; 0: off
    calm_steps: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4  # between two changes


class WorkerConfig(_Section, frozen=True, kw_only=True):
    """How many pieces of work each process has in hand at once."""

    proposers: int = 1
    coders: int = 1
    renderers: int = 1
    solvers: int = 1
    proposer_in_flight: int = 2
    coder_in_flight: int = 4
    renderer_in_flight: int = 4
    solver_in_flight: int = 8


class EvalConfig(_Section, frozen=True, kw_only=True):
    scenes: int = 1000
    seed: int = 777
    sampled: bool = True  # also score sampling at the training temperature


class Config(_Section, frozen=True, kw_only=True):
    """The whole configuration; a section a room."""

    run: RunConfig = RunConfig()
    log: LogConfig = LogConfig()
    engine: EngineConfig = EngineConfig()
    proposer: ProposerConfig = ProposerConfig()
    coder: CoderConfig = CoderConfig()
    solver: SolverConfig = SolverConfig()
    renderer: RendererConfig = RendererConfig()
    shortcuts: ShortcutConfig = ShortcutConfig()
    probe: ProbeConfig = ProbeConfig()
    filters: FilterConfig = FilterConfig()
    learner: LearnerConfig = LearnerConfig()
    admission: AdmissionConfig = AdmissionConfig()
    schedule: ScheduleOptions = ScheduleOptions()
    workers: WorkerConfig = WorkerConfig()
    eval: EvalConfig = EvalConfig()
    logs: LogsOptions = LogsOptions()
    metrics: MetricsOptions = MetricsOptions()
    tracker: TrackerOptions = TrackerOptions()
    templates: str = "seedling"  # folder under roles/templates

    def to_json(self) -> str:
        return msgspec.json.encode(self, order="sorted").decode()

    def digest(self) -> str:
        """Sha-256 (16 hex digits) of the canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]


def from_json(text: str) -> Config:
    return msgspec.json.decode(text, type=Config)


def preset_names() -> list[str]:
    folder = resources.files("mmzero_async.presets")
    return sorted(
        p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml")
    )


def load(source: str = "seedling", overrides: Iterable[str] = ()) -> Config:
    """A preset's name or a TOML file's path, with `section.key=value` overrides on top.

    Raises ConfigError for a missing file, TOML syntax, an unknown key, a value of a wrong type or
    settings of the loss that contradict each other.
    """
    try:
        tree = tomllib.loads(_text(source))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration {source}: not valid TOML: {error}") from error
    return _checked(tree, overrides, str(source))


def overridden(config: Config, overrides: Iterable[str], name: str) -> Config:
    """The configuration with `section.key=value` on top, read as strictly as `load` reads a file;
    `name` says in errors which one it is."""
    return _checked(msgspec.to_builtins(config), overrides, name)


def differences(one: Config, other: Config) -> dict[str, tuple[Any, Any]]:
    """What two configurations say differently: section.key -> both values."""
    first, second = (_leaves(msgspec.to_builtins(config)) for config in (one, other))
    return {key: (first[key], second[key]) for key in first if first[key] != second[key]}


def _checked(tree: dict[str, Any], overrides: Iterable[str], name: str) -> Config:
    for override in overrides:
        _override(tree, override)
    if (place := _not_finite(tree, "$")) is not None:
        raise ConfigError(f"configuration {name}: a finite number is expected - at `{place}`")
    try:
        config = msgspec.convert(_over(msgspec.to_builtins(Config()), tree), Config)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"configuration {name}: {error}. Every key is documented in "
            "mmzero_async/presets/seedling.toml"
        ) from error
    it = config.learner
    why = contradiction(it.loss, it.loss_options, it.is_cap, it.kl_coefficient, it.num_iterations)
    filters = config.filters
    listed = {"proposer": filters.proposer, "coder": filters.coder, "solver": filters.solver}
    trained = {role: getattr(it, role).train for role in ROLES}
    why = why or unusable(listed) or impossible(config.schedule, trained)
    why = why or unservable(it, it.dtype, config.engine.url)
    why = why or unusable_pool(config.engine, config.engine.url)
    if why is not None:
        raise ConfigError(f"configuration {name}: {why}")
    return config


def _leaves(tree: dict[str, Any], place: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= _leaves(value, f"{place}{key}.")
        else:
            found[f"{place}{key}"] = value
    return found


def _text(source: str) -> str:
    if source in preset_names():  # whatever else bears that name in the current folder
        file = resources.files("mmzero_async.presets").joinpath(f"{source}.toml")
        return file.read_text(encoding="utf-8")
    path = Path(source)
    if path.suffix != ".toml" and not path.is_file():
        raise ConfigError(
            f"configuration {source!r}: neither a .toml file nor one of {preset_names()}"
        )
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"configuration {path}: no such file. Presets: {preset_names()}"
        ) from None
    except OSError as error:
        raise ConfigError(f"configuration {path}: not readable: {error}") from error


def _over(defaults: Any, tree: Any) -> Any:
    """The tree laid over the defaults: a key that it leaves out keeps its section's default."""
    if not (isinstance(defaults, dict) and isinstance(tree, dict)):
        return tree
    return defaults | {key: _over(defaults.get(key), value) for key, value in tree.items()}


def _not_finite(value: Any, place: str) -> str | None:
    """Where a number stands that JSON cannot say."""
    if isinstance(value, float) and not math.isfinite(value):
        return place
    named: Iterable[tuple[str, Any]] = ()
    if isinstance(value, dict):
        named = ((f"{place}.{key}", inner) for key, inner in value.items())
    elif isinstance(value, list):
        named = ((f"{place}[{i}]", inner) for i, inner in enumerate(value))
    found = (_not_finite(inner, where) for where, inner in named)
    return next((where for where in found if where is not None), None)


def _override(tree: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {override!r}: expected section.key=value")
    *sections, leaf = key.strip().split(".")
    value = value.strip()
    node = tree
    for section in sections:
        child = node.setdefault(section, {})
        if not isinstance(child, dict):
            raise ConfigError(f"override {override!r}: {section} is a value, not a section")
        node = child
    try:
        node[leaf] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        node[leaf] = value  # a bare word is a string
