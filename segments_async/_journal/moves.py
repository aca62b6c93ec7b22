"""Runs whose directory has another path than the one that their journal recorded.

Either the directory was moved together with the journal, or an earlier version recorded a path
through a symbolic link. Opening a run writes the present path into the journal. The events of the
run are left as they are: the paths of files in them are read as paths in the present directory.

A directory counts as moved only by evidence: it has a mark (see `high_water`) of one of its runs,
made while the journal was at its old path, and no such mark is at the recorded path. So a copy,
whose original is still there, is another directory. For worker threads.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
from sqlalchemy import Connection, inspect, select

from segments_async._filesystem.trust import distrust_of_file, distrust_of_path
from segments_async._journal.backends import Backend
from segments_async._journal.high_water import DIRECTORY, HighWaterFile, is_local, mark_path, marks
from segments_async._journal.refusals import Locked
from segments_async._journal.set_aside import SetAside
from segments_async._journal.tables import (
    ChecksumError,
    checked,
    directories,
    insert_row,
    runs,
    update_row,
)
from segments_async._sansio.files.naming import moved_path
from segments_async._sansio.jobs.record import ExportRecord

logger: logging.Logger = logging.getLogger("segments_async")


@attrs.frozen
class _Move:
    """A directory with another path than the recorded one.

    Attributes:
        before: the recorded path.
        now: the present path.
        journal: path of the journal when the directory had the recorded path.
    """

    before: str
    now: str
    journal: str


def moves(connection: Connection, file: Path | None) -> dict[str, str]:
    """The present path of each directory that has moved, by its recorded path.

    Args:
        file: the journal's file. None, for a server: no directory counts as moved, since those of
            other machines can't be seen from here.
    """
    return {move.before: move.now for move in _moves(connection, file)}


def follow_moves(connection: Connection, backend: Backend) -> list[Path]:
    """Write the present paths into the journal, in a transaction that excludes other processes.

    Returns: files to remove once the transaction is durable.

    Raises:
        Locked: a live process has a run of such a directory.
    """
    old: list[Path] = []
    for move in _moves(connection, backend.file):
        found = connection.execute(select(runs).where(runs.c.destination == move.before)).all()
        rows = [checked(runs, row) for row in found]
        for row in rows:
            if row["ended_at"] is None and backend.locked(connection, [row["id"]]):
                raise Locked(f"run {row['name']} is held by a live process, in {move.before}")
            update_row(connection, runs, {**row, "destination": move.now})
        _remember(connection, move.before, move.now)
        if move.journal != backend.location:
            old += _carry_files(move, backend.location, rows)
        logger.info("%s was moved to %s: its runs go on there", move.before, move.now)
    return old


def former_directories(connection: Connection, directory: str | None) -> frozenset[str]:
    """Paths that the directory had before, as far as the journal knows."""
    if directory is None or not inspect(connection).has_table(directories.name):
        return frozenset()
    query = select(directories).where(directories.c.present == directory)
    return frozenset(str(checked(directories, row)["former"]) for row in connection.execute(query))


def in_present_directory(
    records: dict[str, ExportRecord], directory: str | None, former: Collection[str]
) -> dict[str, ExportRecord]:
    """The records, with the files of former directories in the present one."""
    if directory is None or not former:
        return records
    return {
        segment_id: attrs.evolve(record, file=attrs.evolve(record.file, location=location))
        if record.file and (location := moved_path(record.file.location, directory, former))
        else record
        for segment_id, record in records.items()
    }


def remove_files(files: Collection[Path]) -> None:
    """Remove the old marks. A mark that can't be removed belongs to no run any more."""
    for path in files:
        with contextlib.suppress(OSError):
            path.unlink()


def _moves(connection: Connection, file: Path | None) -> list[_Move]:
    if file is None:
        return []
    of_runs: dict[str, list[tuple[str, str]]] = {}
    query = select(runs).where(runs.c.destination.is_not(None)).order_by(runs.c.id.desc())
    for found in connection.execute(query):
        # A damaged row is reported when its own run is opened or listed.
        with contextlib.suppress(ChecksumError):
            row = checked(runs, found)
            of_runs.setdefault(row["destination"], []).append((row["name"], row["started_at"]))
    local = {at: started for at, started in of_runs.items() if is_local(at)}
    places = [_present(file, before, started) for before, started in local.items()]
    return [move for move in places if move.now != move.before]


def _present(file: Path, before: str, started: Collection[tuple[str, str]]) -> _Move:
    """Where a recorded directory is now. `started`: names and times of its runs."""
    if next(_marked(before, str(file), started), None) is None:
        for now, journal in _earlier_places(Path(before), file):
            here = set(_marked(str(now), journal, started))
            if here and (
                _is_same(before, now) or here.isdisjoint(_marked(before, journal, started))
            ):
                return _Move(before, str(now), journal)
    # `realpath` of a path without links is the path itself, even where nothing is there.
    real = os.path.realpath(before)
    return _Move(before, real if _is_directory(Path(real)) else before, str(file))


def _earlier_places(before: Path, file: Path) -> Iterator[tuple[Path, str]]:
    """Present paths that the directory may have, each with the journal's path before the move.

    A directory that both lie in was renamed: the directory itself, or one above.
    """
    for prefix, parent in itertools.product((before, *before.parents), file.parents):
        if prefix != parent:
            now = parent / before.relative_to(prefix)
            if _is_directory(now / DIRECTORY):
                yield now, str(prefix / file.relative_to(parent))


def _marked(
    directory: str, journal: str, started: Collection[tuple[str, str]]
) -> Iterator[tuple[str, str]]:
    """The runs whose marks are in the directory, and were put there by no other user."""
    if _is_directory(Path(directory) / DIRECTORY):
        for run in started:
            mark = mark_path(directory, journal, *run)
            if os.path.lexists(mark) and _is_ours(mark):
                yield run


def _is_ours(mark: Path) -> bool:
    try:
        return distrust_of_path(mark) is None and distrust_of_file(mark) is None
    except OSError:
        return False


def _is_directory(path: Path) -> bool:
    """As `is_dir`; False, too, where a directory on the path can't be searched."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _is_same(before: str, now: Path) -> bool:
    try:
        return now.samefile(before)
    except OSError:
        return False


def _remember(connection: Connection, before: str, now: str) -> None:
    wanted = {before, *former_directories(connection, before)} - {now}
    for former in sorted(wanted - former_directories(connection, now)):
        insert_row(connection, directories, {"former": former, "present": now})


def _carry_files(move: _Move, journal: str, rows: Collection[Mapping[str, Any]]) -> list[Path]:
    """Give the files beside the exports the names that belong to the journal's present place.

    Returns: the old marks. They stay until the transaction is durable: without them, a later
    attempt would not recognise the move.
    """
    for row in rows:
        unwritten = SetAside.of(move.journal, {**row, "destination": move.now})
        renamed = SetAside.of(journal, {**row, "destination": move.now})
        if unwritten is not None and renamed is not None:
            with contextlib.suppress(FileNotFoundError):
                unwritten.path.rename(renamed.path)
    old = list(marks(move.now, move.journal))
    for seen in old:
        mark = HighWaterFile(move.now, journal, seen.run, seen.started_at)
        mark.write(seen.events, finished=seen.finished)
        mark.close()
    return [seen.path for seen in old]
