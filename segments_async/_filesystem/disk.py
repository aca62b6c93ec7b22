"""Locks, syncs of directories, and whole writes, on file systems that may not offer all of them.

Synchronous, for worker threads.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

#: Errors of an operation that a file system doesn't have. macOS has ENOTTY for SMB and exFAT.
_NO_OPERATION = frozenset(
    {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOTTY}
)

#: Errors of a process that may write, and yet may not do this.
_NO_RIGHT = frozenset({errno.EACCES, errno.EPERM})

#: Errors of a mount without locks: FUSE without `flock`, NFS without a lock daemon. AppArmor and
#: SELinux may deny a lock where they allow a write.
_NO_LOCKS = _NO_OPERATION | _NO_RIGHT | {errno.ENOLCK}

#: Errors of a file system that can't sync a directory (CIFS, VirtualBox's shared folders, sshfs). A
#: failing disk has EIO.
_NO_SYNC_OF_DIRECTORIES = _NO_OPERATION | _NO_RIGHT | {errno.EBADF, errno.ENOENT}


class NoLocks(Exception):
    """The file system has no locks."""


def try_lock(descriptor: int) -> bool:
    """Lock the file for this process alone; False where another holder has the lock.

    The lock ends with the descriptor, and so with the process. A forked child does not hold it.
    Unlock by :func:`close_locked`.

    Raises:
        NoLocks: the file system has no locks.
        OSError: the file can't be locked for another reason.
    """
    import fcntl  # here: Windows has none, and `posix.require_posix` refuses files there

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as exc:
        if exc.errno in _NO_LOCKS:
            raise NoLocks from exc
        raise
    _LOCKED.add(descriptor)
    return True


def is_free(descriptor: int) -> bool:
    """Whether no process has locked the file. The shared lock of this test excludes no reader."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True


def close_locked(descriptor: int) -> None:
    """Close a descriptor that may be locked."""
    _LOCKED.discard(descriptor)
    os.close(descriptor)


#: Locked descriptors of this process. A forked child inherits them, and a lock lasts as long as one
#: of them is open: a child that outlives its parent would keep the parent's runs and files locked.
_LOCKED: set[int] = set()


def _in_child() -> None:
    """Close the inherited descriptors, so that the parent alone holds its locks.

    Each number then leads to /dev/null: objects that the child inherited may still close it.
    """
    if not _LOCKED:
        return
    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in _LOCKED:
        os.dup2(nowhere, descriptor, inheritable=False)
    os.close(nowhere)
    _LOCKED.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, where no process forks
    os.register_at_fork(after_in_child=_in_child)


def is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one at this path."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def sync_file(descriptor: int) -> None:
    """Make the bytes of a file durable.

    Nothing is done where the file system can't do it. Then a crash of the machine may lose bytes of
    a file that was whole.

    Raises:
        OSError: the disk failed, or is full.
    """
    try:
        os.fsync(descriptor)
    except OSError as exc:
        if exc.errno not in _NO_OPERATION:
            raise


def sync_directory(directory: Path) -> None:
    """Make a rename durable (POSIX promises it only once the directory itself is synced).

    Nothing is done where the file system can't sync directories, or where this process may not read
    the directory. Then a crash of the machine may undo the rename; the file's bytes are safe, since
    the writer has synced the file itself.

    Raises:
        OSError: the disk failed.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        if exc.errno in _NO_RIGHT:
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError as exc:
        if exc.errno not in _NO_SYNC_OF_DIRECTORIES:
            raise
    finally:
        os.close(descriptor)


def write_all_at(descriptor: int, chunk: bytes | memoryview, offset: int) -> None:
    """Write all bytes to the file from an offset on.

    os.pwrite may write fewer, on a full disk or a network file system.
    """
    view = memoryview(chunk)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
