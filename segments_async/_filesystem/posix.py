"""What files and journals need of the operating system.

The package is imported without it, too: on Windows, a client without files, and the sandbox, work.
"""

from __future__ import annotations

from importlib.util import find_spec

from segments_async.errors import ConfigurationError


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
