"""`mmzero replay --what-if` and `--train`: a finished log under other settings.

Figures for programs, lines for people; what is trained and how is the learner's.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmzero_async.config import Config, ConfigError, differences
from mmzero_async.log.reader import LogReader
from mmzero_async.schemas.events import Role

HIDDEN = ("lr", "kl")  # of the figures that stand side by side


def figures(
    folder: Path, reader: LogReader, role: Role, step: int, overrides: Sequence[str]
) -> dict[str, Any]:
    """One step as committed and under the overrides, by name."""
    from mmzero_async.learner.what_if import IN, what_if  # seconds of torch, which others need not

    found = what_if(folder, base_of(folder), reader, role, step, overrides)
    fates = found.fates
    sides = {
        name: {
            **taken.result.metrics,
            "batch_digest": taken.result.batch_digest,
            "weights_digest": taken.digest,
        }
        for name, taken in (("committed", found.committed), ("other", found.other))
    }
    return {
        "role": role,
        "step": step,
        "settings": settings(found.moment.config, found.other_config),
        **sides,
        "same_bits_as_committed": found.same_bits,
        "groups": len(found.moment.chosen),
        "groups_with_other_advantages": found.rescored,
        "groups_without_gradient": found.left_out,
        "window": {
            "considered": len(fates),
            "would_be_in": {f.group: f.committed for f in fates if f.other == IN != f.committed},
            "would_be_out": {f.group: f.other for f in fates if f.committed == IN != f.other},
        },
    }


def settings(config: Config, other: Config) -> dict[str, list[Any]]:
    """section.key -> the run's value and the other one."""
    return {key: list(values) for key, values in differences(config, other).items()}


def lines(found: dict[str, Any]) -> list[str]:
    committed, other = found["committed"], found["other"]
    window = found["window"]
    bits = "the same bits" if found["same_bits_as_committed"] else "not the same bits here"
    text = [
        f"{found['role']} step {found['step']}, {found['groups']} groups; taken again as "
        f"committed: {bits}",
        *(f"  {key} = {b!r} instead of {a!r}" for key, (a, b) in found["settings"].items()),
        f"{'figure':32} {'committed':>20} {'other':>20}",
    ]
    for name in dict.fromkeys([*committed, *other]):
        pair = [committed.get(name), other.get(name)]
        if name not in HIDDEN:
            text.append(f"{name:32} {_shown(pair[0]):>20} {_shown(pair[1]):>20}")
    text.append(
        f"{found['groups_with_other_advantages']} of {found['groups']} groups have other advantages"
    )
    for group, why in found["groups_without_gradient"].items():
        text.append(f"  {group} is left out: {why}")
    text.append(
        f"of {window['considered']} groups that were there, other filters would have put "
        f"{len(window['would_be_in'])} more into the window and left {len(window['would_be_out'])} "
        "out of it"
    )
    text += [f"  in:  {group} (was {was})" for group, was in window["would_be_in"].items()]
    text += [f"  out: {group} ({why})" for group, why in window["would_be_out"].items()]
    return text


def _shown(value: float | str | None) -> str:
    if value is None:
        return "-"
    return value[:16] if isinstance(value, str) else f"{value:.6g}"


def retrained(
    folder: Path, reader: LogReader, out: Path | None, overrides: Sequence[str], steps: int
) -> Iterator[dict[str, Any]]:
    """A step of the run after the other, as it comes out again or under the overrides."""
    from mmzero_async.learner.offline import config_of, retrain
    from mmzero_async.learner.settings import other_settings

    own = config_of(reader)
    config = other_settings(own, overrides)
    with _folder(out) as target:
        (target / "config.json").write_text(config.to_json())
        for retaken in retrain(folder, base_of(folder), reader, target, config, steps):
            committed, result = retaken.committed, retaken.result
            yield {
                "role": committed.role,
                "step": committed.step,
                "groups": len(retaken.groups),
                "metrics": result.metrics if result else {},
                "committed_metrics": committed.metrics,
                "weights_digest": retaken.digest,
                "why_not": retaken.why_not,
                "same": retaken.same,
                "differing_settings": len(differences(own, config)),
            }


def retrained_line(found: dict[str, Any]) -> str:
    head = f"{found['role']:9} step {found['step']:4}"
    if found["why_not"]:
        return f"{head}  not taken: {found['why_not']}"
    now, was = found["metrics"], found["committed_metrics"]
    shown = "  ".join(
        f"{name} {now[key]:.5g}"
        + (f" ({was[key]:.5g})" if not found["same"] and key in was else "")
        for name, key in (
            ("loss", "loss"),
            ("gradient", "grad_norm"),
            ("reward", "reward_mean"),
            ("ess", "ess_share"),
        )
    )
    same = "same bits" if found["same"] else "OTHER"
    return f"{head}  {shown}  {found['weights_digest'][:12]}  {same}"


@contextlib.contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    """Where versions go: an empty folder, or one that is gone afterwards."""
    if out is None:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out}: not an empty folder; versions of two trainings would mix")
    out.mkdir(parents=True, exist_ok=True)
    yield out


def base_of(folder: Path) -> Path:
    """The run's base model."""
    return Path((folder / "base_model").read_text().strip())
