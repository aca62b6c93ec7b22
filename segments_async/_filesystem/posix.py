"""What downloads and journals need of the system: file locks, and paths that lead somewhere.

Windows has no such locks. The package can be imported there: a client without files works, and so
does the sandbox.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from segments_async.errors import ConfigurationError, printable


def require_posix(what: str) -> None:
    """Refuse what this operating system can't do, before anything is sent.

    Args:
        what: "files", "a journal".

    Raises:
        ConfigurationError: the system has no `flock`.
    """
    if find_spec("fcntl") is None:
        raise ConfigurationError(
            f"{what}: needs Linux or macOS, whose file locks this system lacks. Without a "
            "directory (to=None) and a journal the client works, and open_export() reads a file as "
            "a stream. Nothing was sent"
        )


def real_path(path: str | os.PathLike[str]) -> Path:
    """The absolute path without symbolic links and ``..``.

    Raises:
        ConfigurationError: the path is relative to a directory that was removed.
    """
    try:
        return Path(os.path.realpath(path))
    except FileNotFoundError:
        raise ConfigurationError(
            f"{printable(os.fspath(path))}: a relative path leads nowhere, since the current "
            "directory of this process was removed. Nothing was sent"
        ) from None
