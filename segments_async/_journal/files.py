"""The files of a SQLite journal: where they may be, how one is created, and lock files."""

from __future__ import annotations

import contextlib
import glob
import os
import re
from pathlib import Path
from typing import Self

from segments_async._filesystem.disk import close_locked, is_at, is_free, sync_directory, try_lock
from segments_async._filesystem.trust import open_regular

#: Kinds of file systems that several machines may share. Their locks and syncs are often not
#: sufficient for SQLite and `flock` (sqlite.org/howtocorrupt.html, section 2.1).
_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\w*|9p|afs|ceph|glusterfs|lustre|gpfs|beegfs|ncpfs|webdav|vboxsf|davfs\d?"
    r"|fuse\.(sshfs|glusterfs\w*|ceph\w*|s3fs|rclone|gcsfuse|davfs\d?|smbnetfs|goofys|mount-s3|juicefs)"
)

_MOUNTS = Path("/proc/mounts")


def network_file_system(path: Path) -> str | None:
    """The kind of network file system that has the path; None for a local one.

    None on systems other than Linux, which have no /proc/mounts.
    """
    try:
        mounts = _MOUNTS.read_text(errors="surrogateescape")
    except OSError:
        return None
    return kind_of_network(mounts, path.resolve())


def kind_of_network(mounts: str, path: Path) -> str | None:
    """What :func:`network_file_system` returns, from the text of /proc/mounts."""
    place, kind = Path(), ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields[1]))
        # Of two mounts at one place, the later one hides the earlier.
        if path.is_relative_to(point) and len(point.parts) >= len(place.parts):
            place, kind = point, fields[2]
    return kind if _NETWORK.fullmatch(kind) else None


def create_private(path: Path) -> None:
    """Create an empty file that only its owner can read, whatever the umask.

    SQLite gives the -journal the mode of the database.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def name_of_new(path: Path) -> Path:
    """A temporary name for a new file; `put_in_place` gives the file its final name."""
    return path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}.new")


def put_in_place(new: Path, path: Path) -> None:
    """Give a finished file its final name; delete the file if another process was faster."""
    try:
        with contextlib.suppress(FileExistsError):
            os.link(new, path)
    finally:
        new.unlink(missing_ok=True)  # another process may have called `drop_new_name`
    sync_directory(path.parent)


def drop_new_name(path: Path) -> None:
    """Remove the temporary name of a file whose process died between the steps of `put_in_place`.

    The file has two names then, and a journal with two names would be refused.
    """
    if path.exists() and path.stat().st_nlink > 1:
        for new in path.parent.glob(f"{glob.escape(path.name)}.*.new"):
            if new.samefile(path):
                new.unlink(missing_ok=True)


class FileLock:
    """A lock file that this process has locked. The lock ends with the process in any case."""

    def __init__(self, path: Path, descriptor: int, *, unclean: bool) -> None:
        self._path = path
        self._descriptor: int | None = descriptor
        #: Whether the file existed: the last process with the lock died.
        self.unclean: bool = unclean

    @classmethod
    def try_acquire(cls, path: Path) -> Self | None:
        """Create and lock the file; None where another process has locked it.

        Raises:
            NoLocks: the file system has no locks.
        """
        while True:
            unclean = os.path.lexists(path)
            descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
            try:
                if not try_lock(descriptor):
                    os.close(descriptor)
                    return None
                os.fchmod(descriptor, 0o600)
                if is_at(descriptor, path):
                    _write_holder(descriptor)
                    return cls(path, descriptor, unclean=unclean)
            except BaseException:
                close_locked(descriptor)
                raise
            # The last process with the lock unlinked the file between open and lock.
            close_locked(descriptor)

    @staticmethod
    def is_locked(path: Path) -> bool:
        """Whether a process has locked the file; also True where the file can't be opened."""
        try:
            descriptor = _open_existing(path)
        except OSError as exc:
            return not isinstance(exc, FileNotFoundError)
        try:
            return not is_free(descriptor)
        finally:
            os.close(descriptor)

    @staticmethod
    def holder(path: Path) -> int | None:
        """The id of the process that has locked the file; None where the file has none."""
        try:
            descriptor = _open_existing(path)
        except OSError:
            return None
        try:
            text = os.read(descriptor, _HOLDER_SIZE)
            return int(text) if text.strip().isdigit() else None
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def is_held(self, connection: object = None) -> bool:  # noqa: ARG002
        """Whether the lock file is the one that this process has locked."""
        return self._descriptor is not None and is_at(self._descriptor, self._path)

    def confirm(self, connection: object) -> None:
        """Nothing to check: the lock does not depend on a connection."""

    def reacquire(self, connection: object) -> bool:
        """As `RunLock.reacquire`. A lock file that was removed is created again."""
        if self.is_held(connection):
            return True
        again = self.try_acquire(self._path)
        if again is None:
            return False
        self._close()
        self._descriptor, again._descriptor = again._descriptor, None
        return True

    def release(self) -> None:
        # Unlink before releasing the lock: after the release another process may have created and
        # locked a file of this name, and we would delete that one.
        if self.is_held():
            with contextlib.suppress(OSError):
                self._path.unlink()
        self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            close_locked(self._descriptor)
            self._descriptor = None


def _open_existing(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


#: Characters of the process id in a lock file, filled with blanks.
_HOLDER_SIZE = 20


def _write_holder(descriptor: int) -> None:
    """Write the id of this process. An error is ignored: the lock doesn't depend on it."""
    with contextlib.suppress(OSError):
        os.pwrite(descriptor, str(os.getpid()).encode().ljust(_HOLDER_SIZE), 0)
