"""Counts the journal's statements and commits, by what they are for."""

from __future__ import annotations

import contextlib
import inspect
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import attrs
from sqlalchemy import Connection, Engine, event

from segments_async import _journal
from segments_async._journal.opened_run import OpenedRun
from segments_async._sansio.jobs.lifecycle import Event

#: The journal's directory, by which a statement's caller is found.
_JOURNAL = str(Path(_journal.__file__ or "").parent)


@attrs.define
class Counts:
    """The statements and commits of all clients.

    Attributes:
        statements: by the function of the journal that was called.
        commits: of something, by the function of the journal that was called.
        batches: how many commits had these kinds of events.
        exposed: seconds from each INTENT's commit to that of the export's id.
    """

    statements: Counter[str] = attrs.field(factory=Counter[str])
    commits: Counter[str] = attrs.field(factory=Counter[str])
    batches: Counter[str] = attrs.field(factory=Counter[str])
    exposed: list[float] = attrs.field(factory=list[float])
    _since: dict[str, float] = attrs.field(factory=dict[str, float])

    def on_statement(self, connection: Connection, _: Any, statement: str, *__: Any) -> None:
        writes = statement.split(None, 1)[0] in ("INSERT", "UPDATE", "DELETE")
        connection.info["wrote"] = writes or connection.info.get("wrote", False)
        self.statements[_caller()] += 1

    def on_commit(self, connection: Connection) -> None:
        if connection.info.pop("wrote", False):
            self.commits[_caller()] += 1

    def on_batch(self, rows: Sequence[Mapping[str, Any]], now: float) -> None:
        self.batches[" ".join(sorted({str(row["event"]) for row in rows}))] += 1
        for row in rows:
            if row["event"] == Event.INTENT:
                self._since[row["segment_id"]] = now
            elif (since := self._since.pop(row["segment_id"], None)) is not None:
                self.exposed.append(now - since)


def _caller() -> str:
    """The outermost function of the journal on the stack of a worker thread."""
    frame, found = inspect.currentframe(), ""
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(_JOURNAL) and not code.co_name.startswith("_"):
            found = f"{Path(code.co_filename).stem}.{code.co_name}"
        frame = frame.f_back
    return found


@contextlib.contextmanager
def counted() -> Generator[Counts]:
    """Count the statements and commits of the block."""
    counts, append = Counts(), OpenedRun.append

    def counting(run: OpenedRun, rows: Sequence[dict[str, Any]]) -> None:
        append(run, rows)
        counts.on_batch(rows, anyio.from_thread.run_sync(anyio.current_time))

    listeners = (
        ("before_cursor_execute", counts.on_statement),
        ("commit", counts.on_commit),
    )
    for name, listener in listeners:
        event.listen(Engine, name, listener)
    OpenedRun.append = counting  # type: ignore[method-assign]
    try:
        yield counts
    finally:
        OpenedRun.append = append  # type: ignore[method-assign]
        for name, listener in listeners:
            event.remove(Engine, name, listener)
