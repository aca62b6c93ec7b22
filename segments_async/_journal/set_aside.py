"""Events that a journal could not take, kept for the next session beside the run's files.

A run that ends while its journal is away knows of exports that the journal doesn't. Without these
events, a later session would take such an export for one whose answer was lost. The rows are as
they would stand in the journal: numbered and with a checksum, and without a link or a credential.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from segments_async._filesystem.trust import distrust_of_file, distrust_of_way
from segments_async._journal.high_water import DIRECTORY, digest
from segments_async._journal.tables import ChecksumError, check_event, events
from segments_async.errors import JournalError

logger: logging.Logger = logging.getLogger("segments_async")

_COLUMNS = tuple(column.name for column in events.columns if column.name != "id")


@attrs.frozen
class SetAside:
    """The place for one run's events.

    Attributes:
        path: of the file, which mostly isn't there.
    """

    path: Path

    @classmethod
    def of(cls, journal: str, row: Mapping[str, Any]) -> SetAside | None:
        """Of a run in the journal (see `Backend.identity`); None where it has no directory."""
        if row["destination"] is None:
            return None
        name = f"unwritten-{digest(journal, row['name'], row['started_at'])}.jsonl"
        return cls(Path(row["destination"]) / DIRECTORY / name)

    def has_place(self) -> bool:
        """Whether a file can be written there, as far as can be told without writing it."""
        directory = self.path.parent
        nearest = directory if directory.is_dir() else directory.parent
        return os.access(nearest, os.W_OK | os.X_OK)

    def save(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Keep the rows, whole or not at all. Whether that went well."""
        new = self.path.with_suffix(".new")
        try:
            # Not its parents: files go into a directory that the run has made.
            with contextlib.suppress(FileExistsError):
                new.parent.mkdir(mode=0o700)
            new.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with os.fdopen(os.open(new, flags, 0o600), "w") as file:
                file.writelines(json.dumps(dict(row)) + "\n" for row in rows)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)
        except OSError as exc:
            logger.error("can't write %s: %s", self.path, exc.strerror or exc)
            return False
        return True

    def load(self, run_id: int, number: int, last_checksum: str | None) -> Sequence[dict[str, Any]]:
        """The rows that follow the log's last event; none where there are none, or don't follow it.

        Args:
            run_id: the run's in the journal.
            number: of the log's last event.
            last_checksum: that event's checksum.

        Raises:
            JournalError: ``foreign``: another user may have written them.
        """
        self._check_trust()
        try:
            rows = [json.loads(line) for line in self.path.read_bytes().splitlines()]
            for row in rows:
                check_event(*(row[name] for name in _COLUMNS))
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError, RecursionError, ChecksumError) as exc:
            logger.warning("%s can't be read, and is left as it is: %s", self.path, exc)
            return []
        before = [row["seal"] for row in rows if row["number"] == number]
        rest = [{n: row[n] for n in _COLUMNS} for row in rows if row["number"] > number]
        numbers = [row["number"] for row in rest]
        follows = numbers == list(range(number + 1, number + 1 + len(rest)))
        if (
            before not in ([], [last_checksum])
            or not follows
            or {r["run_id"] for r in rest} > {run_id}
        ):
            logger.warning(
                "%s has events that do not follow the journal, with which another session has gone "
                "on: they are left there",
                self.path,
            )
            return []
        return rest

    def _check_trust(self) -> None:
        if not os.path.lexists(self.path):
            return
        problem = distrust_of_way(self.path) or distrust_of_file(self.path)
        if problem is not None:
            raise JournalError(
                f"{self.path}: events that a session could not write into the journal are not "
                f"read, because {problem}",
                reason="foreign",
                location=str(self.path),
            )

    def remove(self) -> None:
        """The journal has the rows."""
        with contextlib.suppress(OSError):
            self.path.unlink()
