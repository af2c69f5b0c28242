"""Arrays as bytes: token ids as little-endian int32, log-probabilities as little-endian float32.

Four bytes a value whatever its size, and `numpy.frombuffer` reads them without a copy.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

TOKEN_DTYPE = np.dtype("<i4")
_TOKENS = np.iinfo(TOKEN_DTYPE)
LOGPROB_DTYPE = np.dtype("<f4")


def pack_tokens(token_ids: Sequence[int]) -> bytes:
    """Token ids [T] as int32 little-endian bytes. OverflowError for an id that does not fit,
    TypeError for what is no whole number."""
    ids = np.asarray(token_ids)
    if ids.size and ids.dtype.kind not in "iu":
        if ids.dtype.kind == "O":
            raise OverflowError("a token id does not fit into 64 bits")
        raise TypeError(f"token ids must be whole numbers, not {ids.dtype}")
    if ids.size and (int(ids.min()) < _TOKENS.min or int(ids.max()) > _TOKENS.max):
        raise OverflowError("a token id does not fit into int32")
    return ids.astype(TOKEN_DTYPE).tobytes()


def unpack_tokens(packed: bytes) -> npt.NDArray[np.int32]:
    """The inverse of `pack_tokens`: a read-only int32 view [T] of the bytes."""
    return np.frombuffer(packed, dtype=TOKEN_DTYPE)


def pack_logprobs(logprobs: Sequence[float]) -> bytes:
    """Natural-log probabilities [T] as float32 little-endian bytes."""
    return np.asarray(logprobs, dtype=LOGPROB_DTYPE).tobytes()


def unpack_logprobs(packed: bytes) -> npt.NDArray[np.float32]:
    """The inverse of `pack_logprobs`: a read-only float32 view [T] of the bytes."""
    return np.frombuffer(packed, dtype=LOGPROB_DTYPE)
