"""The open file of a part: locked for one download, and watched for writes by others."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from segments_async._filesystem.disk import (
    NoLocks,
    close_locked,
    is_at,
    sync_file,
    try_lock,
    write_all_at,
)
from segments_async._filesystem.trust import open_regular

#: Bytes read from the disk at once.
BLOCK = 1024 * 1024


class PartModified(Exception):
    """Another process has written to the part, or emptied it."""


class PartBusy(OSError):
    """Another download has locked the part."""


class LockedPart:
    """A part's file. Its lock ends with the descriptor, and so with the process.

    Attributes:
        modified: whether the part's modification time has changed since our last write, and its
            size hasn't. Another process may have written to the part then, so its bytes have to be
            compared (:meth:`compare`).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._stamp: _Stamp | None = None
        self.modified = False

    @property
    def is_open(self) -> bool:
        return self._descriptor is not None

    @property
    def descriptor(self) -> int:
        if self._descriptor is None:
            raise ValueError("the part is closed")
        return self._descriptor

    def open(self) -> os.stat_result:
        """Open the existing part, or a new one.

        Raises:
            PartBusy: another download has locked it.
        """
        self._descriptor = _open_locked(self._path)
        return os.fstat(self._descriptor)

    def replace(self) -> None:
        """Put a new file in the part's place. The present file there is never written to."""
        self._stamp, self.modified = None, False
        before, self._descriptor = self._descriptor, _open_new(self._path)
        if before is not None:
            close_locked(before)

    def write_again(self, size: int) -> None:
        """Write the first `size` bytes into a new file, from the descriptor that is still open."""
        before, self._descriptor = self.descriptor, None
        try:
            self._descriptor = _open_new(self._path)
            for offset in range(0, size, BLOCK):
                write_all_at(self._descriptor, os.pread(before, BLOCK, offset), offset)
        finally:
            close_locked(before)
        self.remember()

    def write(self, offset: int, data: bytes | memoryview) -> None:
        write_all_at(self.descriptor, data, offset)
        self.remember()

    def read(self, size: int, offset: int) -> bytes:
        """Read at least one byte, and at most `size`."""
        block = os.pread(self.descriptor, size, offset)
        if not block:
            raise OSError(None, "the part is shorter than what was written of it")
        return block

    def sync(self) -> None:
        sync_file(self.descriptor)

    def is_in_place(self, path: Path | None = None) -> bool:
        """Whether this file has the part's name, or the name of another path."""
        return is_at(self.descriptor, path or self._path)

    def remember(self) -> None:
        """Take the file's size and modification time for those of our own last write."""
        self._stamp = _Stamp.of(self.descriptor)

    def check_unmodified(self) -> None:
        """Compare the file with our last write; sets `modified` where its bytes may differ.

        Raises:
            PartModified: the part has another size.
        """
        now, then = _Stamp.of(self.descriptor), self._stamp
        if then is None or now == then:
            return
        if now.size != then.size:
            raise PartModified("another process has written to the part, or emptied it")
        self.modified = True

    def compare(self, size: int, sha256: str) -> None:
        """Read the first `size` bytes and compare their hash.

        Raises:
            PartModified: they have another hash.
        """
        on_disk = hashlib.sha256()
        for offset in range(0, size, BLOCK):
            on_disk.update(os.pread(self.descriptor, BLOCK, offset))
        if on_disk.hexdigest() != sha256:
            raise PartModified("another process has written to the part")
        self.modified = False
        self.remember()

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            close_locked(descriptor)


class _Stamp(NamedTuple):
    """A file's size and modification time, which each write changes."""

    size: int
    modified: int

    @classmethod
    def of(cls, descriptor: int) -> _Stamp:
        found = os.fstat(descriptor)
        return cls(found.st_size, found.st_mtime_ns)


def _open_locked(part: Path) -> int:
    """Open and lock the part: two downloads that write one part would each do the other's work."""
    while True:
        descriptor = open_regular(part, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor)
            if is_at(descriptor, part):
                return descriptor
        except BaseException:
            close_locked(descriptor)
            raise
        # Its last owner renamed or removed the file between the two calls: open the next one.
        close_locked(descriptor)


def _open_new(part: Path) -> int:
    """Remove the file of the part's name, and create and lock a new one."""
    while True:
        part.unlink(missing_ok=True)
        try:
            descriptor = open_regular(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            continue  # another download was faster; its part is still empty
        try:
            _lock(descriptor)
        except PartBusy:
            # Another download opened this file just now, and has locked it while it is empty.
            close_locked(descriptor)
        except BaseException:
            close_locked(descriptor)
            raise
        else:
            return descriptor


def _lock(descriptor: int) -> None:
    # On a mount without locks two downloads may write two parts; each puts its own whole file in
    # place.
    with contextlib.suppress(NoLocks):
        if not try_lock(descriptor):
            raise PartBusy(errno.EAGAIN, "another download is writing this file")
