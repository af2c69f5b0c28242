"""Which split a lineage belongs to: a function of its name alone, so that siblings stay together
and a log that grows moves nobody."""

import hashlib
from collections.abc import Sequence

from mmzero_async.ops.datasets.options import Split

_SCALE = 2.0**-64


def split_of(run: str, lineage: str, splits: Sequence[Split]) -> str:
    """The split of all that descends from a lineage's root (`g12`) of a run."""
    if len(splits) == 1:
        return splits[0].name
    digest = hashlib.blake2b(f"{run}\0{lineage}".encode(), digest_size=8).digest()
    place, upto = int.from_bytes(digest, "big") * _SCALE, 0.0
    for split in splits:
        upto += split.share
        if place < upto:
            return split.name
    return splits[-1].name  # the shares make 1 but for rounding
