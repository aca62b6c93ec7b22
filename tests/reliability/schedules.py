"""Seeded schedules of faults: sessions of one run, with faults drawn at random.

All draws follow from the seed; `replay(seed)` repeats a schedule.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import attrs
import trio
from scratch import fast

from reliability.judge import Told, duplicates, secrets_on_disk, unaccounted
from reliability.world import Plan, Way, World
from segments_async.sandbox import (
    PAGE_ACCESS_TOKEN,
    Durations,
    Fault,
    FileHost,
    Sandbox,
    TokenBucket,
)
from segments_async.testing import virtual_time

SEGMENTS = 6

#: A little more than the seconds after which the vendor drops files: a session may come that late.
WEEKEND = 50 * 3600.0

_WAYS: tuple[Way, ...] = ("end", "leave", "cancel", "timeout", "kill", "kill", "kill")

_FILE_HOSTS = (
    FileHost(),
    FileHost(),
    FileHost(etag="parts"),
    FileHost(etag="weak"),
    FileHost(etag=None),
    FileHost(ranges=False),
    FileHost(gzip=True, etag="parts"),
)

_GATEWAY_PAGE = b"<html><head><title>Bad Gateway</title></head></html>"


@attrs.frozen
class Verdict:
    """The results of one schedule."""

    seed: int
    complaints: list[str]
    sessions: int
    kills: int
    posts: int
    exported: int
    unknown: int


def replay(seed: int, *, resubmit: bool | None = None) -> Verdict:
    """Play the schedule, on asyncio for even seeds and on trio for odd ones."""
    directory = Path(tempfile.mkdtemp(prefix=f"schedule-{seed}-", dir=fast()))
    try:
        return _Schedule(seed, directory, resubmit=resubmit).play()
    finally:
        shutil.rmtree(directory)


class _Schedule:
    def __init__(self, seed: int, directory: Path, *, resubmit: bool | None) -> None:
        self._seed = seed
        self._chance = chance = random.Random(f"schedule {seed}")
        self._directory = directory
        self._backend = ("asyncio", "trio")[seed % 2]
        self._sandbox = Sandbox(
            segments=SEGMENTS,
            rows=chance.choice([0, 3, 40, 1500]),
            seed=seed,
            latency=chance.choice([0.02, 0.3]),
            durations=Durations(chance.choice([0.5, 5.0, 300.0]), 1.0, 3600.0),
            limit=chance.choice([None, None, TokenBucket(2, 2), TokenBucket(20, 5)]),
            retry_after=chance.choice([None, "seconds", "date"]),
            failed=chance.choice([0.0, 0.0, 0.2]),
            link_lifetime=chance.choice([3, 60, 48 * 3600]),
            max_pending=chance.choice([None, None, None, 2]),
            file_host=chance.choice(_FILE_HOSTS),
        )
        self._world = World(
            self._sandbox,
            directory,
            careless=chance.random() < 0.3,
            disk=random.Random(f"disk {seed}"),
        )
        opted = chance.random() < 0.15
        self._opted_in = opted if resubmit is None else resubmit
        self._kills = 0
        self._longest_gap = 0.0

    def play(self) -> Verdict:
        random.seed(self._seed)  # jitter
        trio._core._run._r.seed(self._seed)  # trio shuffles the tasks of each turn
        sessions = self._chance.randrange(1, 5)
        told: dict[str, Told] = {}
        with self._world.told_the_time():
            for _ in range(sessions):
                self._inject()
                self._session(self._plan())
                self._look(told)
            # Only the limit disturbs the last session.
            self._sandbox.clear_faults()
            # The last session waits until the ticket guard lets it send.
            self._session(Plan(gap=self._chance.uniform(0, 5)))
            self._look(told)
        return self._judge(sessions + 1)

    def _session(self, plan: Plan) -> None:
        name, options = virtual_time(self._backend)
        self._longest_gap = max(self._longest_gap, plan.gap)
        anyio.run(partial(self._world.session, plan), backend=name, backend_options=options)
        self._kills += plan.way == "kill"

    def _look(self, told: dict[str, Told]) -> None:
        """A segment that has its file keeps it in later sessions."""
        for outcome in self._world.outcomes:
            before = told.get(outcome.segment_id)
            if before is not None and before.error is None and outcome.error is not None:
                self._world.complaints.append(f"{before} became {outcome}")
            told[outcome.segment_id] = outcome
        if self._world.error is not None:
            self._world.complaints.append(f"a session ended in {self._world.error!r}")

    def _judge(self, sessions: int) -> Verdict:
        world, record = self._world, self._sandbox.record
        complaints = world.complaints
        if not self._opted_in:
            complaints += duplicates(record)
        expired = set(self._sandbox.segment_ids) if self._longest_gap >= WEEKEND else set[str]()
        complaints += unaccounted(
            self._sandbox,
            world.contents,
            world.outcomes,
            killed=world.killed,
            gone=expired,
        )
        secrets = (PAGE_ACCESS_TOKEN.encode(), b"X-Amz-Signature=")
        complaints += secrets_on_disk(self._directory, secrets)
        parts = sorted(path.name for path in world.directory.glob("*.part*"))
        if parts:
            complaints.append(f"left behind: {parts}")
        return Verdict(
            self._seed,
            complaints,
            sessions,
            self._kills,
            len(record.submits()),
            sum(told.error is None for told in world.outcomes),
            sum(told.error == "SubmitUnknownError" for told in world.outcomes),
        )

    # ----------------------------------------------------------------- chance

    def _plan(self) -> Plan:
        chance = self._chance
        way = chance.choice(_WAYS)
        longest = chance.choice([0.3, 3.0, 30.0, 600.0])
        options: dict[str, Any] = {}
        if self._opted_in:
            options = {"on_unknown": "resubmit", "on_expired": "resubmit", "retry_failed": 1}
        return Plan(
            way,
            1e6 if way == "end" else chance.uniform(0.0, longest),
            gap=WEEKEND if chance.random() < 0.05 else chance.choice([0.0, 1.0, 100.0]),
            jump=self._jump(),
            jump_later=self._jump(),
            options=options,
        )

    def _jump(self) -> float:
        return self._chance.choice([0.0] * 8 + [-7200.0, -3.0, 3.0, 7200.0])

    def _inject(self) -> None:
        for _ in range(self._chance.choice([0, 2, 5, 12])):
            if self._chance.random() < 0.4:
                self._inject_at_files()
            else:
                self._sandbox.inject(
                    self._api_fault(),
                    method=self._chance.choice(["POST", "GET", None]),
                    times=self._times(),
                    skip=self._chance.randrange(12),
                )

    def _inject_at_files(self) -> None:
        times, skip = self._times(), self._chance.randrange(4)
        self._sandbox.inject(self._file_fault(), origin="files", times=times, skip=skip)

    def _times(self) -> int:
        return self._chance.choice([1, 1, 1, 2, 5])

    def _api_fault(self) -> Fault:
        chance = self._chance
        return chance.choice(
            [
                Fault.UNREACHABLE,
                Fault.LOST_BEFORE,
                Fault.LOST_AFTER,
                Fault.status(429),
                Fault.status(429, headers={"Retry-After": str(chance.choice([0, 1, 30, -1]))}),
                Fault.status(500),
                Fault.status(chance.choice([502, 503, 504]), body=_GATEWAY_PAGE),
                Fault.status(chance.choice([502, 503, 504]), body=_GATEWAY_PAGE, acts=True),
                Fault.cut(chance.randrange(200)),
                Fault.slow(chance.choice([1.0, 29.0, 31.0, 100.0])),
                Fault.changed(lambda body: body[: len(body) // 2]),
                Fault.fields(exportId="another", segment={"segmentId": "another"}),
            ]
        )

    def _file_fault(self) -> Fault:
        chance = self._chance
        # A wrong length from storage is detected by the MD5, where storage sends one.
        lie = chance.randrange(150_000) if self._sandbox.file_host == FileHost() else 10**9
        return chance.choice(
            [
                Fault.UNREACHABLE,
                Fault.LOST_BEFORE,
                Fault.status(chance.choice([500, 503, 416, 400])),
                Fault.cut(chance.choice([0, 1, 100, 400, 4_000, 100_000])),
                Fault.cut(chance.choice([0, 1, 100, 400, 4_000, 100_000])),
                Fault.slow(chance.choice([1.0, 59.0, 61.0])),
                Fault.content_length(lie),
                Fault.content_length(None),
                Fault.changed(lambda body: body[:lie]),
            ]
        )
