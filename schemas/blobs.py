"""Blobs (pictures) are named by their content: blake2b-256 in hex, stored once."""

import hashlib


def blob_digest(data: bytes | memoryview) -> str:
    return hashlib.blake2b(data, digest_size=32).hexdigest()
