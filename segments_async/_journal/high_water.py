"""The number of durable events of a run, stored outside the database, beside the run's files.

A journal that was put back from a backup, or a database that failed over to a server without its
last commits, is intact but lacks events: the exports since would be requested again. So a small
file holds the number of durable events. The file is written after each commit and never synced, so
that its number is never higher than that of a journal whose commits are durable.

A run whose files go to object storage has no such file, and so no such protection.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self, TypeGuard

import attrs
from attrs.validators import instance_of

from segments_async._filesystem.trust import open_regular

logger: logging.Logger = logging.getLogger("segments_async")

#: The library's own directory, in the directory of the files.
DIRECTORY = ".segments-async"

#: Characters of such a file, filled with blanks: it is overwritten in place, and never truncated.
_SIZE = 4096


@attrs.frozen
class HighWaterMark:
    """The content of one file.

    Attributes:
        journal: digest of `Backend.identity`.
        started_at: when the run started, as text of `format_time`.
        events: number of durable events.
        finished: whether the run had ended.
    """

    journal: str = attrs.field(validator=instance_of(str))
    run: str = attrs.field(validator=instance_of(str))
    started_at: str = attrs.field(validator=instance_of(str))
    events: int = attrs.field(validator=instance_of(int))
    finished: bool = attrs.field(validator=instance_of(bool))
    path: Path

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read a file; None where this library didn't write it."""
        try:
            with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
                value = json.loads(file.read(2 * _SIZE))
            return cls(
                value["journal"],
                value["run"],
                value["started_at"],
                value["events"],
                value["finished"],
                path,
            )
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None


class HighWaterFile:
    """The file of a run that this process has locked. Its errors are logged and not raised.

    A run whose files go to no directory has none, and then nothing is written.
    """

    def __init__(self, destination: str | None, journal: str, run: str, started_at: str) -> None:
        self._about = {"journal": digest(journal), "run": run, "started_at": started_at}
        self._path = mark_path(destination or "", journal, run, started_at)
        self._descriptor: int | None = None
        self._failed = not is_local(destination)

    def write(self, events: int, *, finished: bool) -> None:
        """Store the number of durable events."""
        if self._failed:
            return
        text = json.dumps({**self._about, "events": events, "finished": finished})
        try:
            if self._descriptor is None:
                self._descriptor = self._open()
            os.pwrite(self._descriptor, text.encode().ljust(_SIZE), 0)
        except OSError as exc:
            self._failed = True
            logger.debug("can't write %s: %s", self._path, exc.strerror or exc)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        # Without parents: the run has created the directory of the files.
        with contextlib.suppress(FileExistsError):
            self._path.parent.mkdir(mode=0o700)
        return open_regular(self._path, os.O_WRONLY | os.O_CREAT)


def is_local(destination: str | None) -> TypeGuard[str]:
    """Whether a run's files go to a directory. Object storage has a URL, and no such files."""
    return destination is not None and "://" not in destination


def marks(destination: str | None, journal: str) -> Iterator[HighWaterMark]:
    """The marks of this journal's runs in this directory; none in object storage."""
    if not is_local(destination):
        return
    for path in sorted((Path(destination) / DIRECTORY).glob("seen-*.json")):
        seen = HighWaterMark.read(path)
        if seen is not None and seen.journal == digest(journal):
            yield seen


def remove_mark(destination: str | None, journal: str, run: str, started_at: str) -> None:
    """Remove the file of a run that was deleted from the journal."""
    if not is_local(destination):
        return
    with contextlib.suppress(OSError):
        mark_path(destination, journal, run, started_at).unlink()


def mark_path(destination: str, journal: str, run: str, started_at: str) -> Path:
    """The path of a run's file. `journal`: `Backend.identity`."""
    name = f"seen-{digest(journal, run, started_at)}.json"
    return Path(destination) / DIRECTORY / name


def digest(*parts: str) -> str:
    """A short text without special characters, from which the parts can't be read."""
    return hashlib.sha256("\n".join(parts).encode(errors="surrogatepass")).hexdigest()[:16]
