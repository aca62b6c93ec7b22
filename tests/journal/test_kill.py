"""kill -9 of a writing process: the log has all events for which record() returned, in order."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pytest
from forked import serving

from journal.lives import ACCOUNT, DESTINATION
from segments_async._journal.backends import backend
from segments_async._journal.database import Database
from segments_async._journal.opening import open_run

#: Events after which a writer is killed, at the most: chance says which, and how soon after it.
#: Time alone would kill each writer of a busy machine before its first event.
MOST_EVENTS = 60
LONGEST = 0.05  # seconds

#: Seconds within which a writer has written them, or hangs.
PATIENCE = 120.0


class WriterServer:
    """A process that forks writers, one at a time."""

    def __init__(self, orders: TextIO, answers: TextIO) -> None:
        self._orders = orders
        self._answers = answers

    def kill_one(
        self,
        where: str,
        record: Path,
        generation: int,
        events: int,
        after: float = 0.0,
        to: str = DESTINATION,
    ) -> None:
        """Let a writer live until record() returned for so many events, and some seconds more."""
        print(json.dumps([where, to, str(record), generation]), file=self._orders, flush=True)
        pid = int(self._answers.readline())
        until = time.monotonic() + PATIENCE
        while len(told(record, "returned")) < events:
            assert time.monotonic() < until, "it doesn't write"
            time.sleep(0.001)
        time.sleep(after)  # chance decides where it dies, and nothing is claimed of when
        os.kill(pid, signal.SIGKILL)
        assert self._answers.readline() == "gone\n"


@contextmanager
def start_writer_server() -> Iterator[WriterServer]:
    with serving("journal.writer") as (orders, answers):
        yield WriterServer(orders, answers)


@pytest.fixture
def writer_server() -> Iterator[WriterServer]:
    with start_writer_server() as server:
        yield server


def replayed(where: str, destination: str = DESTINATION) -> list[list[str]]:
    """The log, after a later session has opened it without an error."""
    run = open_run(Database.open(where, ACCOUNT), destination, None, "unexpected")
    try:
        assert run.name != "unexpected"
        with backend(where).engine.connect() as connection:
            query = (
                "SELECT segment_id, event FROM segments_async_events JOIN segments_async_runs r "
                f"ON r.id = run_id WHERE r.name = '{run.name}' ORDER BY number"
            )
            rows = [list(row) for row in connection.exec_driver_sql(query)]
        assert run.known.keys() == {segment_id for segment_id, _ in rows}
        return rows
    finally:
        run.close()


def told(record: Path, word: str) -> list[list[str]]:
    """The events that a writer called record() for, or that this returned for."""
    lines = record.read_text().split("\n")[:-1] if record.exists() else []
    return [line.split()[1:] for line in lines if line.startswith(word)]


@pytest.mark.counted(6, 30, "kills")
@pytest.mark.parametrize("seed", [20261124])
def test_killed_at_any_time(
    where: str, seed: int, writer_server: WriterServer, tmp_path: Path, count: int
) -> None:
    """After each kill the log has every event for which record() had returned.

    Of the events recorded since, the log has the first ones. The next session goes on with the run
    at once, each time.
    """
    chance = random.Random(seed)
    before: list[list[str]] = []
    asked_for = returned_at_all = 0
    for generation in range(count):
        record = tmp_path / f"record-{generation}"
        events, after = chance.randrange(MOST_EVENTS), chance.uniform(0.0, LONGEST)
        writer_server.kill_one(where, record, generation, events, after)
        asked_for += events
        called, returned = told(record, "called"), told(record, "returned")
        if not before and not called:
            continue  # it died before there was a run
        log = replayed(where)
        new = log[len(before) :]
        assert log[: len(before)] == before
        assert new == called[: len(new)]
        assert [entry for entry in returned if entry not in new] == []
        before, returned_at_all = log, returned_at_all + len(returned)
    assert returned_at_all >= asked_for > 10 * count


def test_two_processes_on_one_database(
    where: str, writer_server: WriterServer, tmp_path: Path
) -> None:
    """Two processes write a run each at the same time, and are killed: each log is whole."""
    with start_writer_server() as other:
        writers = [
            threading.Thread(
                target=one.kill_one,
                args=(where, tmp_path / f"record-{n}", n, MOST_EVENTS),
                kwargs={"to": f"/to-{n}"},
            )
            for n, one in enumerate([writer_server, other])
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
    for number in range(2):
        called = told(tmp_path / f"record-{number}", "called")
        returned = told(tmp_path / f"record-{number}", "returned")
        log = replayed(where, f"/to-{number}")
        assert log == called[: len(log)]
        assert [entry for entry in returned if entry not in log] == []
        assert len(returned) >= MOST_EVENTS
