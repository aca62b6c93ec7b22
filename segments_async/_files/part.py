"""One file on its way: written and hashed as a `.part` beside its target, then renamed.

Synchronous, for worker threads: hashing and writing release the GIL and must not hold the loop.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import math
import os
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple, Protocol

from segments_async._sansio import sidecar
from segments_async._sansio.byte_ranges import Stored
from segments_async._sansio.claims import Ranges, prefix_of, with_range
from segments_async._trust import open_regular

#: Bytes hashed from the disk in one go: little enough that a cancellation needn't wait for it.
SLICE = 32 * 1024 * 1024

#: Bytes written after which it is time for `sync`.
UNSYNCED = 128 * 1024 * 1024

#: Bytes that are hashed in a thread of their own while they are written. Fewer take less time than
#: the two threads need to meet.
BESIDE = 1024 * 1024

_BLOCK = 1024 * 1024

#: Seconds of a download that a kill -9 may cost. Whatever else ends it, nothing is lost.
NOTED_EVERY = 0.2


#: What is written: bytes of one's own, or memory that is used again afterwards.
Bytes = bytes | memoryview


class ChecksumMismatch(Exception):
    """The bytes aren't those whose MD5 storage told."""


class Digest(Protocol):
    """A running hash."""

    def update(self, data: Bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


class ExportedBytes(NamedTuple):
    """What was put in place."""

    size: int
    sha256: str


def part_of(target: Path) -> Path:
    """Where a file is while it is on its way."""
    return target.with_name(target.name + ".part")


def sidecar_of(target: Path) -> Path:
    """Where it is noted of what the part is one."""
    return target.with_name(target.name + ".part.json")


class PartFile:
    """A file that appears under its name only when it is whole.

    Its methods are for worker threads, and may be called by several at once: one waits for the
    other, so that a descriptor is never closed under a thread that a cancelled task left behind.
    Only `sync` lets the others write on.

    Attributes:
        stored: the version it is a part of; None before anything is known.
        held: the bytes of it that are there.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._part = part_of(target)
        self._sidecar = sidecar_of(target)
        self._lock = threading.Lock()
        self._syncing = threading.Lock()
        self._descriptor: int | None = None
        self._note: int | None = None
        self._left = False
        self._export_id = ""
        self._hashed = 0
        self._hasher: ThreadPoolExecutor | None = None
        self._hashing: Future[None] | None = None
        self._unsynced = 0
        self._failed = False
        self._noted_at = -math.inf
        self._sha256 = hashlib.sha256()
        self._md5 = md5()
        self.stored: Stored | None = None
        self.held: Ranges = ()

    @property
    def is_finished(self) -> bool:
        """Whether the file is in place, and nothing is left to be kept or discarded."""
        return self._left

    @property
    def resumable(self) -> bool:
        """Whether what is there can be continued."""
        return bool(self.held) and self.stored is not None and self.stored.resumable

    def is_whole(self, rest: Bytes) -> bool:
        """Whether everything is there, together with all of a small file."""
        held = with_range(self.held, 0, len(rest))
        total = self.stored.total if self.stored is not None and not self.stored.gzip else None
        return total is None or held == (((0, total),) if total else ())

    @property
    def wants_sync(self) -> bool:
        """Whether so much was written since the last `sync` that another one is worth its while."""
        return self._unsynced >= UNSYNCED

    def open(self, export_id: str) -> None:
        """Take the part for this download alone, with what an earlier one of the export left.

        Raises:
            OSError: another download has it, or it can't be written.
        """
        with self._lock:
            if self._left:
                return  # by a task that was cancelled before this thread began
            self._descriptor = _open_alone(self._part)
            self._export_id = export_id
            self._take_over(self._descriptor)

    def reset(self) -> None:
        """Forget what is there."""
        with self._lock:
            self._empty(self._opened())
            self._all_hashed()
            self._sha256, self._md5 = hashlib.sha256(), md5()
            self._hashed = self._unsynced = 0
            self.stored = None

    def write(self, offset: int, data: Bytes) -> None:
        """Write the bytes from `offset` on, hash them if it is their turn, and note them.

        They may still be hashed, by another thread, until the next call has returned: so long
        their memory isn't to be used for others.
        """
        with self._lock:
            self._write(offset, data)
            # A fast download would spend as much time on noting what it has as on writing it.
            now = time.monotonic()
            if self.resumable and now - self._noted_at >= NOTED_EVERY:
                self._noted_at = now
                self._write_note(synced=False)

    def sync(self) -> None:
        """Have what is written so far on the disk, so that `finish` finds little to wait for.

        Raises:
            OSError: it isn't there. The system says so once, so the part can't be trusted.
        """
        with self._syncing:
            self._unsynced = 0
            try:
                os.fsync(self._opened())
            except OSError:
                self._failed = True
                raise

    def hash_on(self) -> bool:
        """Hash some more of what is there from the beginning on. Returns whether that is all."""
        with self._lock:
            return self._hash_on(self._opened())

    def finish(self, rest: Bytes = b"") -> ExportedBytes:
        """Make all durable and put the file in place.

        Args:
            rest: all of a small file.

        Raises:
            ChecksumMismatch: these aren't the bytes that storage has. Nothing is put in place.
            OSError: it isn't on the disk, or the disk has failed before.
        """
        with self._syncing, self._lock:
            descriptor = self._opened()
            if self._failed:
                raise OSError(errno.EIO, "the disk has failed to take what was written")
            if rest:
                self._write(0, rest)
            while not self._hash_on(descriptor):
                pass
            self._all_hashed()
            self._check()
            os.fsync(descriptor)
            # First the sidecar: one without its part could be taken for another part's.
            self._remove_note()
            self._part.replace(self._target)
            self._left = True
            self._close()
            _sync_directory(self._target.parent)
            return ExportedBytes(self._hashed, self._sha256.hexdigest())

    def keep(self) -> None:
        """Leave what is there for a later download, durably; discard it where it is of no use."""
        with self._syncing, self._lock:
            self._left = True
            if self._descriptor is None:
                return
            if not self.resumable or self._failed:
                self._discard()
                return
            try:
                os.fsync(self._descriptor)
                self._write_note(synced=True)
            except OSError:
                self._discard()
            else:
                self._close()

    def discard(self) -> None:
        """Remove what was written. A part that another process left is not this one's to remove."""
        with self._syncing, self._lock:
            self._left = True
            if self._descriptor is not None:
                self._discard()

    def _discard(self) -> None:
        # While the file's lock is held: afterwards the part may be another download's. What can't
        # be removed (the disk is read-only now) the next download finds, and doesn't trust.
        with contextlib.suppress(OSError):
            self._sidecar.unlink(missing_ok=True)
            self._part.unlink(missing_ok=True)
        self._close()

    def _opened(self) -> int:
        if self._descriptor is None:
            raise ValueError("the part is closed")
        return self._descriptor

    def _take_over(self, descriptor: int) -> None:
        """Go on with what is there, if it is of this export and there for sure."""
        left = _read_note(self._sidecar)
        size = os.fstat(descriptor).st_size
        if (
            left is not None
            and left.export_id == self._export_id
            and left.trusted(_boot_id())
            and left.held
            and size >= left.held[-1][1]
        ):
            self.stored, self.held = left.stored, left.held
        elif size or left is not None or os.path.lexists(self._sidecar):
            self._empty(descriptor)

    def _empty(self, descriptor: int) -> None:
        self.held = ()
        if self._note is not None or os.path.lexists(self._sidecar):
            self._remove_note()
            # Or a power failure could bring it back, beside bytes that it doesn't speak of.
            _sync_directory(self._target.parent)
        os.ftruncate(descriptor, 0)

    def _write(self, offset: int, data: Bytes) -> None:
        descriptor = self._opened()
        before = self._hashing
        try:
            if offset == self._hashed:
                self._hash(data)
            _write_all_at(descriptor, data, offset)
        except BaseException:
            self._failed = True  # it may be hashed and not there, or the other way round
            raise
        if before is not None:
            before.result()
        self._unsynced += len(data)
        self.held = with_range(self.held, offset, offset + len(data))
        self._hash_on(descriptor)

    def _hash_on(self, descriptor: int) -> bool:
        stop = prefix_of(self.held)
        limit = min(stop, self._hashed + SLICE)
        while self._hashed < limit:
            block = os.pread(descriptor, min(_BLOCK, limit - self._hashed), self._hashed)
            if not block:
                raise OSError(None, "the part is shorter than what was written of it")
            self._all_hashed()
            self._update(block)
            self._hashed += len(block)
        return self._hashed >= stop

    def _hash(self, data: Bytes) -> None:
        """Hash what follows, or, where it is much, let another thread do it meanwhile."""
        self._hashed += len(data)
        if len(data) < BESIDE:
            self._all_hashed()
            self._update(data)
            return
        if self._hasher is None:
            self._hasher = ThreadPoolExecutor(1, "segments-async-hash")
        self._hashing = self._hasher.submit(self._update, data)

    def _all_hashed(self) -> None:
        hashing, self._hashing = self._hashing, None
        if hashing is not None:
            hashing.result()

    def _update(self, data: Bytes) -> None:
        self._sha256.update(data)
        if self._md5 is not None and self.stored is not None and self.stored.md5 is not None:
            self._md5.update(data)

    def _check(self) -> None:
        if self.stored is None or self.stored.gzip:
            return
        if self.stored.total not in (None, self._hashed):
            raise OSError(None, "the part isn't whole")
        if (
            self._md5 is not None
            and self.stored.md5 is not None
            and self._md5.hexdigest() != self.stored.md5
        ):
            raise ChecksumMismatch("the bytes that came aren't those that storage has")

    def _write_note(self, *, synced: bool) -> None:
        if self.stored is None:
            return
        if self._note is None:
            self._note = open_regular(self._sidecar, os.O_WRONLY | os.O_CREAT)
        note = sidecar.Sidecar(
            export_id=self._export_id,
            stored=self.stored,
            held=self.held,
            boot_id=_boot_id(),
            synced=synced,
        )
        _write_all_at(self._note, note.dump(), 0)

    def _remove_note(self) -> None:
        self._sidecar.unlink(missing_ok=True)
        self._close_note()

    def _close_note(self) -> None:
        note, self._note = self._note, None
        if note is not None:
            os.close(note)

    def _close(self) -> None:
        self._close_note()
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
        if self._hasher is not None:
            self._hasher.shutdown(wait=False)


def _open_alone(part: Path) -> int:
    """Open the part for this download alone.

    Two that write one part would mix their bytes under one name. The lock ends with the
    descriptor, and so with the process. A symbolic link in the part's place is refused, and so is
    whatever isn't a file of one name.
    """
    while True:
        descriptor = open_regular(part, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, part):
                return descriptor
            # Renamed or removed by its last owner between the two calls: open the next one.
            os.close(descriptor)
        except BaseException as exc:
            os.close(descriptor)
            if isinstance(exc, BlockingIOError):
                raise OSError(exc.errno, "another download is writing this file") from exc
            raise


def _read_note(path: Path) -> sidecar.Sidecar | None:
    """The sidecar, if there is one that can be read. A symbolic link isn't followed."""
    try:
        descriptor = open_regular(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        return sidecar.load(os.read(descriptor, sidecar.SIZE + 1))
    finally:
        os.close(descriptor)


@cache
def _boot_id() -> str | None:
    """What the system is called until it is started again; None where it doesn't say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def md5() -> Digest | None:
    """A running MD5; None where the system forbids it for whatever purpose (FIPS)."""
    try:
        return hashlib.md5(usedforsecurity=False)
    except ValueError:
        return None


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


def _write_all_at(descriptor: int, chunk: Bytes, offset: int) -> None:
    view = memoryview(chunk)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _sync_directory(directory: Path) -> None:
    """Make the rename durable (POSIX promises it only once the directory itself is synced)."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
