"""Whether a SQLite write-ahead log lost what it had made durable.

SQLite takes a log up to its first frame that doesn't check, and says nothing of the rest: right
for a write that a crash cut off, which nobody was told had happened. But a byte that flipped in the
middle would silently undo what came after it, an INTENT perhaps, and a POST would go twice.

With `synchronous = FULL` a transaction is synced before the next one's first frame is written. So
frames that follow a whole commit prove that everything before them was durable.
(The format: sqlite.org/fileformat2.html, section 4.)
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import attrs

_HEADER = 32
_FRAME_HEADER = 24
_MAGIC = {0x377F0682: "<", 0x377F0683: ">"}  # by the byte order of the checksums


@attrs.frozen
class _Frame:
    """What a frame says of itself."""

    ours: bool  # written since the log last began anew
    commits: bool
    whole: bool


def lost_commits(path: Path) -> bool:
    """Whether frames that were durable can't be read any more. False where there is no log.

    Of the last commit, or the last two, it can't be told from a write that was cut off.
    """
    try:
        with path.open("rb") as log:
            while True:
                header = log.read(_HEADER)
                found = _lost(header, log)
                # Another process may begin the log anew meanwhile: its header changes first.
                log.seek(0)
                if log.read(_HEADER) == header:
                    return found
                log.seek(0)
    except FileNotFoundError:
        return False


def _lost(header: bytes, log: BinaryIO) -> bool:
    frames = _frames(header, log)
    if frames is None:
        return len(log.read(_FRAME_HEADER)) == _FRAME_HEADER  # the header was synced before it
    broken = next((n for n, frame in enumerate(frames) if not frame.whole), len(frames))
    rest = [frame for frame in frames[broken:] if frame.ours]
    return any(frame.commits for frame in rest[:-1])


def _frames(header: bytes, log: BinaryIO) -> list[_Frame] | None:
    """The frames in order; None where the header doesn't check."""
    if len(header) < _HEADER:
        return []
    magic, _, page_size, _, *salts, sum_1, sum_2 = struct.unpack(">8I", header)
    order = _MAGIC.get(magic)
    if order is None or _checksum(order, header[:24], (0, 0)) != (sum_1, sum_2):
        return None
    sums: tuple[int, int] | None = (sum_1, sum_2)
    frames: list[_Frame] = []
    while len(frame := log.read(_FRAME_HEADER + page_size)) == _FRAME_HEADER + page_size:
        _, size_after, *frame_salts, sum_1, sum_2 = struct.unpack(">6I", frame[:_FRAME_HEADER])
        ours = frame_salts == salts
        if ours and sums is not None:
            sums = _checksum(order, frame[:8] + frame[_FRAME_HEADER:], sums)
        if not ours or sums != (sum_1, sum_2):
            sums = None  # each sum goes on from the last: none can be checked after this one
        frames.append(_Frame(ours, size_after != 0, sums is not None))
    return frames


def _checksum(order: str, data: bytes, sums: tuple[int, int]) -> tuple[int, int]:
    first, second = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second
