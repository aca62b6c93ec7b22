"""Random draws that depend on their labels alone: each process draws the same."""

from __future__ import annotations

from hashlib import blake2b
from statistics import NormalDist
from uuid import UUID

_NORMAL = NormalDist()


def digest(*labels: object, size: int = 16) -> bytes:
    """`size` bytes drawn from the labels."""
    return blake2b("\x1f".join(map(str, labels)).encode(), digest_size=size).digest()


def uniform(*labels: object) -> float:
    """A number in [0, 1) drawn from the labels."""
    return (int.from_bytes(digest(*labels, size=8), "big") >> 11) / 2**53


def uuid(*labels: object) -> str:
    """A random-looking UUID drawn from the labels."""
    return str(UUID(bytes=digest(*labels), version=4))


def normal(u: float) -> float:
    """The standard normal value below which the share `u` lies."""
    return _NORMAL.inv_cdf(min(max(u, 1e-12), 1 - 1e-12))
