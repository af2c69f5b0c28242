"""What is asked of an export, checked before anything is read."""

from dataclasses import dataclass
from typing import Literal, get_args

from mmzero_async.log.where import ANYTHING, Where, parse_where
from mmzero_async.schemas.events import Role

Kind = Literal["solver", "coder", "proposer", "preference", "sft", "trajectories"]
Format = Literal["parquet", "webdataset"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FORMATS: tuple[Format, ...] = get_args(Format)
SHARD_BYTES = 256 << 20  # of values a file; the file may be smaller
_DEFAULT_NAMES = {1: ("train",), 2: ("train", "test"), 3: ("train", "validation", "test")}


class DatasetError(ValueError):
    """An export that cannot be made, or a dataset that is not what was written."""


@dataclass(frozen=True, slots=True)
class Split:
    name: str
    share: float  # of the lineages


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Everything but the logs themselves that decides about a dataset's bytes."""

    kind: Kind = "solver"
    format: Format = "parquet"
    where: Where = ANYTHING
    splits: tuple[Split, ...] = (Split("train", 1.0),)
    deduplicate: bool = True
    shard_bytes: int = SHARD_BYTES

    @property
    def roles(self) -> tuple[Role, ...]:
        """Whose groups become rows."""
        if self.kind in ("proposer", "coder", "solver"):
            return (self.kind,)
        asked = self.where.roles
        roles: tuple[Role, ...] = ("proposer", "coder", "solver")
        return tuple(role for role in roles if not asked or role in asked)


def options(
    kind: str = "solver",
    form: str = "parquet",
    where: str = "",
    split: str = "",
    *,
    deduplicate: bool = True,
    shard_mb: float = SHARD_BYTES / 1e6,
) -> Options:
    """Options from the command line's words. DatasetError, WhereError."""
    found_kind = next((k for k in KINDS if k == kind), None)
    if found_kind is None:
        raise DatasetError(f"--kind {kind!r}: choose one of {', '.join(KINDS)}")
    found_form = next((f for f in FORMATS if f == form), None)
    if found_form is None:
        raise DatasetError(f"--format {form!r}: choose one of {', '.join(FORMATS)}")
    if not shard_mb > 0:
        raise DatasetError(f"--shard-mb {shard_mb}: a size above 0 is needed")
    made = Options(
        kind=found_kind,
        format=found_form,
        where=parse_where(where),
        splits=parse_splits(split),
        # Trajectories are the record of what happened: nothing in it is said twice.
        deduplicate=deduplicate and found_kind != "trajectories",
        shard_bytes=round(shard_mb * 1e6),
    )
    if not made.roles or (made.where.roles and not set(made.roles) & set(made.where.roles)):
        asked = ",".join(made.where.roles)
        raise DatasetError(f"--kind {kind} has no rows of role={asked}: ask for another kind")
    return made


def parse_splits(text: str) -> tuple[Split, ...]:
    """`0.9/0.1` or `train=0.8/dev=0.1/test=0.1`; shares of the lineages that make 1."""
    if not text:
        return (Split("train", 1.0),)
    named = [part.rpartition("=") for part in text.split("/")]
    names = tuple(name.strip() for name, _, _ in named)
    if not any(names):
        names = _DEFAULT_NAMES.get(len(named), ())
    try:
        shares = [float(share) for _, _, share in named]
    except ValueError:
        shares = []
    if (
        len(shares) != len(names)
        or not all(name.isidentifier() for name in names)
        or len(set(names)) != len(names)
        or not all(0.0 < share <= 1.0 for share in shares)
        or abs(sum(shares) - 1.0) > 1e-9
    ):
        raise DatasetError(
            f"--split {text!r}: write shares that make 1, such as 0.9/0.1 (train, test), "
            "0.8/0.1/0.1 (train, validation, test) or train=0.7/mine=0.3"
        )
    return tuple(Split(name, share) for name, share in zip(names, shares, strict=True))
