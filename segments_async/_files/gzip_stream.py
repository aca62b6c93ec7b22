"""A stored file that is gzip-encoded: decoded whole, in steps of at most 1 MiB.

httpx's decoder would inflate 261 KB to 67 MB in one step, and accept a body cut in half. zlib
limits the output of a call, and compares the checksum in the trailer of each gzip member.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import AsyncIterator

from segments_async._files.digest import md5
from segments_async._files.part import SLICE, ChecksumMismatch, PartFile
from segments_async._http.storage_body import StorageBroken

#: Bytes: largest output of one step; input without output (empty members) after which it ends.
STEP = 1024 * 1024

#: Input of one step, in bytes, at a member's start and at most. zlib copies the input behind a
#: member's end: that of a whole batch for each of its members, which may have 20 bytes.
_FIRST_INPUT, _LARGEST_INPUT = 4 * 1024, 256 * 1024

_ZEROS = re.compile(rb"\0*")


class NotGzip(StorageBroken):
    """The body isn't gzip, is cut off, or continues without output."""


class GzipDecoder:
    """Decodes the members of a gzip file (RFC 1952 allows several)."""

    def __init__(self, expected_md5: str | None = None) -> None:
        self._expected_md5, self._md5 = expected_md5, md5()
        self._input = memoryview(b"")
        self._without_output = 0
        self._start_member()

    def _start_member(self) -> None:
        self._member = zlib.decompressobj(16 + zlib.MAX_WBITS)  # 16: gzip's header and trailer
        self._take = _FIRST_INPUT

    def feed(self, data: bytes) -> None:
        """Add input, once :meth:`read` has returned nothing."""
        if self._expected_md5 is not None and self._md5 is not None:
            self._md5.update(data)
        self._input = memoryview(bytes(self._input) + data)

    def read(self) -> bytes:
        """The next output, at most 1 MiB; empty if more input is needed. Raises NotGzip."""
        while True:
            if self._member.eof:
                self._skip_padding()
                if self._input:
                    self._start_member()
            piece = self._input[: self._take]
            try:
                # Also without input: after a step of `STEP` bytes, zlib may hold more output back.
                output = self._member.decompress(piece, STEP)
            except zlib.error as exc:
                raise NotGzip(f"the stored gzip can't be decoded: {exc}") from None
            if piece:
                used = len(piece) - len(self._member.unused_data or self._member.unconsumed_tail)
                self._input = self._input[used:]
                self._take = min(2 * self._take, _LARGEST_INPUT)
                self._without_output = 0 if output else self._without_output + used
            if output or not piece:
                return output
            if self._without_output > STEP:
                raise NotGzip("1 MiB of the stored gzip had no output")

    def _skip_padding(self) -> None:
        """Skip zeros behind a member, as gzip does: some archives fill up their last block."""
        padding = _ZEROS.match(self._input)  # without a copy, which each member would cost
        assert padding is not None
        self._input = self._input[padding.end() :]

    def end(self) -> None:
        """Raises NotGzip without the last trailer, ChecksumMismatch with another MD5."""
        if not self._member.eof:
            raise NotGzip("the stored gzip is cut off")
        if self._md5 is not None and self._expected_md5 not in (None, self._md5.hexdigest()):
            raise ChecksumMismatch("the bytes have another MD5 than storage announced")

    def write_some(self, part: PartFile, offset: int) -> int:
        """Write `SLICE` bytes at most, for which a cancellation can wait. Returns the offset."""
        for _ in range(SLICE // STEP):
            if not (piece := self.read()):
                break
            part.write(offset, piece)
            offset += len(piece)
        if part.wants_sync:
            part.sync()
        return offset


class DecodedChunks:
    """The decoded chunks of a body."""

    def __init__(self, encoded: AsyncIterator[bytes]) -> None:
        self._encoded, self._decoder = encoded, GzipDecoder()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not (piece := self._decoder.read()):
            if (chunk := await anext(self._encoded, None)) is None:
                self._decoder.end()
                raise StopAsyncIteration
            self._decoder.feed(chunk)
        return piece
