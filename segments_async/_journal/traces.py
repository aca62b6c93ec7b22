"""Where the pace of a run over time is stored: one row for each run. For worker threads.

The row is replaced now and then, in a transaction that writes events of the run anyway. So it costs
no commit of its own, and a process that is killed loses the pace since the last one: that of half a
minute, or of longer where no event was written.
"""

from __future__ import annotations

from sqlalchemy import Connection, delete, inspect, select

from segments_async._journal.tables import Malformed, checked, insert_row, traces
from segments_async._sansio.pace.trace import PacePoint, trace_from_json


def store_trace(connection: Connection, run_id: int, points: str) -> None:
    """Store the points, as JSON, in place of those that are stored."""
    connection.execute(delete(traces).where(traces.c.run_id == run_id))
    insert_row(connection, traces, {"run_id": run_id, "points": points})


def load_trace(connection: Connection, run_id: int) -> list[PacePoint]:
    """The stored points; none where an earlier version wrote the journal.

    Raises:
        ChecksumError, Malformed: the row is not as this library writes it.
    """
    if not inspect(connection).has_table(traces.name):
        return []
    row = connection.execute(select(traces).where(traces.c.run_id == run_id)).one_or_none()
    if row is None:
        return []
    try:
        return trace_from_json(checked(traces, row)["points"])
    except ValueError as exc:
        raise Malformed(f"the trace of run {run_id} can't be read") from exc
