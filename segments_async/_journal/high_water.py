"""How far a run's log was, kept outside the database: in the directory of the run's files.

A journal that was put back from a backup, or a database that failed over to a server without its
last commits, is whole and says nothing of what it lacks: every export since would be asked for
again. The witness is a small file that says how many events were durable. It is written after each
commit and never synced, so it is never ahead of a journal that keeps its promises.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import attrs

from segments_async._filesystem.trust import open_regular

logger: logging.Logger = logging.getLogger("segments_async")

#: In the directory of the files, as the command line's journal is.
DIRECTORY = ".segments-async"

#: Characters of a witness file, filled with blanks: it is written in place, and never shorter.
_SIZE = 4096


@attrs.frozen
class HighWaterMark:
    """What a witness says of a run.

    Attributes:
        journal: which one: a digest of `Backend.identity`.
        run: its name.
        started_at: as the journal writes it.
        events: how many were durable.
        finished: whether the run had ended.
        path: of the witness's file.
    """

    journal: str
    run: str
    started_at: str
    events: int
    finished: bool
    path: Path

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """None where the file isn't one that this library writes."""
        try:
            with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
                value = json.loads(file.read(2 * _SIZE))
            seen = cls(
                value["journal"],
                value["run"],
                value["started_at"],
                value["events"],
                value["finished"],
                path,
            )
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        kinds = (str, str, str, int, bool)
        values = (seen.journal, seen.run, seen.started_at, seen.events, seen.finished)
        if any(type(v) is not kind for v, kind in zip(values, kinds, strict=True)):
            return None
        return seen


class HighWaterFile:
    """The file of one run that this process holds. What goes wrong with it harms no run."""

    def __init__(self, destination: str, journal: str, run: str, started_at: str) -> None:
        self._about = {"journal": digest(journal), "run": run, "started_at": started_at}
        self._directory = Path(destination) / DIRECTORY
        self._path = _path(self._directory, journal, run, started_at)
        self._descriptor: int | None = None
        self._failed = False

    def write(self, events: int, *, finished: bool) -> None:
        """So many events are durable."""
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
        # Not its parents: files go into a directory that the run has made.
        with contextlib.suppress(FileExistsError):
            self._directory.mkdir(mode=0o700)
        return open_regular(self._path, os.O_WRONLY | os.O_CREAT)


def marks(destination: str, journal: str) -> Iterator[HighWaterMark]:
    """What is said, in this directory, of the runs of this journal."""
    for path in sorted((Path(destination) / DIRECTORY).glob("seen-*.json")):
        seen = HighWaterMark.read(path)
        if seen is not None and seen.journal == digest(journal):
            yield seen


def remove_mark(destination: str, journal: str, run: str, started_at: str) -> None:
    """The run is no more in the journal, and isn't missed."""
    with contextlib.suppress(OSError):
        _path(Path(destination) / DIRECTORY, journal, run, started_at).unlink()


def _path(directory: Path, journal: str, run: str, started_at: str) -> Path:
    return directory / f"seen-{digest(journal, run, started_at)}.json"


def digest(*parts: str) -> str:
    """A short name for what may have any characters, and may be anybody's business."""
    return hashlib.sha256("\n".join(parts).encode(errors="surrogatepass")).hexdigest()[:16]
