"""A body that is stored gzip-encoded, decoded in steps that its expansion can't outgrow.

httpx would inflate 261 KB into chunks of 67 MB, and take half a body for a whole one. Here a step
gives at most 1 MiB, and the end is where the trailer is, whose checksum zlib compares.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Callable

#: Largest piece that comes out of one step, in bytes.
STEP = 1024 * 1024

#: Bytes of a member that zlib is given at first and at most. It copies what is behind a member's
#: end: of a whole batch, once for each of its members, which may have 20 bytes.
_FIRST_BITE = 4 * 1024
_LARGEST_BITE = 256 * 1024

#: Bytes of gzip that nothing may come out of: empty members and blocks may follow without end.
_BARREN = 1024 * 1024

#: zlib: a gzip header and trailer, and the largest window.
_GZIP = 16 + zlib.MAX_WBITS


class NotGzip(Exception):
    """The body isn't gzip, is cut off, or goes on behind its end."""


class GzipDecoder:
    """Decodes the members of a gzip file (RFC 1952: it may have several), fed in any pieces."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP)
        self._input = memoryview(b"")
        self._bite = _FIRST_BITE
        self._begun = False
        self._barren = 0

    def feed(self, data: bytes) -> None:
        """Give it more, once :meth:`read` has nothing left."""
        self._input = memoryview(bytes(self._input) + data)

    def read(self) -> bytes:
        """The next piece, of at most 1 MiB; empty: feed it.

        Raises:
            NotGzip: what was fed isn't gzip.
        """
        while self._input:
            if self._member.eof:
                self._member = zlib.decompressobj(_GZIP)
                self._bite = _FIRST_BITE
            self._begun = True
            bite = self._input[: self._bite]
            piece = self._decompressed(bite)
            left = len(self._member.unused_data or self._member.unconsumed_tail)
            self._input = self._input[len(bite) - left :]
            self._bite = min(2 * self._bite, _LARGEST_BITE)
            if piece:
                self._barren = 0
                return piece
            self._barren += len(bite) - left
            if self._barren > _BARREN:
                raise NotGzip("the stored gzip goes on, and nothing comes out of it")
        if not self._begun or self._member.eof:
            return b""
        # What zlib holds back when its last piece was as long as it might be.
        return self._decompressed(b"")

    def _decompressed(self, data: bytes | memoryview) -> bytes:
        try:
            return self._member.decompress(data, STEP)
        except zlib.error as exc:
            raise NotGzip(f"the stored gzip can't be decoded: {exc}") from None

    def end(self) -> None:
        """Nothing more comes.

        Raises:
            NotGzip: the trailer is missing.
        """
        if not self._member.eof:
            raise NotGzip("the stored gzip is cut off")


class DecodedChunks:
    """The chunks of a gzip-encoded body, decoded.

    Args:
        encoded: the body as served.
        broken: the error that a broken link has, made of a message.
    """

    def __init__(self, encoded: AsyncIterator[bytes], broken: Callable[[str], Exception]) -> None:
        self._encoded = encoded
        self._broken = broken
        self._decoder = GzipDecoder()

    def __aiter__(self) -> DecodedChunks:
        return self

    async def __anext__(self) -> bytes:
        try:
            while not (piece := self._decoder.read()):
                try:
                    self._decoder.feed(await self._encoded.__anext__())
                except StopAsyncIteration:
                    self._decoder.end()
                    raise
        except NotGzip as exc:
            raise self._broken(str(exc)) from None
        return piece
