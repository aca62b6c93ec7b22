"""The CSV files. Rows have one width, and are made when they are read: any range is cheap."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from functools import lru_cache

from attrs import field, frozen

from . import chance

_HEADER = b"user_id,email,last_seen,note\n"
_BLOCK_ROWS = 1000
# Placeholders in the template: for a file's own key, and for the number of a block of rows.
_KEY = b"!!!!!!!!!!!!"
_BLOCK = b"???????"
# Each is a case that a careless CSV reader gets wrong; all have one width in UTF-8.
_NOTES = (
    '"Pro plan, billed yearly   "',
    '"called it ""great"" twice "',
    '"Zoë, Malmö och Ærø    "',
    "first seen in store no 00012",
)


@lru_cache(maxsize=1)
def _template() -> bytes:
    """A block of rows, with placeholders."""
    return b"".join(_row(n) for n in range(_BLOCK_ROWS))


def _row(n: int) -> bytes:
    key, number = _KEY.decode(), f"{_BLOCK.decode()}{n:03d}"
    seen = f"2025-{n % 12 + 1:02d}-{n % 28 + 1:02d}T{n % 24:02d}:{n % 60:02d}:00.000Z"
    return f"{key}{number},user-{number}@{key}.example,{seen},{_NOTES[n % 4]}\n".encode()


_WIDTH = len(_row(0))


@frozen
class Content:
    """The bytes of one exported file."""

    rows: int
    key: bytes = field(repr=False)

    @classmethod
    def of(cls, seed: int, segment_id: str, attempt: int, rows: int, version: int = 0) -> Content:
        """The file of a segment's export. Its bytes depend on these arguments alone."""
        source = (seed, "file", segment_id, attempt, *((version,) if version else ()))
        return cls(rows, chance.digest(*source, size=6).hex().encode())

    @property
    def size(self) -> int:
        """The size, in bytes."""
        return len(_HEADER) + self.rows * _WIDTH

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` to before `stop`, in pieces of about 100 kB."""
        stop = self.size if stop is None else min(stop, self.size)
        if start < len(_HEADER):
            yield _HEADER[start:stop]
        body_start, body_stop = max(0, start - len(_HEADER)), stop - len(_HEADER)
        block_size = _BLOCK_ROWS * _WIDTH
        for number in range(body_start // block_size, -(-body_stop // block_size)):
            at = number * block_size
            yield self._block(number)[max(0, body_start - at) : body_stop - at]

    def etag(self) -> str:
        """The ETag that S3 gives to an object uploaded in one part: the quoted MD5."""
        return f'"{_hash("md5", self)}"'

    def sha256(self) -> str:
        """The SHA-256, in hexadecimal."""
        return _hash("sha256", self)

    def _block(self, number: int) -> bytes:
        return _template().replace(_KEY, self.key).replace(_BLOCK, b"%07d" % number)


@frozen
class Compressed:
    """The same file, stored gzip-encoded."""

    content: Content

    @property
    def size(self) -> int:
        """The encoded size, in bytes."""
        return len(_gzip(self.content))

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The encoded bytes from `start` to before `stop`."""
        yield _gzip(self.content)[start:stop]

    def etag(self) -> str:
        """The quoted MD5 of the encoded bytes, which are the stored object."""
        return f'"{hashlib.md5(_gzip(self.content), usedforsecurity=False).hexdigest()}"'


@lru_cache(maxsize=16)
def _gzip(content: Content) -> bytes:
    return gzip.compress(b"".join(content.read()), mtime=0)


@lru_cache(maxsize=4096)
def _hash(algorithm: str, content: Content) -> str:
    running = hashlib.new(algorithm, usedforsecurity=False)
    for piece in content.read():
        running.update(piece)
    return running.hexdigest()
