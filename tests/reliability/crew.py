"""Several real processes that share one run, some of which are killed.

Each process is the same program with the same arguments. A killed one is started again.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs

from reliability.judge import Contents, Told, duplicates, half_files, load, unaccounted
from reliability.processes import session_server
from reliability.victim import Job
from segments_async.sandbox import Durations, Sandbox, TokenBucket
from segments_async.sandbox.server import SandboxServer


@attrs.frozen(kw_only=True)
class Plan:
    """The crew's plan.

    Attributes:
        processes: number of processes at once.
        segments: of the run.
        kills: of all processes together, at random times.
        limit: of the account: requests/s and a burst of requests.
        longest: seconds between two kills, at most.
        durations: of the exports at the vendor.
        rows: of each file.
        logs: whether each process writes a log.
        signal: by which a process is killed.
        stop: seconds for which one process stands still (SIGSTOP), once a fifth is submitted.
        lies: whether every process gets every lock.
        clocks: seconds between the clocks of two processes.
    """

    processes: int
    segments: int
    kills: int
    limit: TokenBucket
    longest: float
    durations: Durations = attrs.field(factory=lambda: Durations(1.0, 0.7))
    rows: int = 50
    logs: bool = False
    signal: int = signal.SIGKILL
    stop: float = 0.0
    lies: bool = False
    clocks: float = 0.0

    @property
    def disturbed(self) -> bool:
        """Whether a process dies or loses its part: the journal may know a POST's INTENT alone."""
        return self.kills > 0 or self.lies or self.stop > 0


@attrs.define
class Found:
    """The crew's results.

    Attributes:
        complaints: the judge's.
        sandbox: the vendor.
        outcomes: of the whole run, by the report of one process.
        own: of each session that came to its end, what its loop got.
        kills: when each kill was, in seconds of the wall clock.
        seconds: from the first request to the last.
    """

    complaints: list[str]
    sandbox: Sandbox
    outcomes: Sequence[Told] = ()
    own: list[list[Told]] = attrs.field(factory=list[list[Told]])
    kills: list[float] = attrs.field(factory=list[float])
    seconds: float = 0.0

    @property
    def exported(self) -> int:
        return sum(told.error is None for told in self.outcomes)

    @property
    def unknown(self) -> int:
        return sum(told.error == "SubmitUnknownError" for told in self.outcomes)


class _Crew:
    """The processes, and the times at which one of them is killed."""

    def __init__(self, sandbox: Sandbox, jobs: Sequence[Job], plan: Plan, seed: int) -> None:
        self._sandbox = sandbox
        self._jobs = jobs
        self._plan = plan
        self._chance = random.Random(f"crew {seed}")
        self._alive: dict[str, int] = {}
        self._killed: set[int] = set()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self.kills: list[float] = []
        self.stopped = False
        self.complaints: list[str] = []

    def work(self) -> None:
        with ThreadPoolExecutor(len(self._jobs) + 2) as threads:
            disturbing = [threads.submit(self._kill_some), threads.submit(self._stop_one)]
            try:
                for one in [threads.submit(self._bring_home, job) for job in self._jobs]:
                    one.result()
            finally:
                self._over.set()  # or the pool would wait for ever for those who disturb
            for one in disturbing:
                one.result()

    def _bring_home(self, job: Job) -> None:
        """Start the process until it comes to its end by itself."""
        with session_server() as sessions:
            while True:
                pid = sessions.start(job)
                with self._lock:
                    self._alive[job.told] = pid
                status = sessions.wait()
                with self._lock:
                    del self._alive[job.told]
                    killed = pid in self._killed
                if not killed:
                    if status:
                        self.complaints.append(f"a session ended with status {status}")
                    return

    def _kill_some(self) -> None:
        while len(self.kills) < self._plan.kills:
            # Chance decides who dies when.
            if self._over.wait(self._chance.uniform(0.1, self._plan.longest)):
                return
            with self._lock:
                # Pids of this crew's own processes, for which their session server has not waited
                # yet.
                if alive := sorted(set(self._alive.values()) - self._killed):
                    self._kill(self._chance.choice(alive))

    def _kill(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended just now
            os.kill(pid, self._plan.signal)
            self._killed.add(pid)
            self.kills.append(time.time())

    def _stop_one(self) -> None:
        """One process stands still for a while."""
        if not self._plan.stop:
            return
        while len(self._sandbox.record.submits()) < self._plan.segments / 5:
            if self._over.wait(0.05):
                return
        with self._lock:
            pid = min(self._alive.values(), default=None)
            if pid is None:
                return
            os.kill(pid, signal.SIGSTOP)
        try:
            self._over.wait(self._plan.stop)
        finally:
            os.kill(pid, signal.SIGCONT)  # not waited for: it stands still
            self.stopped = True


def share(directory: Path, seed: int, plan: Plan, journal: str | None = None) -> Found:
    """Start all processes, kill some, start these again, until the run has ended."""
    sandbox = Sandbox(
        segments=plan.segments,
        rows=plan.rows,
        seed=seed,
        latency=0.03,
        durations=plan.durations,
        limit=plan.limit,
    )
    contents = Contents(sandbox)
    found = Found([], sandbox)
    with SandboxServer(sandbox) as server:
        jobs = [
            Job(
                server.base_url,
                sandbox.segment_ids,
                str(directory / "exports"),
                journal or str(directory / "runs.db"),
                str(directory / f"told-{n}.json"),
                shared=True,
                log=str(directory / f"log-{n}") if plan.logs else "",
                lies=plan.lies,
                clock=plan.clocks * n,
            )
            for n in range(plan.processes)
        ]
        crew = _Crew(sandbox, jobs, plan, seed)
        crew.work()
    found.complaints += crew.complaints
    if plan.stop and not crew.stopped:
        found.complaints.append("no process stood still: the run was too short")
    found.kills = crew.kills
    told = [load(Path(job.told).read_text()) for job in jobs]
    found.outcomes = told[0]
    found.own = [load(Path(f"{job.told}.own").read_text()) for job in jobs]
    found.complaints += unaccounted(sandbox, contents, found.outcomes, killed=plan.disturbed)
    if any(_facts(one) != _facts(told[0]) for one in told):
        found.complaints.append("two processes report different ends of the run")
    found.complaints += duplicates(sandbox.record)
    found.complaints += half_files(contents, directory / "exports")
    found.complaints += _told_twice(found.own, killed=plan.disturbed)
    api = sandbox.record.api()
    found.seconds = api[-1].at - api[0].at
    return found


def _facts(outcomes: Sequence[Told]) -> set[tuple[str, str | None, str | None]]:
    return {(told.segment_id, told.error, told.sha256) for told in outcomes}


def _told_twice(own: Sequence[Sequence[Told]], *, killed: bool) -> list[str]:
    """Each loop has a segment once, and two loops only one that a process was killed with."""
    found = [
        f"a loop got {segment} {count} times"
        for one in own
        for segment, count in Counter(told.segment_id for told in one).items()
        if count > 1
    ]
    fresh = Counter(told.segment_id for one in own for told in one if told.source == "exported")
    found += [f"{count} loops got {one} as new" for one, count in fresh.items() if count > 1]
    if not killed:
        counts = Counter(told.segment_id for one in own for told in one)
        found += [f"{count} loops got {one}" for one, count in counts.items() if count > 1]
    return found
