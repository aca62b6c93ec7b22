"""Where the spec of a run is stored: in its own table, and in files of earlier versions.

A table of its own, and not a column of the run: a journal of an earlier version is extended by
CREATE TABLE alone, the checksums of its rows stay valid, and an earlier version of this library
ignores the table. For worker threads.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, inspect, select

from segments_async._filesystem.trust import distrust_of_file
from segments_async._journal.high_water import DIRECTORY, digest, is_local
from segments_async._journal.records import RunSpec
from segments_async._journal.tables import checked, insert_row, specs
from segments_async.errors import ConfigurationError


def store_spec(connection: Connection, run_id: int, spec: RunSpec) -> None:
    """Store the spec of the run's present session in place of an earlier one."""
    text = json.dumps({"segments": list(spec.segments), "options": dict(spec.options)})
    row = {"run_id": run_id, "segments": len(spec.segments), "spec": text}
    drop_spec(connection, run_id)
    insert_row(connection, specs, row)


def drop_spec(connection: Connection, run_id: int) -> None:
    """Delete the spec of a run that has ended."""
    connection.execute(delete(specs).where(specs.c.run_id == run_id))


def load_spec(connection: Connection, run_id: int) -> RunSpec | None:
    """The stored spec; None where there is none.

    Raises:
        ChecksumError: the row is not as this library writes it.
    """
    if not inspect(connection).has_table(specs.name):
        return None
    row = connection.execute(select(specs).where(specs.c.run_id == run_id)).one_or_none()
    return None if row is None else _spec(json.loads(checked(specs, row)["spec"]), "options")


def spec_sizes(connection: Connection) -> dict[int, int]:
    """The number of segments in each stored spec, by run id. The specs themselves are not read."""
    if not inspect(connection).has_table(specs.name):
        return {}
    found = connection.execute(select(specs.c.run_id, specs.c.segments))
    return {row.run_id: row.segments for row in found}


def load_spec_file(destination: str | None, run: str) -> RunSpec | None:
    """The spec that an earlier version of the command line stored in the run's directory.

    Raises:
        ConfigurationError: another user may have written the file.
    """
    if not is_local(destination):
        return None
    path = _path(destination, run)
    if (problem := distrust_of_file(path)) is not None:
        raise ConfigurationError(f"the spec of run {run} is not read, because {problem}")
    try:
        value = json.loads(path.read_bytes())
        return _spec(value, "terms") if value["run"] == run else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def remove_spec_file(destination: str | None, run: str) -> None:
    """Remove a spec file of an earlier version: the journal has the spec, or not even the run."""
    if is_local(destination):
        with contextlib.suppress(OSError):
            _path(destination, run).unlink()


def _path(destination: str, run: str) -> Path:
    return Path(destination) / DIRECTORY / f"run-{digest(run)}.json"


def _spec(value: Any, options: str) -> RunSpec:
    return RunSpec(segments=tuple(map(str, value["segments"])), options=dict(value[options]))
