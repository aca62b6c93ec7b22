"""One file while it is downloaded: a `.part` beside its target, hashed, and renamed at the end.

The file under the target's name has the bytes that were hashed, whatever others do to the part:

* One file on disk gets the bytes of one version of one export's file and no others. A part that
  can't be resumed is removed and created anew, never truncated: on a mount whose locks lock
  nothing, another machine may be writing the same file.
* Before each write and before the rename, the part must have the size and the modification time
  of our last write. Otherwise its bytes are read and compared, and fetched anew if they differ.
* A part that was removed or replaced is written again from the descriptor that is still open.
* The sidecar has the hash of the part's bytes. The next download compares the part with it.

Synchronous, for worker threads: hashing and writing release the GIL, and block for long.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import threading
import time
from pathlib import Path
from typing import NamedTuple

from segments_async._files.digest import Bytes, PrefixDigest
from segments_async._files.locked_part import BLOCK, LockedPart, PartBusy, PartModified
from segments_async._files.sidecar_file import SidecarFile, boot_id
from segments_async._filesystem.disk import sync_directory
from segments_async._sansio.files import sidecar
from segments_async._sansio.files.range_allocator import Ranges, prefix_of, with_range
from segments_async._sansio.files.ranges import ObjectVersion

#: Bytes hashed from the disk in one call: few enough that a cancellation needn't wait for it.
SLICE = 32 * 1024 * 1024

#: Bytes written after which the next `sync` is due.
UNSYNCED = 128 * 1024 * 1024

#: Seconds between two writes of the sidecar. A kill -9 costs this many seconds of a download; every
#: other end costs nothing.
SIDECAR_INTERVAL = 0.2

#: How often a part that others remove or replace is put in place before it is given up.
_PLACED_AT_MOST = 3


class ChecksumMismatch(Exception):
    """The bytes don't have the MD5 that storage announced."""


class ExportedBytes(NamedTuple):
    """The bytes that were put in place."""

    size: int
    sha256: str


def is_whole(version: ObjectVersion | None, held: Ranges, rest: Bytes) -> bool:
    """Whether the bytes held, or `rest` with all the bytes of a small file, are the whole file."""
    held = with_range(held, 0, len(rest))
    total = version.total if version is not None and not version.gzip else None
    return total is None or held == (((0, total),) if total else ())


def check_bytes(version: ObjectVersion | None, digest: PrefixDigest) -> None:
    """Compare the bytes of a whole file with what storage announced.

    Raises:
        ChecksumMismatch: they have another MD5.
        OSError: some are missing.
    """
    digest.wait()
    if version is None or version.gzip:
        return
    if version.total not in (None, digest.size):
        raise OSError(None, "the part isn't whole: bytes of the file are missing")
    if not digest.has_md5(version.md5):
        raise ChecksumMismatch("the received bytes have another MD5 than storage announced")


def part_of(target: Path) -> Path:
    """The path of a file while it is downloaded."""
    return target.with_name(target.name + ".part")


def sidecar_of(target: Path) -> Path:
    """The path of the part's sidecar."""
    return target.with_name(target.name + ".part.json")


class PartFile:
    """A file that appears under its name only when it is whole.

    Its methods are for worker threads, and several may be called at once: one waits for the other,
    so that no descriptor is closed under a thread that a cancelled task left behind. Only `sync`
    lets the others write meanwhile.

    Attributes:
        version: the version of the stored object; None until an answer of storage tells it.
        held: the ranges of its bytes that are in the part.
        is_finished: whether the file is in place, or the part was kept, discarded or released.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._path = part_of(target)
        self._sidecar = SidecarFile(sidecar_of(target))
        self._file = LockedPart(self._path)
        self._lock = threading.RLock()
        self._syncing = threading.RLock()
        self._export_id = ""
        self._digest = PrefixDigest()
        self._unsynced = 0
        self._failed = False
        self._sidecar_at = -math.inf
        #: The hash that an earlier download recorded; None once it was compared.
        self._recorded: sidecar.PrefixHash | None = None
        self.version: ObjectVersion | None = None
        self.held: Ranges = ()
        self.is_finished: bool = False

    @property
    def resumable(self) -> bool:
        """Whether a later download can continue the part."""
        return bool(self.held) and self.version is not None and self.version.resumable

    @property
    def _wants_md5(self) -> bool:
        return self.version is not None and self.version.md5 is not None

    @property
    def wants_sync(self) -> bool:
        """Whether enough was written since the last `sync` for the next one."""
        return self._unsynced >= UNSYNCED

    def open(self, export_id: str, *, ignore_lock: bool = False) -> None:
        """Lock the part for this download, and take over what an earlier one of the export left.

        Args:
            ignore_lock: create a new part if another download has locked the existing one. The
                other download continues with a file that has no name any more, and writes it
                again at its end.

        Raises:
            PartBusy: another download has locked the part.
            OSError: the part can't be written.
        """
        with self._lock:
            if self.is_finished:
                return  # released by a task that was cancelled before this thread began
            self._export_id = export_id
            try:
                self._take_over(self._file.open())
            except BaseException as exc:
                self._close()
                # PermissionError: another user left the part (root, once). Who owns the directory
                # may replace it all the same.
                replaceable = isinstance(exc, PermissionError)
                if not replaceable and not (ignore_lock and isinstance(exc, PartBusy)):
                    raise
                self._begin()

    def reset(self) -> None:
        """Start with an empty part."""
        with self._syncing, self._lock:
            _ = self._file.descriptor
            self._digest.wait()
            self._digest.close()
            self._digest = PrefixDigest()
            self._unsynced = 0
            self.version = None
            self._begin()

    def write(self, offset: int, data: Bytes) -> None:
        """Write the bytes from `offset` on, hash them if they come next, and note them.

        Another thread may read the memory of `data` until the next call has returned.
        """
        with self._lock:
            self._write(offset, data)
            # A fast download would spend as much time on the sidecar as on the part.
            now = time.monotonic()
            if self.resumable and now - self._sidecar_at >= SIDECAR_INTERVAL:
                self._sidecar_at = now
                self._write_sidecar(synced=False)

    def sync(self) -> None:
        """Bring the bytes written so far to the disk, so that `finish` finds few to wait for.

        Raises:
            OSError: they are not on the disk. The system reports this once, so the part can't be
                trusted from then on.
        """
        with self._syncing:
            self._unsynced = 0
            try:
                self._file.sync()
            except OSError:
                self._failed = True
                raise

    def hash_on(self) -> bool:
        """Hash up to `SLICE` more bytes of the part, in order. Returns whether all are hashed."""
        with self._lock:
            stop = prefix_of(self.held)
            limit = min(stop, self._digest.size + SLICE)
            recorded = self._recorded
            if recorded is not None and self._digest.size < recorded.size:
                limit = min(limit, recorded.size)
            while (at := self._digest.size) < limit:
                block = self._file.read(min(BLOCK, limit - at), at)
                self._digest.add(block, with_md5=self._wants_md5)
            if recorded is not None and self._digest.size == recorded.size:
                self._recorded = None
                if self._digest.sha256() != recorded.sha256:
                    self._file.modified = True
                    raise PartModified("the part's bytes changed since they were written")
            return self._digest.size >= stop

    def finish(self, rest: Bytes = b"") -> ExportedBytes:
        """Make the bytes durable, and put the file in place.

        Args:
            rest: all bytes of a small file, which weren't written before.

        Raises:
            ChecksumMismatch: the bytes aren't those that storage has. Nothing is put in place.
            PartModified: others wrote to the part. None of their bytes are left in place.
            OSError: the bytes aren't on the disk, or the disk has failed before.
        """
        with self._syncing, self._lock:
            _ = self._file.descriptor
            if self._failed:
                raise OSError(
                    errno.EIO,
                    "the disk has failed to take some of the bytes; the file was not put in place",
                )
            if rest:
                self._write(0, rest)
            while not self.hash_on():
                pass
            check_bytes(self.version, self._digest)
            self._place()
            self.is_finished = True
            self._close()
            sync_directory(self._target.parent)
            return ExportedBytes(self._digest.size, self._digest.sha256())

    def _place(self) -> None:
        """Rename the part, and check that the file under the target's name is ours."""
        for _ in range(_PLACED_AT_MOST):
            self._file.check_unmodified()
            if self._file.modified:
                self._file.compare(self._digest.size, self._digest.sha256())
            if not self._file.is_in_place():
                self._sidecar.remove()
                self._file.write_again(self._digest.size)
                self._file.compare(self._digest.size, self._digest.sha256())
            self._file.sync()
            # The sidecar goes first: without its part it could be taken for another part's.
            self._sidecar.remove()
            try:
                self._path.replace(self._target)
            except FileNotFoundError:
                continue  # another process removed the part meanwhile
            if self._file.is_in_place(self._target):
                return
        raise PartModified("another process removes or replaces the part again and again")

    def keep(self) -> None:
        """Leave the part for a later download, durably; discard it if it can't be continued."""
        with self._syncing, self._lock:
            self.is_finished = True
            if not self._file.is_open:
                return
            if not self.resumable or self._failed:
                self.discard()
                return
            try:
                self._file.check_unmodified()
                if self._file.modified:
                    # The next download can compare the hashed beginning alone.
                    self.held = with_range((), 0, self._digest.size)
                self._file.sync()
                self._write_sidecar(synced=True)
            except (OSError, PartModified):
                self.discard()
            else:
                self._close()

    def discard(self) -> None:
        """Remove the part, unless another process has replaced it.

        A part that can't be removed (the disk is read-only now) stays; the next download does not
        trust it.
        """
        with self._syncing, self._lock:
            self.is_finished = True
            # Before the lock is released: afterwards the part may be another download's.
            with contextlib.suppress(OSError):
                if self._file.is_open and self._file.is_in_place():
                    self._sidecar.remove()
                    self._path.unlink(missing_ok=True)
            self._close()

    def release(self) -> None:
        """Close the part and give up its lock. The files stay as they are, as after a kill."""
        with self._lock:
            self.is_finished = True
            self._close()

    def _take_over(self, found: os.stat_result) -> None:
        """Continue the part, if it is of this export and its bytes are on the disk for certain."""
        left = self._sidecar.read()
        if left is not None and left.export_id == self._export_id and left.trusted(boot_id()):
            held = left.held_in(found.st_ino)
            if held and found.st_size >= held[-1][1] and found.st_nlink == 1:
                self.version, self.held, self._recorded = left.version, held, left.hashed
                self._file.remember()
                return
        if found.st_size or found.st_nlink != 1 or self._sidecar.exists():
            self._begin()

    def _begin(self) -> None:
        """Put a new, empty part in place."""
        self.held = ()
        self._recorded = None
        self._sidecar.remove(durably=True)
        self._file.replace()

    def _write(self, offset: int, data: Bytes) -> None:
        self._file.check_unmodified()
        earlier = self._digest.running
        try:
            if offset == self._digest.size:
                self._recorded = None  # these bytes arrived again, and are written anew
                self._digest.add_in_parallel(data, with_md5=self._wants_md5)
            self._file.write(offset, data)
        except BaseException:
            self._failed = True  # the bytes may be hashed and not written, or the other way round
            raise
        if earlier is not None:
            earlier.result()
        self._unsynced += len(data)
        self.held = with_range(self.held, offset, offset + len(data))
        self.hash_on()

    def _write_sidecar(self, *, synced: bool) -> None:
        if self.version is None or not self._file.is_in_place():
            return  # the sidecar would describe another download's part
        content = sidecar.Sidecar(
            export_id=self._export_id,
            version=self.version,
            held=self.held,
            boot_id=boot_id(),
            synced=synced,
            inode=os.fstat(self._file.descriptor).st_ino,
            hashed=self._recorded or self._digest.completed,
        )
        self._sidecar.write(content)

    def _close(self) -> None:
        self._sidecar.close()
        self._file.close()
        self._digest.close()
