"""Real processes over real sockets, killed at random moments or at every durable operation."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import statistics
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TextIO

import attrs
from forked import serving

from reliability.judge import Contents, Told, duplicates, half_files, load, unaccounted
from reliability.victim import DIED, Job
from segments_async.sandbox import Durations, Fault, FileHost, Sandbox, TokenBucket
from segments_async.sandbox.server import SandboxServer

#: Segments of a run that is killed, the number of kills, and the longest life of a session.
SEGMENTS = 60
KILLS_OF_A_RUN = 14
LONGEST = 0.6

#: An upper bound of a run's moments.
MOST_MOMENTS = 2_000


class SessionServer:
    """A process that forks sessions, one at a time."""

    def __init__(self, orders: TextIO, answers: TextIO) -> None:
        self._orders = orders
        self._answers = answers

    def start(self, job: Job) -> int:
        print(json.dumps(attrs.asdict(job)), file=self._orders, flush=True)
        return int(self._answers.readline())

    def wait(self) -> int:
        """Wait for the process. Returns its exit status; negative for a signal."""
        word, status = self._answers.readline().split()
        assert word == "gone"
        return int(status)


@contextlib.contextmanager
def session_server() -> Generator[SessionServer]:
    with serving("reliability.victim") as (orders, answers):
        yield SessionServer(orders, answers)


@attrs.define
class Tally:
    """The results.

    Attributes:
        complaints: the judge's.
        runs: that came to their end.
        kills: of the runs' sessions.
        posts: POSTs in the vendor's record.
        alive: seconds of all sessions together.
        answers: seconds between each POST and its answer.
        unknown: exports that are reported as unknown.
        exported: whole files.
    """

    complaints: list[str] = attrs.field(factory=list[str])
    runs: int = 0
    kills: int = 0
    posts: int = 0
    alive: float = 0.0
    answers: list[float] = attrs.field(factory=list[float])
    unknown: int = 0
    exported: int = 0

    def add(self, other: Tally) -> None:
        for name in attrs.fields_dict(Tally):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def unknown_per_kill(self) -> float:
        return self.unknown / max(1, self.kills)

    @property
    def most_unknown_per_kill(self) -> float:
        """2 x (POST rate x answer time) + 1."""
        in_flight = self.posts / self.alive * statistics.mean(self.answers)
        return 2 * in_flight + 1


def kill_runs(directory: Path, seed: int, kills: int, journal: Callable[[], str | None]) -> Tally:
    """Kill sessions of run after run, up to a number of kills; then each run comes to its end."""
    tally = Tally()
    with session_server() as sessions:
        number = 0
        while tally.kills < kills:
            number += 1
            place = directory / f"run-{number}"
            place.mkdir()
            chance = random.Random(f"kills {seed} {number}")
            most = min(KILLS_OF_A_RUN, kills - tally.kills)
            _kill_run(sessions, place, chance, most, journal() or str(place / "runs.db"), tally)
    return tally


def _kill_run(
    sessions: SessionServer,
    place: Path,
    chance: random.Random,
    most: int,
    journal: str,
    tally: Tally,
) -> None:
    sandbox = Sandbox(
        segments=SEGMENTS,
        rows=1_000,
        seed=chance.randrange(10**6),
        latency=0.05,
        durations=Durations(1.0, 0.7),
        limit=TokenBucket(60, 10),
        file_host=FileHost(rate=4e5),
    )
    contents = Contents(sandbox)
    told = place / "told.json"
    kills = 0
    with SandboxServer(sandbox) as server:
        job = Job(server.base_url, sandbox.segment_ids, str(place / "exports"), journal, str(told))
        while not told.exists():
            pid = sessions.start(job)
            began = time.monotonic()
            if kills < most:
                time.sleep(chance.uniform(0.0, LONGEST))  # chance decides where it dies
                os.kill(pid, signal.SIGKILL)
            status = sessions.wait()
            tally.alive += time.monotonic() - began
            if status == -signal.SIGKILL:
                kills += 1
            elif status != 0:
                tally.complaints.append(f"a session ended with status {status}")
                break
            with server.lock:
                tally.complaints += half_files(contents, place / "exports")
    _judge(sandbox, contents, told, tally)
    tally.runs += 1
    tally.kills += kills


def _judge(sandbox: Sandbox, contents: Contents, told: Path, tally: Tally) -> list[Told]:
    outcomes = load(told.read_text()) if told.exists() else []
    tally.complaints += duplicates(sandbox.record)
    tally.complaints += unaccounted(sandbox, contents, outcomes, killed=True)
    posts = sandbox.record.submits()
    tally.posts += len(posts)
    tally.answers += [e.ended_at - e.at for e in posts if e.ended_at is not None]
    tally.unknown += sum(o.error == "SubmitUnknownError" for o in outcomes)
    tally.exported += sum(o.error is None for o in outcomes)
    return outcomes


def die_everywhere(
    directory: Path,
    journal: Callable[[], str | None],
    *,
    first: int = 1,
    every: int = 1,
    shared: bool = False,
) -> Tally:
    """A small run that dies at its first moment, then one at its second, until none is left.

    A second session brings each run to its end.

    Args:
        directory: of all the runs.
        journal: makes a place for one more journal; None: beside the files.
        first: the first moment that is tried.
        every: every so many-th moment after it is tried.
        shared: whether the run is a shared one.
    """
    tally = Tally()
    with session_server() as sessions:
        for moment in range(first, MOST_MOMENTS, every):
            place = directory / f"moment-{moment}"
            place.mkdir()
            where = journal() or str(place / "runs.db")
            if not _die_once(sessions, place, moment, where, tally, shared=shared):
                return tally
    raise AssertionError("it never comes to its end")


def _die_once(
    sessions: SessionServer, place: Path, moment: int, journal: str, tally: Tally, *, shared: bool
) -> bool:
    """Run a session that may die. Returns whether it died."""
    sandbox = Sandbox(segments=3, rows=300, seed=moment, durations=Durations(0.01, 0.0))
    # A download that breaks off leaves a part and its sidecar.
    sandbox.inject(Fault.cut(9_000), origin="files")
    contents = Contents(sandbox)
    told = place / "told.json"
    with SandboxServer(sandbox) as server:
        to = str(place / "exports")
        job = Job(server.base_url, sandbox.segment_ids, to, journal, str(told), shared=shared)
        sessions.start(attrs.evolve(job, dies_at=moment))
        died = sessions.wait()
        if died not in (0, DIED):
            tally.complaints.append(f"moment {moment}: the session ended with status {died}")
        tally.complaints += [
            f"moment {moment}: {c}" for c in half_files(contents, place / "exports")
        ]
        if died == DIED:
            told.unlink(missing_ok=True)
            sessions.start(attrs.evolve(job, dies_at=MOST_MOMENTS * 10))
            status = sessions.wait()
            if status != 0:
                tally.complaints.append(f"moment {moment}: the next one ended with {status}")
    before = len(tally.complaints)
    outcomes = _judge(sandbox, contents, told, tally)
    unknown = sum(o.error is not None for o in outcomes)
    if unknown > 3:
        tally.complaints.append(f"{unknown} unknown")
    tally.complaints[before:] = [f"moment {moment}: {c}" for c in tally.complaints[before:]]
    tally.runs += 1
    tally.kills += died == DIED
    return died == DIED
