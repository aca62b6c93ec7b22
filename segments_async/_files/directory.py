"""`Directory`: a directory of this machine for a run's files, checked before any request is sent.

An export whose file can't be written would be a POST, and perhaps hours of the vendor's work, for
nothing. The synchronous functions are for worker threads.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import os
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from segments_async._files.part import sidecar_of
from segments_async._files.places import MANIFEST
from segments_async._files.target import LocalTarget
from segments_async._filesystem.posix import real_path, require_posix
from segments_async._filesystem.threads import NoThread, in_thread
from segments_async._filesystem.trust import open_regular
from segments_async._sansio.files.naming import file_names, scheme_of
from segments_async.errors import ConfigurationError, TargetExistsError
from segments_async.models import Export
from segments_async.results import ExportedFile

T = TypeVar("T")

#: Seconds after which a line that another process has begun to write has its end.
_LINE_UNDER_WAY = 0.01


def absolute(path: str | os.PathLike[str]) -> Path:
    """The absolute path without symbolic links and ``..``, so that a directory has one path.

    Under two paths one directory would have two runs, which request the same exports. POSIX lets
    the system interpret two slashes at the beginning; Linux takes them for one.

    Raises:
        ConfigurationError: the path is empty, a URL, or begins with ``~``: a directory of another
            place or name would be written. Or it is relative to a directory that was removed.
    """
    _refuse(path)
    return _absolute(path)


def _absolute(path: str | os.PathLike[str]) -> Path:
    found = real_path(path)
    return Path("/", *found.parts[1:]) if found.root == "//" else found


def _refuse(path: str | os.PathLike[str]) -> None:
    text = os.fspath(path)
    if not text:
        # A shell's unset variable. The system would take it for the current directory.
        raise ConfigurationError("the destination's path is empty. Nothing was sent")
    if text.startswith("~"):
        raise ConfigurationError(
            "the destination's path begins with '~', which only a shell replaces by the home "
            "directory; give os.path.expanduser(path), or the absolute path of a directory of that "
            "name. Nothing was sent"
        )
    if scheme := scheme_of(text):
        raise ConfigurationError(
            f"{scheme}://...: files can't be put there. Give a directory of this machine; or, for "
            "object storage, a string (not a Path) that begins with s3://, gs:// or az://. Nothing "
            "was sent"
        )


def _target(path: str | os.PathLike[str]) -> Path:
    """The absolute path of a file; a symbolic link in the file's own place isn't followed."""
    _refuse(path)
    given = Path(path)  # without the dot of "./~..."
    if given.name in ("", ".."):
        return _absolute(given)
    return _absolute(given.parent) / given.name


class Directory:
    """A directory, and the name of each segment's file in it.

    Args:
        directory: created if it doesn't exist.
        segments: ids, each with its segment's name if it is known.
        overwrite: whether existing files may be replaced.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        segments: Iterable[tuple[str, str | None]],
        *,
        overwrite: bool,
    ) -> None:
        require_posix("files")
        self._given = directory
        self._directory = _resolved(directory, absolute)
        self._names = file_names(segments, encoding=sys.getfilesystemencoding())
        self._overwrite = overwrite

    def with_names(self, names: Mapping[str, str]) -> Directory:
        other = copy.copy(self)
        other._names = dict(names)
        return other

    @property
    def names(self) -> Mapping[str, str]:
        return self._names

    append_pause: float = 0.0

    @property
    def location(self) -> str:
        return str(self._directory)

    def target(self, segment_id: str) -> LocalTarget:
        return LocalTarget(self._directory / self._names[segment_id])

    async def obstacles(self, own: Collection[str]) -> Mapping[str, ConfigurationError]:
        """As :meth:`prepare`, in a worker thread."""
        return await on_disk(self._directory, partial(self.prepare, own))

    async def present(self, files: Mapping[str, ExportedFile]) -> dict[str, ExportedFile]:
        return await on_disk(self._directory, partial(in_place, files))

    async def placed(self, segment_id: str, export: Export) -> None:
        """None: a file on a disk doesn't name its export. It is fetched again, and replaced."""

    async def append(self, lines: Sequence[str]) -> None:
        await in_thread(append_lines, self._directory / MANIFEST, lines)

    def hold(self, now: float) -> None:
        """None: a disk answers at once."""

    def prepare(self, own: Collection[str] = ()) -> Mapping[str, ConfigurationError]:
        """Create the directory, and check each segment's path.

        Args:
            own: paths of files that the journal knows as this account's exports. They are replaced.

        Returns: an error for each segment whose file would replace a foreign one.

        Raises:
            ConfigurationError: no file can be written there.
        """
        try:
            if os.path.lexists(self._given) and not Path(self._given).exists():
                raise FileExistsError(errno.EEXIST, "a symbolic link that leads to nothing")
            self._directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._directory):
                pass
            _check_manifest(self._directory / MANIFEST)
        except (OSError, ValueError) as exc:
            raise _unwritable(self._directory, exc) from exc
        # One lstat per name: the file system decides whether names of another case are equal.
        return {
            segment_id: problem
            for segment_id, name in self._names.items()
            if os.path.lexists(path := self._directory / name)
            and (problem := _obstacle(path, overwrite=self._overwrite or str(path) in own))
        }


def check_target(target: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """The absolute path of a single file that may be written; else ConfigurationError."""
    require_posix("files")
    path = _resolved(target, _target)
    if path.parent == Path("/dev"):
        # Root would replace /dev/stdout, a link to an open file, or make a file of a disk's name.
        raise ConfigurationError(f"{path} is not a regular file: nothing is written into /dev")
    if os.fspath(target).endswith("/") and not path.exists():
        raise ConfigurationError(f"{path}/ names a directory, not a file in it")
    problem = _obstacle(path, overwrite=overwrite) if os.path.lexists(path) else None
    if problem is not None:
        raise problem
    try:
        with contextlib.suppress(FileNotFoundError):
            sidecar_of(path).lstat()  # fails for a name that is too long or has a NUL
        with tempfile.TemporaryFile(dir=path.parent):
            return path
    except (OSError, ValueError) as exc:
        raise _unwritable(path, exc) from exc


def _resolved(
    path: str | os.PathLike[str], resolve: Callable[[str | os.PathLike[str]], Path]
) -> Path:
    try:
        return resolve(path)
    except (OSError, ValueError):
        return Path(path).absolute()  # not a path: the error comes from writing there


def _check_manifest(path: Path) -> None:
    """Raise now rather than at the first outcome, whose line would be missing."""
    if os.path.lexists(path):
        os.close(open_regular(path, os.O_RDWR | os.O_APPEND))


async def on_disk(path: str | os.PathLike[str], function: Callable[[], T]) -> T:
    """Call a function that checks or reads files at this path, in a worker thread.

    Raises:
        ConfigurationError: no thread can be started.
    """
    try:
        return await in_thread(function)
    except NoThread as exc:
        raise _unwritable(path, exc) from exc


def _unwritable(path: str | os.PathLike[str], exc: OSError | ValueError) -> ConfigurationError:
    reason = exc.strerror if isinstance(exc, OSError) else None
    return ConfigurationError(f"can't write {os.fspath(path)!r}: {reason or exc}")


def _obstacle(path: Path, *, overwrite: bool) -> ConfigurationError | None:
    if path.is_dir() and not path.is_symlink():
        return ConfigurationError(f"{path} is a directory")
    if path.exists() and not path.is_file() and not path.is_dir():
        # A device, a FIFO or a socket, also behind a link: the file would replace it.
        return ConfigurationError(f"{path} is not a regular file")
    if not overwrite:
        return TargetExistsError(f"{path} exists; overwrite=True replaces it", path=str(path))
    return None


def in_place(files: Mapping[str, ExportedFile]) -> dict[str, ExportedFile]:
    """Those of the files that are in their places, with the recorded sizes."""
    return {segment_id: file for segment_id, file in files.items() if _is_there(file)}


def _is_there(file: ExportedFile) -> bool:
    """Whether a file of the recorded size is in its place. A symbolic link isn't followed."""
    try:
        found = Path(file.location).lstat()
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == file.size


def append_lines(path: Path, lines: Iterable[str]) -> None:
    """Append whole lines in one write, so that two processes' lines don't mix.

    Where the file's last line has no newline, one comes first: an editor, or a crash of the
    machine, may have left the file so, and the new line would become a part of the last one.

    Raises:
        OSError: no line was written, as far as the disk lets a part of one be removed again.
    """
    descriptor = open_regular(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        text = "".join(line + "\n" for line in lines)
        data = (("\n" if _is_torn(descriptor) else "") + text).encode()
        before, written = os.fstat(descriptor).st_size, 0
        try:
            while written < len(data):  # a full disk may take a part
                written += os.write(descriptor, data[written:])
        except OSError:
            if written and os.fstat(descriptor).st_size == before + written:
                os.ftruncate(descriptor, before)  # unless another process has written since
            raise
    finally:
        os.close(descriptor)


def _is_torn(descriptor: int) -> bool:
    """Whether the last line has no newline, and doesn't get one from a process that writes now."""
    before = -1
    while (size := os.fstat(descriptor).st_size) != before:
        if not size or os.pread(descriptor, 1, size - 1) == b"\n":
            return False
        before = size  # where the file has grown, a process writes
        time.sleep(_LINE_UNDER_WAY)
    return True
