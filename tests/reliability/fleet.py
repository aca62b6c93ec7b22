"""Several real processes with one account and one journal, some of which are killed.

Each process has a run of its own. The processes divide the limit by the journal alone.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs

from reliability.judge import (
    Contents,
    Told,
    busiest_second,
    duplicates,
    half_files,
    load,
    unaccounted,
)
from reliability.processes import session_server
from reliability.victim import Job
from segments_async.sandbox import Durations, Sandbox, TokenBucket
from segments_async.sandbox.server import SandboxServer

#: The part of the time from the first request to the last after which the limit is found.
FOUND_AFTER = 0.05

#: Any second has at most this multiple of the limit, and its burst; refused requests included.
MOST_OVER_LIMIT = 1.1


@attrs.frozen
class Plan:
    """The fleet's plan.

    Attributes:
        processes: number of processes at once.
        segments: of all processes together.
        kills: of all processes together, at random times.
        limit: of the account: requests/s and a burst of requests.
        longest: seconds after which a session that is killed has been killed.
    """

    processes: int
    segments: int
    kills: int
    limit: TokenBucket
    longest: float


@attrs.frozen
class Found:
    """The fleet's results.

    Attributes:
        complaints: the judge's.
        posts: POSTs in the vendor's record.
        exported: whole files.
        unknown: exports that are reported as unknown.
        throttled: the part of all API requests that was answered 429.
        busiest: requests in the busiest second, once the limit was found.
        allowed: the most requests that the busiest second may have.
        over_bound: the seconds over the least in which the limit grants the accepted requests.
    """

    complaints: list[str]
    posts: int
    exported: int
    unknown: int
    throttled: float
    busiest: int
    allowed: float
    over_bound: float


def sail(directory: Path, seed: int, plan: Plan) -> Found:
    """Start all processes, kill some, start these again, until all runs have ended."""
    sandbox = Sandbox(
        segments=plan.segments,
        rows=50,
        seed=seed,
        latency=0.03,
        durations=Durations(1.0, 0.7),
        limit=plan.limit,
    )
    contents = Contents(sandbox)
    with SandboxServer(sandbox) as server:
        jobs = [
            Job(
                server.base_url,
                sandbox.segment_ids[n :: plan.processes],
                str(directory / f"exports-{n}"),
                str(directory / "runs.db"),
                str(directory / f"told-{n}.json"),
                run=f"share {n}",
            )
            for n in range(plan.processes)
        ]
        kills = [
            plan.kills // plan.processes + (n < plan.kills % plan.processes)
            for n in range(plan.processes)
        ]
        with ThreadPoolExecutor(plan.processes) as crew:
            complaints = [
                complaint
                for found in crew.map(
                    _bring_home, jobs, kills, [seed] * len(jobs), [plan.longest] * len(jobs)
                )
                for complaint in found
            ]
    told = [
        one for job in jobs if Path(job.told).exists() for one in load(Path(job.told).read_text())
    ]
    complaints += duplicates(sandbox.record)
    complaints += unaccounted(sandbox, contents, told, killed=plan.kills > 0)
    for job in jobs:
        complaints += half_files(contents, Path(job.to))
    return _found(sandbox, plan, told, complaints)


def _bring_home(job: Job, kills: int, seed: int, longest: float) -> list[str]:
    chance = random.Random(f"fleet {seed} {job.run}")
    with session_server() as sessions:
        while not Path(job.told).exists():
            pid = sessions.start(job)
            if kills:
                time.sleep(chance.uniform(0.1, longest))  # chance decides where it dies
                os.kill(pid, signal.SIGKILL)
                kills -= 1
            if (status := sessions.wait()) not in (0, -signal.SIGKILL):
                return [f"{job.run}: a session ended with status {status}"]
    return []


def _found(sandbox: Sandbox, plan: Plan, told: Sequence[Told], complaints: list[str]) -> Found:
    api = sandbox.record.api()
    throttled = len(sandbox.record.throttled())
    first, last = api[0].at, api[-1].at
    busiest = busiest_second(api, since=first + FOUND_AFTER * (last - first))
    allowed = MOST_OVER_LIMIT * plan.limit.rate + plan.limit.burst
    bound = (len(api) - throttled - plan.limit.burst) / plan.limit.rate
    return Found(
        complaints,
        posts=len(sandbox.record.submits()),
        exported=sum(o.error is None for o in told),
        unknown=sum(o.error == "SubmitUnknownError" for o in told),
        throttled=throttled / len(api),
        busiest=busiest,
        allowed=allowed,
        over_bound=(last - first) / bound,
    )
