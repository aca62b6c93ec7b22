"""Whether other users could have written a file, or put it in its place.

A journal says which local files are exports, and which exports are not requested again. So a
journal is read only if no user but this one and root could have written it or put it there.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

#: The number of symbolic links that are followed for one path; Linux has the same limit.
_MOST_LINKS = 40


def open_regular(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open a regular file with one name; symbolic and hard links, FIFOs and devices are refused.

    A write to a file with a second name would change a foreign file. Opening a FIFO would wait for
    its reader.

    Raises:
        OSError: the file can't be opened, or is refused.
    """
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, mode)
    except OSError as exc:
        if exc.errno in (errno.ENXIO, errno.EOPNOTSUPP):  # a FIFO without a reader; a socket
            raise OSError(exc.errno, "not a regular file", str(path)) from exc
        raise
    found = os.fstat(descriptor)
    problem = None
    if not stat.S_ISREG(found.st_mode):
        problem = "not a regular file"
    elif found.st_nlink > 1:
        problem = "the file has another name (a hard link), under which it would change, too"
    if problem is None:
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, problem, str(path))


def make_directories(path: Path) -> None:
    """Make a directory, and its parents where they are missing.

    Other users can't write to the new directories, whatever the umask is.
    """
    if not path.parent.is_dir():
        make_directories(path.parent)
    path.mkdir(mode=0o755, exist_ok=True)


def distrust_of_file(path: Path) -> str | None:
    """Why another user may have written the file; None if none can have, or if there is no file.

    The file is not opened.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    mode = stat.S_IMODE(found.st_mode)
    if not stat.S_ISREG(found.st_mode):
        return f"{path} is not a regular file"
    if found.st_uid not in (0, os.geteuid()):
        return (
            f"{path} belongs to another user (uid {found.st_uid}); if its content is yours, "
            "chown it"
        )
    if mode & 0o022:
        return (
            f"{path} may be written by others (mode {mode:04o}); if its content is yours, "
            "chmod 600 it"
        )
    if found.st_nlink > 1:
        return f"{path} has another name (a hard link); make it a file of its own"
    return None


def distrust_of_path(path: Path) -> str | None:
    """Why another user may have put the file at this path there; None if none can have.

    Every directory on the path is judged, also those that a symbolic link on the path leads to.
    """
    try:
        for directory, link in _steps(path):
            if (problem := _distrust_of_directory(directory)) is not None:
                return problem
            if link is not None and link.lstat().st_uid not in (0, os.geteuid()):
                return f"{link} is another user's symbolic link"
    except FileNotFoundError:
        return None  # there is no file
    return None


def _steps(path: Path) -> Iterator[tuple[Path, Path | None]]:
    """Each directory on the path, with the symbolic link that is followed there, if any."""
    todo = list(reversed(path.absolute().parts[1:]))
    here, links = Path("/"), 0
    while todo:
        name = todo.pop()
        if name == "..":
            here = here.parent
            continue
        step = here / name
        if not step.is_symlink():
            yield here, None
            here = step
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        yield here, step
        target = step.readlink()
        if target.is_absolute():
            here = Path("/")
        todo.extend(reversed([part for part in target.parts if part != target.anchor]))


def _distrust_of_directory(directory: Path) -> str | None:
    found = directory.stat()
    mode = stat.S_IMODE(found.st_mode)
    me = os.geteuid()
    if mode & stat.S_ISVTX:
        return None  # sticky, as /tmp is: users can't move or replace each other's files
    if mode & 0o002 or (mode & 0o020 and _has_others(found.st_gid)):
        return (
            f"others may write to the directory {directory} (mode {mode:04o}), and put another "
            "file in its place; chmod go-w the directory, or give another place"
        )
    # Root may work in another user's directory, as in a container whose volume belongs to a user.
    if me != 0 and found.st_uid not in (0, me):
        return f"the directory {directory} is another user's (uid {found.st_uid})"
    return None


def _has_others(gid: int) -> bool:
    """Whether the group has a member besides this user and root; many users have one alone."""
    import grp  # here: Windows has neither, and `posix.require_posix` refuses files there
    import pwd

    try:
        members = set(grp.getgrgid(gid).gr_mem)
    except KeyError:
        return False
    accounts = pwd.getpwall()
    members |= {account.pw_name for account in accounts if account.pw_gid == gid}
    own = {account.pw_name for account in accounts if account.pw_uid in (0, os.geteuid())}
    return bool(members - own)
