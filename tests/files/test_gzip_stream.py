"""The decoder of gzip-encoded bodies, with bodies that a hostile server might store."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import pytest

from segments_async._files import gzip_stream
from segments_async._files.gzip_stream import STEP, GzipDecoder

EMPTY_MEMBER = gzip.compress(b"", mtime=0)


def decoded(data: bytes) -> list[bytes]:
    decoder = GzipDecoder()
    decoder.feed(data)
    pieces = []
    while piece := decoder.read():
        pieces.append(piece)
    decoder.end()
    return pieces


@pytest.mark.parametrize("size", [0, 1, STEP - 1, STEP, STEP + 1, 5 * STEP])
def test_steps_are_bounded(size: int) -> None:
    """For any size, all bytes are decoded, and no piece is larger than a step."""
    pieces = decoded(gzip.compress(bytes(size)))
    assert b"".join(pieces) == bytes(size)
    assert max(map(len, pieces), default=0) <= STEP


class Recorder:
    """Counts the input behind a member, which zlib copies."""

    def __init__(self) -> None:
        self.copied = 0
        self._make: Any = zlib.decompressobj

    def __call__(self, wbits: int) -> Recorder:
        self._member = self._make(wbits)
        return self

    def decompress(self, data: bytes, most: int) -> bytes:
        out: bytes = self._member.decompress(data, most)
        self.copied += len(self._member.unused_data)
        return out

    def __getattr__(self, name: str) -> Any:
        return getattr(self._member, name)


def test_many_small_members_take_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of empty members are decoded without copying the rest of the input for each."""
    recorder = Recorder()
    monkeypatch.setattr(gzip_stream.zlib, "decompressobj", recorder)
    assert decoded(EMPTY_MEMBER * 5_000 + gzip.compress(b"a\n")) == [b"a\n"]
    assert recorder.copied < 5_001 * 4 * 1024


def test_zeros_behind_small_members_take_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Padding is skipped without a copy of the rest of the input for each member."""
    copied = list[int]()

    def noted(view: memoryview) -> bytes:
        copied.append(len(view))
        return bytes(view)

    monkeypatch.setattr(gzip_stream, "bytes", noted, raising=False)
    data = (gzip.compress(b"a\n") + b"\0\0") * 5_000
    assert b"".join(decoded(data)) == b"a\n" * 5_000
    assert sum(copied) <= len(data)
