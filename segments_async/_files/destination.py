"""The directory and the names of a run's files, checked before any request to the vendor.

An export whose file can't be written would be a POST, and perhaps hours of the vendor's work, for
nothing. Synchronous, for worker threads.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import os
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from segments_async._files.part import sidecar_of
from segments_async._filesystem.disk import write_all
from segments_async._filesystem.posix import require_posix
from segments_async._filesystem.trust import open_regular
from segments_async._sansio.files.naming import file_names, scheme_of
from segments_async.errors import ConfigurationError, TargetExistsError

MANIFEST = "manifest.jsonl"


def absolute(path: str | os.PathLike[str]) -> Path:
    """The absolute path without symbolic links and ``..``, so that a directory has one path.

    Under two paths one directory would have two runs, which request the same exports. POSIX lets
    the system interpret two slashes at the beginning; Linux takes them for one.

    Raises:
        ConfigurationError: the path is a URL, which would become a local directory's name.
    """
    if scheme := scheme_of(os.fspath(path)):
        raise ConfigurationError(
            f"{scheme}://...: files can't be put there. They go into a directory of this machine, "
            "from which they can be copied. Nothing was asked of the vendor"
        )
    found = Path(os.path.realpath(path))
    return Path("/", *found.parts[1:]) if found.root == "//" else found


def _target(path: str | os.PathLike[str]) -> Path:
    """The absolute path of a file; a symbolic link in the file's own place isn't followed."""
    given = Path(path)
    return absolute(given.parent) / given.name if given.name not in ("", "..") else absolute(given)


class Destination:
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

    def with_names(self, names: Mapping[str, str]) -> Destination:
        """The same directory, with these files' names by segment id."""
        other = copy.copy(self)
        other._names = dict(names)
        return other

    @property
    def manifest(self) -> Path:
        return self._directory / MANIFEST

    def path(self, segment_id: str) -> Path:
        """The path of this segment's file."""
        return self._directory / self._names[segment_id]

    @property
    def names(self) -> Mapping[str, str]:
        """The name of each segment's file, by segment id."""
        return self._names

    @property
    def directory(self) -> Path:
        return self._directory

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
            _check_manifest(self.manifest)
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
    """Raise now, and not with the first outcome, whose line would be missing."""
    if os.path.lexists(path):
        os.close(open_regular(path, os.O_WRONLY | os.O_APPEND))


def _unwritable(path: Path, exc: OSError | ValueError) -> ConfigurationError:
    reason = exc.strerror if isinstance(exc, OSError) else None
    return ConfigurationError(f"can't write {str(path)!r}: {reason or exc}")


def _obstacle(path: Path, *, overwrite: bool) -> ConfigurationError | None:
    if path.is_dir() and not path.is_symlink():
        return ConfigurationError(f"{path} is a directory")
    if path.exists() and not path.is_file() and not path.is_dir():
        # A device, a FIFO or a socket, also behind a link: the file would replace it.
        return ConfigurationError(f"{path} is not a regular file")
    if not overwrite:
        return TargetExistsError(f"{path} exists; overwrite=True replaces it", path=str(path))
    return None


def append_lines(path: Path, lines: Iterable[str]) -> None:
    """Append lines in one write, so that two processes' lines don't mix."""
    descriptor = open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        write_all(descriptor, "".join(line + "\n" for line in lines).encode())
    finally:
        os.close(descriptor)
