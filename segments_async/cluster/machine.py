"""This process's machine, and the recognition of a run's directory from there. For threads."""

from __future__ import annotations

import contextlib
import re
import secrets
import socket
import time
import uuid
from collections.abc import Generator
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote

from segments_async._files.directory import absolute
from segments_async._journal.high_water import DIRECTORY
from segments_async._sansio.api.credentials import Secret
from segments_async._sansio.files.naming import scheme_of
from segments_async._sansio.jobs.workers import Machine
from segments_async.cluster.task import Place
from segments_async.errors import ConfigurationError

#: Another one after each start of the kernel, and one for all of its containers.
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_TOKEN = "coordinator-"  # noqa: S105 - the begin of a file's name

#: Seconds after which the file of a coordinator that was killed is removed.
_LEFT_BEHIND = 30 * 86_400

#: A password, in the URL after its `://`, as SQLAlchemy reads it: up to the @, whatever is in it.
#: For others the host ends at a `/`, `?` or `#` in the password.
_PASSWORD = re.compile(r"[^:/]*:[^@]*@")

#: A part of the name of each of libpq's parameters that is a secret: `password`, `sslpassword`,
#: `oauth_client_secret`, `scram_client_key`...
_SECRETS = ("password", "secret", "scram_")


def machine() -> Machine:
    """The machine of this process."""
    try:
        host = _BOOT.read_text().strip()
    except OSError:  # macOS
        host = f"{uuid.getnode():x} {socket.gethostname()}"
    return Machine(host=host, name=socket.gethostname(), version=_version())


def _version() -> str:
    try:
        return metadata.version("segments-async")
    except metadata.PackageNotFoundError:  # imported from a copy of the sources
        return "unknown"


@contextlib.contextmanager
def recognizable(location: str, journal: str) -> Generator[Place]:
    """The place of a run; a directory gets a file by which workers recognise it.

    Args:
        location: of the files: a directory, or the URL of object storage.
        journal: a path or URL.

    Raises:
        ConfigurationError: the directory can't be written.
    """
    inode = None
    if "://" not in journal:
        journal = str(absolute(journal))
        inode = _inode(journal)
    with _token(location) as token:
        yield Place(location=location, token=token, journal=journal, inode=inode)


@contextlib.contextmanager
def _token(location: str) -> Generator[str | None]:
    if scheme_of(location) is not None:
        yield None
        return
    # Another file for each call: two runs may have one directory, and a second call for the same
    # run, which is refused, must not take the first one's file away.
    token = f"{_TOKEN}{secrets.token_hex(16)}"
    path = Path(location) / DIRECTORY / token
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        _remove_old(path.parent)
        path.touch()
    except OSError as exc:
        raise ConfigurationError(f"can't write {str(path)!r}: {exc.strerror or exc}") from exc
    try:
        yield token
    finally:
        path.unlink(missing_ok=True)


def _remove_old(directory: Path) -> None:
    for path in directory.glob(f"{_TOKEN}*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _LEFT_BEHIND:
                path.unlink()


def sees_files(place: Place) -> bool:
    """Whether this process sees the run's directory; True for object storage."""
    if place.token is None:
        return True
    try:
        return (Path(place.location) / DIRECTORY / place.token).exists()
    except OSError:
        return False


def sees_journal(place: Place) -> bool | None:
    """Whether this process sees the directory of the journal's file; None for a server."""
    return None if place.inode is None else _inode(place.journal) == place.inode


def _inode(journal: str) -> tuple[int, int]:
    """Device and inode of the nearest directory above the file."""
    for parent in Path(journal).parents:
        with contextlib.suppress(OSError):
            found = parent.stat()
            return found.st_dev, found.st_ino
    return 0, 0


def check_travels(journal: Secret) -> None:
    """Refuse a journal whose URL may have a password, which the scheduler of a cluster would see.

    Raises:
        ConfigurationError: the URL has a password. No frame of the error shows it.
    """
    if _may_hold_password(journal):
        raise ConfigurationError(
            "journal: the URL has a password, and would travel to each worker. Leave it out, and "
            "set it in the workers' environment (PGPASSWORD, ~/.pgpass or a service file)"
        )


def _may_hold_password(journal: Secret) -> bool:
    _, separator, rest = journal.reveal().partition("://")
    if not separator:
        return False
    query = unquote(rest.partition("?")[2]).lower()
    return bool(_PASSWORD.match(rest)) or any(word in query for word in _SECRETS)
