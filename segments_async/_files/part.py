"""One file on its way: written and hashed as a `.part` beside its target, then renamed.

Synchronous, for worker threads: hashing and writing release the GIL and must not hold the loop.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path


def part_of(target: Path) -> Path:
    """Where a file is while it is on its way."""
    return target.with_name(target.name + ".part")


class PartFile:
    """A file that appears under its name only when it is whole.

    Its methods are called one at a time, each in a worker thread.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._part = part_of(target)
        self._descriptor: int | None = None
        self._digest = hashlib.sha256()

    @property
    def is_open(self) -> bool:
        """Whether there is something to discard."""
        return self._descriptor is not None

    def write(self, chunks: Sequence[bytes]) -> None:
        """Append the chunks."""
        descriptor = self._open()
        for chunk in chunks:
            self._digest.update(chunk)
            write_all(descriptor, chunk)

    def finish(self, chunks: Sequence[bytes]) -> str:
        """Append the last chunks, make all durable, put the file in place. Returns its sha256."""
        self.write(chunks)
        os.fsync(self._open())
        self._part.replace(self._target)
        self._close()
        _sync_directory(self._target.parent)
        return self._digest.hexdigest()

    def discard(self) -> None:
        """Remove what was written. A part that another process left is not this one's to remove."""
        if self._descriptor is None:
            return
        # While the lock is held: afterwards the part may be another download's.
        with contextlib.suppress(FileNotFoundError):
            self._part.unlink()
        self._close()

    def _open(self) -> int:
        if self._descriptor is None:
            self._descriptor = _open_alone(self._part)
        return self._descriptor

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _open_alone(part: Path) -> int:
    """Open the part empty, for this download alone.

    Two that write one part would mix their bytes under one name. The lock ends with the
    descriptor, and so with the process. A symbolic link in the part's place is refused.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        descriptor = os.open(part, flags, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, part):
                os.ftruncate(descriptor, 0)
                return descriptor
            # Renamed or removed by its last owner between the two calls: open the next one.
            os.close(descriptor)
        except BaseException as exc:
            os.close(descriptor)
            if isinstance(exc, BlockingIOError):
                raise OSError(exc.errno, "another download is writing this file") from exc
            raise


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def write_all(descriptor: int, chunk: bytes) -> None:
    """os.write may write less than it was given, on a full disk or a network file system."""
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_directory(directory: Path) -> None:
    """Make the rename durable (POSIX promises it only once the directory itself is synced)."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
