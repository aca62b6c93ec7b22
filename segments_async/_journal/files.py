"""Where a SQLite journal may be, and which process has one of its runs. No SQL."""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Generator
from pathlib import Path
from typing import Self

from segments_async._filesystem.disk import close_locked, is_at, is_free, sync_directory, try_lock
from segments_async._filesystem.trust import open_regular

#: Kinds of file systems on which several machines may see one file. Their locks and syncs are often
#: not what SQLite and `flock` need (sqlite.org/howtocorrupt.html, section 2.1).
_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\w*|9p|afs|ceph|glusterfs|lustre|gpfs|beegfs|ncpfs|webdav|vboxsf|davfs\d?"
    r"|fuse\.(sshfs|glusterfs\w*|ceph\w*|s3fs|rclone|gcsfuse|davfs\d?|smbnetfs|goofys|mount-s3|juicefs)"
)

_MOUNTS = Path("/proc/mounts")


def network_file_system(path: Path) -> str | None:
    """The kind of network file system that the path is on; None where it is on none.

    Linux tells; elsewhere it isn't known, and None.
    """
    try:
        mounts = _MOUNTS.read_text(errors="surrogateescape")
    except OSError:
        return None
    return kind_of_network(mounts, path.resolve())


def kind_of_network(mounts: str, path: Path) -> str | None:
    """As :func:`network_file_system`, from the text of /proc/mounts."""
    place, kind = Path(), ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields[1]))
        # Of two at one place, the later one hides the other.
        if path.is_relative_to(point) and len(point.parts) >= len(place.parts):
            place, kind = point, fields[2]
    return kind if _NETWORK.fullmatch(kind) else None


def create_private(path: Path) -> None:
    """Make an empty file that its owner alone can read, whatever the umask.

    SQLite gives its -journal the mode of the database.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def name_of_new(path: Path) -> Path:
    """A name, beside the path, for a file that `put_in_place` gives its own name."""
    return path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}.new")


def put_in_place(new: Path, path: Path) -> None:
    """Give a finished file its name, unless another process was faster; then drop it."""
    try:
        with contextlib.suppress(FileExistsError):
            os.link(new, path)
    finally:
        new.unlink(missing_ok=True)  # another process may have ended this, by `drop_new_name`
    sync_directory(path.parent)


def drop_new_name(path: Path) -> None:
    """End what a process began that died, or is, between the two steps of `put_in_place`.

    The file has two names then, and a journal of two names is refused.
    """
    if path.exists() and path.stat().st_nlink > 1:
        for new in path.parent.glob(f"{glob.escape(path.name)}.*.new"):
            if new.samefile(path):
                new.unlink(missing_ok=True)


class FileLock:
    """A lock file, held for this process alone. The lock ends with the process, however it ends."""

    def __init__(self, path: Path, descriptor: int, *, unclean: bool) -> None:
        self._path = path
        self._descriptor: int | None = descriptor
        #: Whether the file was there: its last holder died.
        self.unclean: bool = unclean

    @classmethod
    def try_acquire(cls, path: Path) -> Self | None:
        """Lock the file; None where another holder has it.

        Raises:
            NoLocks: the file system has none.
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
            # Unlinked by its last holder between the two calls: make the next one.
            close_locked(descriptor)

    @staticmethod
    def is_locked(path: Path) -> bool:
        """Whether a process has locked the file. Other processes may try to lock it meanwhile."""
        with _opened(path) as descriptor:
            return descriptor is not None and not is_free(descriptor)

    @staticmethod
    def holder(path: Path) -> int | None:
        """The id of the process that has locked the file; None where the file doesn't say."""
        with _opened(path) as descriptor, contextlib.suppress(OSError):
            if descriptor is not None:
                text = os.read(descriptor, _HOLDER_SIZE)
                return int(text) if text.strip().isdigit() else None
        return None

    def confirm(self, connection: object) -> None:
        """The system keeps the lock, whatever becomes of a connection."""

    def reacquire(self, connection: object) -> bool:  # noqa: ARG002
        """As `RunLock.reacquire`. A lock file that somebody removed is made again."""
        if self._descriptor is not None and is_at(self._descriptor, self._path):
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
        if self._descriptor is not None and is_at(self._descriptor, self._path):
            with contextlib.suppress(OSError):
                self._path.unlink()
        self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            close_locked(self._descriptor)
            self._descriptor = None


@contextlib.contextmanager
def _opened(path: Path) -> Generator[int | None]:
    """A lock file, to be looked at; None where it can't be opened."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


#: Characters of a process's id in its lock file, filled with blanks.
_HOLDER_SIZE = 20


def _write_holder(descriptor: int) -> None:
    """Say which process it is. A full disk is no reason not to hold the run."""
    with contextlib.suppress(OSError):
        os.pwrite(descriptor, str(os.getpid()).encode().ljust(_HOLDER_SIZE), 0)
