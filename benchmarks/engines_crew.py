"""An engine's processes, some of which are killed, and a judge that asks the vendor's record."""

from __future__ import annotations

import bisect
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import attrs
from engines_vendor import Settings, requests_per_export
from reliability.judge import Contents, digest, may_have_acted

from segments_async.sandbox import Durations, Sandbox, TokenBucket
from segments_async.sandbox.server import SandboxServer

_HERE = Path(__file__).parent

#: Seconds between two looks at the processes.
_LOOK = 0.05

#: Seconds for a run, after which it counts as hanging.
_PATIENCE = 900.0

_DURATIONS = Durations(3.0, 0.6)
_BURST = 20
#: Seconds of an answer, in the middle case.
_LATENCY = 0.2


@attrs.frozen(kw_only=True)
class Engine:
    """One row of the table.

    Attributes:
        name: in the table.
        program: the file of its processes.
        needs: modules that have to be installed.
        processes: number of working processes.
        place: its database or server, whose address the block gets.
        caller: whether another process, which isn't killed, asks for the exports and gets the
            results. Without one, the working processes end by themselves.
        own_workers: whether the caller starts the working processes.
        writes: what the engine wrote, as the table has it, from the run's directory.
        shared: whether the processes share one run (ours).
    """

    name: str
    program: str
    needs: Sequence[str]
    processes: int
    place: Callable[[], AbstractContextManager[str]]
    writes: Callable[[Path, int], str]
    caller: bool = True
    own_workers: bool = False
    shared: bool = False


@attrs.frozen(kw_only=True)
class Plan:
    """How much work, and how many kills of working processes at random times."""

    exports: int
    kills: int
    rate: float
    seed: int

    @property
    def longest(self) -> float:
        """Seconds between two kills, at most: they take about 4/3 of the least time together."""
        return 2 * 4 / 3 * self.least / max(1, self.kills)

    @property
    def least(self) -> float:
        """Seconds in which the limit grants a POST and one poll for each export."""
        return (2 * self.exports - _BURST) / self.rate


@attrs.frozen(kw_only=True)
class Found:
    """What the judge found.

    Attributes:
        repeated: POSTs for segments whose export an earlier POST may have begun.
        exported: segments whose whole file the caller was told of.
        errors: segments for which the caller got an error, by its name.
        never_sent: how many of those have no POST in the vendor's record.
        unaccounted: segments for which the caller got nothing, or a file that isn't whole.
        throttled: answers of 429.
        kills: of working processes.
        delays: for each kill, the seconds until a request about the first, and about the last, of
            the exports that the killed process was the last to ask about.
        stretch: the time from the first request to the last, over the least.
    """

    repeated: int
    exported: int
    errors: Counter[str]
    never_sent: int
    unaccounted: int
    throttled: int
    kills: int
    delays: list[tuple[float, float]]
    stretch: float


class Crew:
    """The processes. A killed one is started again."""

    def __init__(self, engine: Engine, settings: Path, directory: Path, plan: Plan) -> None:
        self._engine = engine
        self._settings = settings
        self._directory = directory
        self._plan = plan
        self._chance = random.Random(f"engines {plan.seed}")
        self._workers: dict[int, subprocess.Popen[bytes]] = {}
        #: When and whom.
        self.kills: list[tuple[float, int]] = []

    def work(self) -> None:
        """Let the processes work until the caller has its results."""
        (self._directory / "pids").mkdir()
        caller = self._start("caller", "") if self._engine.caller else None
        until = time.monotonic() + _PATIENCE
        try:
            if not self._engine.own_workers:
                for number in range(self._engine.processes):
                    self._workers[number] = self._start("worker", str(number))
            following = self._next_kill()
            while not self._is_over(caller):
                if time.monotonic() > until:
                    print(f"  {self._engine.name}: not over after {_PATIENCE:.0f} s")
                    return
                self._restart()
                if time.monotonic() >= following and len(self.kills) < self._plan.kills:
                    following = self._kill()
                time.sleep(_LOOK)
        finally:
            self._stop([*self._workers.values(), *([caller] if caller else [])])

    def _start(self, what: str, number: str) -> subprocess.Popen[bytes]:
        log = (self._directory / f"{what}{number}.log").open("ab")
        command = [sys.executable, _HERE / self._engine.program, what, self._settings, number]
        with log:
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def _is_over(self, caller: subprocess.Popen[bytes] | None) -> bool:
        if caller is not None:
            return caller.poll() is not None
        return all(worker.poll() == 0 for worker in self._workers.values())

    def _restart(self) -> None:
        for number, worker in self._workers.items():
            if worker.poll():
                self._workers[number] = self._start("worker", str(number))

    def _next_kill(self) -> float:
        return time.monotonic() + self._chance.uniform(0.5, self._plan.longest)

    def _kill(self) -> float:
        """Kill a process that has sent a request. Returns the time of the next kill."""
        if self._engine.own_workers:
            pids = [int(path.name) for path in (self._directory / "pids").iterdir()]
        else:
            pids = [worker.pid for worker in self._workers.values() if worker.poll() is None]
        working = {pid for _, pid, _ in _requests(self._directory)}
        gone = {pid for _, pid in self.kills}
        victims = sorted(pid for pid in pids if pid in working and pid not in gone)
        if not victims:
            return 0.0
        victim = self._chance.choice(victims)
        with contextlib.suppress(ProcessLookupError):  # it has ended just now
            os.kill(victim, signal.SIGKILL)
            self.kills.append((time.monotonic(), victim))
        return self._next_kill()

    def _stop(self, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        for process in processes:
            if process.poll() is None:
                # Its session's group, which has the workers that a caller started.
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def compete(engine: Engine, directory: Path, plan: Plan) -> Found:
    """Let one engine export all segments."""
    sandbox = Sandbox(
        segments=plan.exports,
        rows=20,
        seed=plan.seed,
        latency=_LATENCY,
        durations=_DURATIONS,
        limit=TokenBucket(plan.rate, _BURST),
    )
    (directory / "exports").mkdir()
    with SandboxServer(sandbox) as server, engine.place() as place:
        settings = Settings(
            base_url=server.base_url,
            segments=list(sandbox.segment_ids),
            directory=str(directory),
            server=place,
            rate=plan.rate,
            processes=engine.processes,
            requests=requests_per_export(_DURATIONS),
            shared=engine.shared,
        )
        path = directory / "settings.json"
        path.write_text(json.dumps(attrs.asdict(settings)))
        crew = Crew(engine, path, directory, plan)
        crew.work()
        began = time.monotonic() - server.now()
    return _judge(sandbox, directory, plan, [(at - began, pid) for at, pid in crew.kills], began)


def _judge(
    sandbox: Sandbox, directory: Path, plan: Plan, kills: Sequence[tuple[float, int]], began: float
) -> Found:
    posts = Counter(e.segment_id for e in sandbox.record.submits() if may_have_acted(e))
    results: dict[str, dict[str, str]] = {}
    if (told := directory / "results.json").exists():
        results = json.loads(told.read_text())
    contents = Contents(sandbox)
    made = contents.of_exports_made()
    exported = sum(
        "file" in result and digest(Path(result["file"])) in made.get(segment_id, ())
        for segment_id, result in results.items()
    )
    errors = Counter(result["error"] for result in results.values() if "error" in result)
    sent = {entry.segment_id for entry in sandbox.record.submits()}
    entries = list(sandbox.record)
    return Found(
        repeated=sum(count - 1 for count in posts.values()),
        exported=exported,
        errors=errors,
        never_sent=sum("error" in result and one not in sent for one, result in results.items()),
        unaccounted=plan.exports - exported - errors.total(),
        throttled=len(sandbox.record.throttled()),
        kills=len(kills),
        delays=list(_delays(sandbox, directory, kills, began)),
        stretch=(max(e.ended_at or e.at for e in entries) - entries[0].at) / plan.least,
    )


def _requests(directory: Path) -> list[tuple[float, int, str]]:
    """The time, the process, and the segment or export of each request."""
    path = directory / "requests.log"
    lines = path.read_text().splitlines() if path.exists() else []
    parts = [line.split() for line in lines]
    return [(float(at), int(pid), what) for at, pid, what in parts]


def _delays(
    sandbox: Sandbox, directory: Path, kills: Sequence[tuple[float, int]], began: float
) -> Iterator[tuple[float, float]]:
    """For each kill, the seconds until the first and the last of its exports are asked about.

    An export's next request may also wait because others are more urgent.
    """
    segments = {e.export_id: e.segment_id for e in sandbox.record.submits() if e.export_id}
    last: dict[int, dict[str, float]] = defaultdict(dict)
    for at, pid, what in _requests(directory):
        last[pid][segments.get(what) or what] = at - began
    times: dict[str | None, list[float]] = defaultdict(list)
    for entry in sandbox.record:
        times[entry.segment_id].append(entry.at)
    for at, pid in kills:
        found = []
        for segment_id, asked_at in last[pid].items():
            heard = times[segment_id]
            # A request that was on its way at the kill is the killed process's own.
            following = bisect.bisect_right(heard, max(at, asked_at) + 0.1)
            earlier = bisect.bisect_right(heard, asked_at + 0.1)
            if following < len(heard) and following == earlier:
                found.append(heard[following] - at)
        if found:
            yield min(found), max(found)
