"""One file on its way: written and hashed as a `.part` beside its target, then renamed.

What has its name is what was hashed, whoever else has been at the part:

* A file on the disk gets the bytes of one version of one export's file and no others. What can't be
  continued is removed and made anew, never emptied: another machine, on a mount whose locks lock
  nothing, may be writing the same file.
* Before each write and before the rename the part has to be as the last write left it, by its size
  and its time. One that isn't is read again, and begun anew where it has other bytes.
* A part that was removed or replaced is written again from the descriptor that is still open.
* The sidecar has the hash of what is in the part. The next download compares it.

Synchronous, for worker threads: hashing and writing release the GIL and must not hold the loop.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import math
import os
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple, Protocol

from segments_async._filesystem.disk import (
    NoLocks,
    close_locked,
    is_at,
    sync_directory,
    try_lock,
    write_all_at,
)
from segments_async._filesystem.trust import open_regular
from segments_async._sansio.files import sidecar
from segments_async._sansio.files.range_allocator import Ranges, prefix_of, with_range
from segments_async._sansio.files.ranges import ObjectVersion

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


#: How often a part that others remove or replace is put in place before it is given up.
_PLACED_AT_MOST = 3


_NOTHING = sidecar.PrefixHash(0, "")


class ChecksumMismatch(Exception):
    """The bytes aren't those whose MD5 storage told."""


class PartModified(Exception):
    """Somebody else has written to the part, or emptied it."""


class PartBusy(OSError):
    """Another download has the part."""


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
        self._written: _Trace | None = None
        self._disturbed = False
        self._claimed: sidecar.PrefixHash | None = None
        self._known = _NOTHING
        self._sha256 = hashlib.sha256()
        self._md5 = md5()
        self.version: ObjectVersion | None = None
        self.held: Ranges = ()

    @property
    def is_finished(self) -> bool:
        """Whether the file is in place, and nothing is left to be kept or discarded."""
        return self._left

    @property
    def resumable(self) -> bool:
        """Whether what is there can be continued."""
        return bool(self.held) and self.version is not None and self.version.resumable

    def is_whole(self, rest: Bytes) -> bool:
        """Whether everything is there, together with all of a small file."""
        held = with_range(self.held, 0, len(rest))
        total = self.version.total if self.version is not None and not self.version.gzip else None
        return total is None or held == (((0, total),) if total else ())

    @property
    def wants_sync(self) -> bool:
        """Whether so much was written since the last `sync` that another one is worth its while."""
        return self._unsynced >= UNSYNCED

    def open(self, export_id: str, *, ignore_lock: bool = False) -> None:
        """Take the part for this download alone, with what an earlier one of the export left.

        Args:
            export_id: the export's.
            ignore_lock: begin a part of one's own where another download has this one. The
                other one goes on with a file that has no name any more, and writes it again.

        Raises:
            PartBusy: another download has it.
            OSError: it can't be written.
        """
        with self._lock:
            if self._left:
                return  # by a task that was cancelled before this thread began
            self._export_id = export_id
            try:
                self._descriptor = _open_alone(self._part)
                self._take_over(self._descriptor)
            except BaseException as exc:
                self._close()
                if not (ignore_lock and isinstance(exc, PartBusy)):
                    raise
                self._begin()

    def reset(self) -> None:
        """Forget what is there."""
        with self._syncing, self._lock:
            self._opened()
            self._all_hashed()
            self._begin()
            self._sha256, self._md5 = hashlib.sha256(), md5()
            self._known = _NOTHING
            self._hashed = self._unsynced = 0
            self.version = None

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
            PartModified: others wrote to the part. Nothing of theirs is left in place.
            OSError: it isn't on the disk, or the disk has failed before.
        """
        with self._syncing, self._lock:
            self._opened()
            if self._failed:
                raise OSError(errno.EIO, "the disk has failed to take what was written")
            if rest:
                self._write(0, rest)
            while not self._hash_on(self._opened()):
                pass
            self._all_hashed()
            self._check()
            self._place()
            self._left = True
            self._close()
            sync_directory(self._target.parent)
            return ExportedBytes(self._hashed, self._sha256.hexdigest())

    def _place(self) -> None:
        """Give the file its name, and see that it has it."""
        for _ in range(_PLACED_AT_MOST):
            self._check_untouched(self._opened())
            if self._disturbed:
                self._check_on_disk()
            if not is_at(self._opened(), self._part):
                self._write_again()
            os.fsync(self._opened())
            # First the sidecar: one without its part could be taken for another part's.
            self._remove_note()
            try:
                self._part.replace(self._target)
            except FileNotFoundError:
                continue  # removed since
            if is_at(self._opened(), self._target):
                return
        raise PartModified("the part is removed or replaced again and again")

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
                self._check_untouched(self._descriptor)
                if self._disturbed:
                    # The next download compares the beginning, and what is behind that it can't.
                    self.held = with_range((), 0, self._hashed)
                os.fsync(self._descriptor)
                self._write_note(synced=True)
            except (OSError, PartModified):
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
            if self._descriptor is not None and is_at(self._descriptor, self._part):
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
        found = os.fstat(descriptor)
        if left is not None and left.export_id == self._export_id and left.trusted(_boot_id()):
            held = left.held_in(found.st_ino)
            if held and found.st_size >= held[-1][1] and found.st_nlink == 1:
                self.version, self.held, self._claimed = left.version, held, left.hashed
                self._written = _Trace.of(descriptor)
                return
        if found.st_size or found.st_nlink != 1 or os.path.lexists(self._sidecar):
            self._begin()

    def _begin(self) -> None:
        """A new file for the part. What is there is removed, and never written to."""
        self.held = ()
        self._written = self._claimed = None
        self._disturbed = False
        if self._note is not None or os.path.lexists(self._sidecar):
            self._remove_note()
            # Or a power failure could bring it back, beside bytes that it doesn't speak of.
            sync_directory(self._target.parent)
        before, self._descriptor = self._descriptor, _open_new(self._part)
        if before is not None:
            close_locked(before)

    def _write_again(self) -> None:
        """Somebody removed or replaced the part: what was written of it is still to be read."""
        before = self._opened()
        self._descriptor = None
        try:
            if os.path.lexists(self._sidecar):
                self._sidecar.unlink(missing_ok=True)
            self._descriptor = _open_new(self._part)
            for offset in range(0, self._hashed, _BLOCK):
                write_all_at(self._descriptor, os.pread(before, _BLOCK, offset), offset)
        finally:
            close_locked(before)
        self._written = _Trace.of(self._descriptor)
        self._check_on_disk()

    def _check_untouched(self, descriptor: int) -> None:
        """See whether the part is as the last write left it.

        Raises:
            PartModified: it is shorter or longer.
        """
        now, then = _Trace.of(descriptor), self._written
        if then is None or now == then:
            return
        if now.size != then.size:
            raise PartModified("somebody else has emptied the part, or written to it")
        self._disturbed = True

    def _check_on_disk(self) -> None:
        """Read the whole file, which somebody may have written to.

        Raises:
            PartModified: it isn't what was received.
        """
        on_disk = hashlib.sha256()
        for offset in range(0, self._hashed, _BLOCK):
            on_disk.update(os.pread(self._opened(), _BLOCK, offset))
        if on_disk.hexdigest() != self._sha256.hexdigest():
            raise PartModified("somebody else has written to the part")
        self._disturbed = False
        self._written = _Trace.of(self._opened())

    def _write(self, offset: int, data: Bytes) -> None:
        descriptor = self._opened()
        self._check_untouched(descriptor)
        before = self._hashing
        try:
            if offset == self._hashed:
                self._hash(data)
            write_all_at(descriptor, data, offset)
        except BaseException:
            self._failed = True  # it may be hashed and not there, or the other way round
            raise
        self._written = _Trace.of(descriptor)
        if before is not None:
            before.result()
        self._unsynced += len(data)
        self.held = with_range(self.held, offset, offset + len(data))
        self._hash_on(descriptor)

    def _hash_on(self, descriptor: int) -> bool:
        stop = prefix_of(self.held)
        limit = min(stop, self._hashed + SLICE)
        claimed = self._claimed
        if claimed is not None and self._hashed < claimed.size:
            limit = min(limit, claimed.size)
        while self._hashed < limit:
            block = os.pread(descriptor, min(_BLOCK, limit - self._hashed), self._hashed)
            if not block:
                raise OSError(None, "the part is shorter than what was written of it")
            self._all_hashed()
            self._update(block)
            self._hashed += len(block)
        if claimed is not None and self._hashed == claimed.size:
            self._claimed = None
            if self._sha256.hexdigest() != claimed.sha256:
                self._disturbed = True
                raise PartModified("the part doesn't have the bytes that were written to it")
        return self._hashed >= stop

    def _hash(self, data: Bytes) -> None:
        """Hash what follows, or, where it is much, let another thread do it meanwhile."""
        self._claimed = None  # these bytes came, and are written anew
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
        # For the sidecar, which doesn't wait for the bytes that are being hashed.
        self._known = sidecar.PrefixHash(self._known.size + len(data), self._sha256.hexdigest())
        if self._md5 is not None and self.version is not None and self.version.md5 is not None:
            self._md5.update(data)

    def _check(self) -> None:
        if self.version is None or self.version.gzip:
            return
        if self.version.total not in (None, self._hashed):
            raise OSError(None, "the part isn't whole")
        if (
            self._md5 is not None
            and self.version.md5 is not None
            and self._md5.hexdigest() != self.version.md5
        ):
            raise ChecksumMismatch("the bytes that came aren't those that storage has")

    def _write_note(self, *, synced: bool) -> None:
        descriptor = self._opened()
        if self.version is None or not is_at(descriptor, self._part):
            return  # it would speak of another download's part
        if self._note is None:
            self._note = open_regular(self._sidecar, os.O_WRONLY | os.O_CREAT)
        note = sidecar.Sidecar(
            export_id=self._export_id,
            version=self.version,
            held=self.held,
            boot_id=_boot_id(),
            synced=synced,
            inode=os.fstat(descriptor).st_ino,
            hashed=self._claimed or self._known,
        )
        write_all_at(self._note, note.dump(), 0)

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
            close_locked(descriptor)
        if self._hasher is not None:
            self._hasher.shutdown(wait=False)


class _Trace(NamedTuple):
    """What a write changes of a file, and what shows that somebody else has written to it."""

    size: int
    modified: int

    @classmethod
    def of(cls, descriptor: int) -> _Trace:
        found = os.fstat(descriptor)
        return cls(found.st_size, found.st_mtime_ns)


def _open_alone(part: Path) -> int:
    """Open the part for this download alone.

    Two that write one part would each do the other's work. The lock ends with the descriptor, and
    so with the process. A symbolic link in the part's place is refused, and so is whatever isn't a
    file of one name.
    """
    while True:
        descriptor = open_regular(part, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor)
            if is_at(descriptor, part):
                return descriptor
        except BaseException:
            close_locked(descriptor)
            raise
        # Renamed or removed by its last owner between the two calls: open the next one.
        close_locked(descriptor)


def _open_new(part: Path) -> int:
    """Make the part anew for this download alone, whatever had its name."""
    while True:
        part.unlink(missing_ok=True)
        try:
            descriptor = open_regular(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            continue  # another download was faster, and has nothing in it yet
        try:
            _lock(descriptor)
        except PartBusy:
            # Another download has opened it just now, and waits for another one as empty.
            close_locked(descriptor)
        except BaseException:
            close_locked(descriptor)
            raise
        else:
            return descriptor


def _lock(descriptor: int) -> None:
    # Without locks two downloads may begin one file. Each ends with its own bytes in place.
    with contextlib.suppress(NoLocks):
        if not try_lock(descriptor):
            raise PartBusy(errno.EAGAIN, "another download is writing this file")


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
