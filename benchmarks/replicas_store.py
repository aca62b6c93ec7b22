"""What the journal is asked by each operation of a shared run: measured on the real code.

Each operation is carried out once, and a small run is worked at. The statements and the commits are
counted.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import attrs
from sqlalchemy import Engine, event

sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]

from client.vendor import connected

from segments_async import RunSpec
from segments_async._journal import shared
from segments_async._journal.claiming import claim
from segments_async._journal.database import Database
from segments_async._journal.opened_run import OpenedRun
from segments_async._sansio.jobs.parts import FIRST_CLAIM
from segments_async._sansio.pace.shared_limit import Own
from segments_async.sandbox import Durations, Sandbox, TokenBucket
from segments_async.testing import virtual_time

#: Exports of the run that is worked at, and the limit that its only process has, in requests/s.
_EXPORTS, _RATE = 60, 10.0

#: Ids in one query of a claim.
IDS_AT_ONCE = 500


@attrs.frozen
class Cost:
    """What one operation asks of the database."""

    statements: float
    commits: float


@attrs.frozen
class Costs:
    """Of a look, an exchange, a claim, 500 more ids of a claim, and the events of an export."""

    look: Cost
    exchange: Cost
    claim: Cost
    claim_chunk: Cost
    export: Cost


class _Counting:
    """Counts the statements and commits of threads that work for one operation."""

    def __init__(self) -> None:
        self._of_thread = threading.local()
        self.found: Counter[str] = Counter()

    @contextmanager
    def counted(self) -> Iterator[Counter[str]]:
        """What this thread asks of any database from here on."""
        counter: Counter[str] = Counter()
        self._of_thread.counter = counter
        try:
            yield counter
        finally:
            self._of_thread.counter = None

    def on_statement(self, *_: Any) -> None:
        self._add("statements")

    def on_commit(self, _: Any) -> None:
        self._add("commits")

    def _add(self, what: str) -> None:
        counter = getattr(self._of_thread, "counter", None)
        if counter is not None:
            counter[what] += 1


def measure() -> Costs:
    """Carry each operation out once, on a journal in SQLite."""
    counting = _Counting()
    event.listen(Engine, "before_cursor_execute", counting.on_statement)
    event.listen(Engine, "commit", counting.on_commit)
    try:
        with tempfile.TemporaryDirectory() as directory:
            return _costs(counting, Path(directory))
    finally:
        event.remove(Engine, "before_cursor_execute", counting.on_statement)
        event.remove(Engine, "commit", counting.on_commit)


def _costs(counting: _Counting, directory: Path) -> Costs:
    ids = [f"{number:08}" for number in range(10 * IDS_AT_ONCE)]
    wanted: list[tuple[str, str | None]] = [(one, f"{one}.csv") for one in ids]
    database = Database.open(directory / "runs.db", "0" * 64)
    run_id = shared.join(database, None, "run", RunSpec(segments=ids, options={})).run_id

    def cost(operation: Callable[[], object]) -> Cost:
        with counting.counted() as counter:
            operation()
        return Cost(counter["statements"], counter["commits"])

    def take(some: list[tuple[str, str | None]]) -> Callable[[], object]:
        return lambda: claim(database, run_id, "me", some, most=FIRST_CLAIM).close()

    claim(database, run_id, "another", wanted[:IDS_AT_ONCE], most=None).close()
    # The second list begins with 500 ids that another process has claimed.
    near = cost(take(wanted[IDS_AT_ONCE : IDS_AT_ONCE + 20]))
    far = cost(take(wanted[: 2 * IDS_AT_ONCE]))
    own = Own(10.0, None, "", alone=False, waits=True)
    return Costs(
        look=cost(lambda: shared.look(database, run_id)),
        exchange=_second(lambda: cost(lambda: database.exchange("me", own.tell))),
        claim=near,
        claim_chunk=Cost(far.statements - near.statements, 0),
        export=_of_an_export(counting, directory),
    )


def _second(measured: Callable[[], Cost]) -> Cost:
    """The first one may make tables."""
    measured()
    return measured()


def _of_an_export(counting: _Counting, directory: Path) -> Cost:
    """Of the events of one export, in a process that has a hundredth of a limit of 1 000/s."""
    found: Counter[str] = Counter()
    append = OpenedRun.append

    def counted(run: OpenedRun, rows: Any) -> None:
        with counting.counted() as counter:
            append(run, rows)
        found.update(counter)

    async def work() -> None:
        sandbox = Sandbox(
            segments=_EXPORTS,
            rows=1,
            durations=Durations(20.0, 0.5),
            limit=TokenBucket(_RATE, 5),
            latency=0.08,
        )
        async with (
            connected(sandbox) as client,
            client.open_bulk_export(
                sandbox.segment_ids,
                directory / "files",
                journal=directory / "worked.db",
                run="run",
                shared=True,
            ) as run,
        ):
            await run.report()

    OpenedRun.append = counted  # type: ignore[method-assign]
    try:
        backend, options = virtual_time("asyncio")
        anyio.run(work, backend=backend, backend_options=options)
    finally:
        OpenedRun.append = append  # type: ignore[method-assign]
    return Cost(found["statements"] / _EXPORTS, found["commits"] / _EXPORTS)
