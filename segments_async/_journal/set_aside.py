"""Unwritten events of a run, stored for the next session beside the run's files.

A run that ends while its journal is away knows of exports that the journal doesn't have. Without
their events, a later session would report a lost answer for such an export. The rows are those of
the journal: numbered, with a checksum, and without a link or a credential.
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

from segments_async._filesystem.disk import sync_file
from segments_async._filesystem.trust import distrust_of_file, distrust_of_path
from segments_async._journal.high_water import DIRECTORY, digest, is_local
from segments_async._journal.refusals import journal_error
from segments_async._journal.tables import ChecksumError, check_event, events

logger: logging.Logger = logging.getLogger("segments_async")

_COLUMNS = tuple(column.name for column in events.columns if column.name != "id")


@attrs.frozen
class SetAside:
    """The file for the unwritten events of one run.

    Attributes:
        path: of the file. Most runs never have one.
    """

    path: Path

    @classmethod
    def of(cls, journal: str, row: Mapping[str, Any]) -> SetAside | None:
        """The file of a run; None for a run without a directory. `journal`: `Backend.identity`."""
        if not is_local(row["destination"]):
            return None
        name = f"unwritten-{digest(journal, row['name'], row['started_at'])}.jsonl"
        return cls(Path(row["destination"]) / DIRECTORY / name)

    def has_place(self) -> bool:
        """Whether the directory's permissions let this process write the file."""
        directory = self.path.parent
        nearest = directory if directory.is_dir() else directory.parent
        return os.access(nearest, os.W_OK | os.X_OK)

    def save(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Store the rows, all or none. Whether they were stored."""
        new = self.path.with_suffix(".new")
        try:
            # Without parents: the run has created the directory of the files.
            with contextlib.suppress(FileExistsError):
                new.parent.mkdir(mode=0o700)
            new.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with os.fdopen(os.open(new, flags, 0o600), "w") as file:
                file.writelines(json.dumps(dict(row)) + "\n" for row in rows)
                file.flush()
                sync_file(file.fileno())
            new.replace(self.path)
        except OSError as exc:
            logger.error("can't write %s: %s", self.path, exc.strerror or exc)
            return False
        return True

    def load(self, run_id: int, number: int, last_checksum: str | None) -> Sequence[dict[str, Any]]:
        """The stored rows after the log's last event; empty where the log has gone on otherwise.

        Args:
            run_id: of the run in the journal.
            number: of the log's last event.
            last_checksum: of that event.

        Raises:
            JournalError: ``foreign``: another user may have written them.
        """
        self._check_trust()
        rows = self._read()
        before = [row["seal"] for row in rows if row["number"] == number]
        rest = [{name: row[name] for name in _COLUMNS} for row in rows if row["number"] > number]
        expected = [(run_id, number + 1 + index) for index in range(len(rest))]
        follows = [(row["run_id"], row["number"]) for row in rest] == expected
        if follows and before in ([], [last_checksum]):
            return rest
        logger.warning(
            "%s has events that do not follow the journal's: another session has gone on with the "
            "run. They were not written into the journal; the file is left as it is",
            self.path,
        )
        return []

    def _read(self) -> Sequence[dict[str, Any]]:
        try:
            rows = [json.loads(line) for line in self.path.read_bytes().splitlines()]
            for row in rows:
                check_event(*(row[name] for name in _COLUMNS))
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError, RecursionError, ChecksumError) as exc:
            logger.warning(
                "%s can't be read (%s). Its events were not written into the journal; the file is "
                "left as it is",
                self.path,
                exc,
            )
            return []
        return rows

    def _check_trust(self) -> None:
        if not os.path.lexists(self.path):
            return
        problem = distrust_of_path(self.path) or distrust_of_file(self.path)
        if problem is not None:
            raise journal_error(
                str(self.path),
                "foreign",
                f"events that a session could not write into the journal are not read, because "
                f"{problem}",
            )

    def remove(self) -> None:
        """Remove the file: the journal has its rows."""
        with contextlib.suppress(OSError):
            self.path.unlink()
