"""Processes with one journal that tell each other of the vendor's outages and of its 500s.

The sandbox's record counts the submits that a gateway answered in the vendor's place: each of them
may have begun an export whose id is lost.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from client.vendor import STEADY, USE_HTTPX2, http_client

from segments_async import BulkReport, SegmentsClient
from segments_async.sandbox import (
    API_ORIGIN,
    PAGE_ACCESS_TOKEN,
    PAGE_API_KEY,
    Entry,
    Fault,
    Sandbox,
    SandboxTransport,
    TokenBucket,
)

pytestmark = pytest.mark.alternating

POST: dict[str, Any] = {"method": "POST", "path": "export/"}
MAINTENANCE = Fault.status(503, body="maintenance")

#: The vendor is away from then on, in seconds.
SINCE = 4.0

#: Requests that all processes together send in a second.
RATE = 10


SEGMENTS = 48


def vendor(segments: int = SEGMENTS) -> Sandbox:
    return Sandbox(
        segments=segments, durations=STEADY, latency=0.1, limit=TokenBucket(RATE, 2 * RATE)
    )


@asynccontextmanager
async def client_of(sandbox: Sandbox, **transport: Any) -> AsyncIterator[SegmentsClient]:
    """A client of the sandbox, of which others are clients as well."""
    async with http_client(transport.get("transport") or SandboxTransport(sandbox)) as http:
        yield SegmentsClient(
            PAGE_API_KEY,
            PAGE_ACCESS_TOKEN,
            base_url=API_ORIGIN,
            http_client=http,
            file_http_client=http,
        )


@pytest.fixture
def where(tmp_path: Path) -> str:
    return str(tmp_path / "runs.db")


class Fleet:
    """Several processes of one account: clients of their own, in the test's process.

    Args:
        sandbox: the vendor.
        where: their journal.
        shared: whether they share one run; otherwise each has a run of its own segments.
    """

    def __init__(self, sandbox: Sandbox, where: str, *, shared: bool) -> None:
        self.sandbox = sandbox
        self.where = where
        self.shared = shared
        self.reports: dict[int, BulkReport[Any]] = {}

    async def work(self, number: int, share: slice, after: float = 0.0, **client: Any) -> None:
        """The work of one process, which starts after so many seconds.

        Args:
            number: of the process.
            share: the segments that it has, where it doesn't share them with the others.
            after: seconds.
            client: the transport of its client.
        """
        await anyio.sleep(after)
        segments = self.sandbox.segment_ids
        run = "nightly" if self.shared else f"run {number}"
        async with (
            client_of(self.sandbox, **client) as own,
            own.open_bulk_export(
                segments if self.shared else segments[share],
                None,
                journal=self.where,
                run=run,
                shared=self.shared,
            ) as entered,
        ):
            self.reports[number] = await entered.report()

    async def work_all(self, processes: int) -> None:
        """All processes start within a second."""
        async with anyio.create_task_group() as tasks:
            for number in range(processes):
                share = slice(number, None, processes)
                tasks.start_soon(self.work, number, share, number / processes)

    def first_away(self) -> float:
        """When the first request was sent that a gateway answered."""
        return min(entry.at for entry in self.sandbox.record.api() if entry.status == 503)

    def posts(self, *statuses: int) -> list[Entry]:
        """The submits that were answered with one of these statuses."""
        return [entry for entry in self.sandbox.record.submits() if entry.status in statuses]


def statuses_after(sandbox: Sandbox, since: float, until: float) -> set[int | None]:
    """The statuses of the API's answers to requests that were sent in between."""
    return {entry.status for entry in sandbox.record.api() if since <= entry.at < until}


@pytest.mark.parametrize(
    "shared",
    [
        pytest.param(False, id="runs of their own"),
        pytest.param(True, id="a shared run", marks=pytest.mark.whole),
    ],
)
async def test_what_one_process_was_answered_holds_the_others(where: str, shared: bool) -> None:
    """Five processes lose no submit later than a second after the first answer of a gateway.

    One process alone loses up to three. And one process at a time probes.
    """
    fleet = Fleet(vendor(), where, shared=shared)
    fleet.sandbox.inject(MAINTENANCE, since=SINCE, until=SINCE + 30)
    await fleet.work_all(5)
    away = [entry for entry in fleet.sandbox.record.api() if entry.status == 503]
    learnt = away[0].at + 1.5  # a latency, an exchange, and what was on the wire
    assert [entry for entry in away if entry.method == "POST" and entry.at > learnt] == []
    assert len(fleet.posts(503)) <= 3 + RATE
    assert len([entry for entry in away if entry.at > learnt]) <= 8  # single ones, up to 30 s apart
    assert fleet.sandbox.record.duplicates() == {}
    assert sum(len(report.exported) for report in fleet.reports.values()) >= SEGMENTS - 13


async def test_who_starts_while_the_vendor_is_away_knows_it(where: str) -> None:
    """Four processes that start in the middle of an outage lose no submit to it."""
    fleet = Fleet(vendor(), where, shared=False)
    fleet.sandbox.inject(MAINTENANCE, since=SINCE, until=SINCE + 60)
    async with anyio.create_task_group() as tasks:
        for number in range(2):
            tasks.start_soon(fleet.work, number, slice(number, 36, 2))
        for number in range(2, 6):
            tasks.start_soon(fleet.work, number, slice(34 + number, None, 4), SINCE + 5)
    assert [entry for entry in fleet.posts(503) if entry.at > fleet.first_away() + 3] == []
    assert fleet.sandbox.record.duplicates() == {}


async def test_a_longer_pause_that_was_asked_for_is_everybodys(where: str) -> None:
    """After one answer with `Retry-After: 100` no process sends anything for 100 s."""
    fleet = Fleet(vendor(), where, shared=False)
    asked = Fault.status(503, headers={"retry-after": "100"})
    fleet.sandbox.inject(asked, since=SINCE, until=SINCE + 90)
    await fleet.work_all(4)
    first = fleet.first_away()
    assert statuses_after(fleet.sandbox, first + 2, first + 99) == set()
    assert len(fleet.posts(503)) <= 1 + RATE


async def test_submits_alone_are_held_for_all(where: str) -> None:
    """While submits alone are answered by a gateway, one submit at a time goes, and polls go on."""
    fleet = Fleet(vendor(), where, shared=False)
    fleet.sandbox.inject(MAINTENANCE, since=SINCE, until=SINCE + 30, **POST)
    await fleet.work_all(4)
    probes = [entry for entry in fleet.posts(503) if entry.at > fleet.first_away() + 1.9]
    assert len(probes) <= 5  # after 2, 4, 8 and 16 s, and one more where two processes probe
    assert len(fleet.posts(503)) <= len(probes) + 2 + RATE
    assert fleet.sandbox.record.duplicates() == {}


class Broken(SandboxTransport):
    """A network of one process: from `SINCE` on, its requests don't come to the vendor.

    Args:
        sandbox: the vendor.
        status: of the answer of a gateway of this process's own; None: no connection.
        until: when the network is repaired.
    """

    def __init__(self, sandbox: Sandbox, status: int | None, until: float) -> None:
        super().__init__(sandbox)
        self._status = status
        self._until = until
        #: Requests that were lost.
        self.lost: int = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if not SINCE <= anyio.current_time() < self._until:
            return await super().handle_async_request(request)
        self.lost += 1
        await anyio.sleep(0.1)
        if self._status is None:
            raise httpx.ConnectError("no route to host", request=request)
        return httpx.Response(self._status, text="proxy error", request=request)


@pytest.mark.skipif(USE_HTTPX2, reason="the broken network is a transport of httpx")
@pytest.mark.parametrize(
    "status",
    [
        pytest.param(None, id="no connection", marks=pytest.mark.whole),
        pytest.param(503, id="a gateway of its own"),
    ],
)
async def test_the_network_of_one_process_holds_no_other(where: str, status: int | None) -> None:
    """The others go on, at once or after one pause, while one process has no way to the vendor."""
    fleet = Fleet(vendor(100), where, shared=False)
    broken = Broken(fleet.sandbox, status, SINCE + 60)
    async with anyio.create_task_group() as tasks:
        for number in range(4):
            own = {"transport": broken} if number == 0 else {}
            work = partial(fleet.work, number, slice(number, None, 4), **own)
            tasks.start_soon(work)
    assert broken.lost >= 3
    assert all(fleet.reports[number].ok for number in range(1, 4))
    times = [entry.at for entry in fleet.sandbox.record.api() if SINCE - 1 <= entry.at < SINCE + 8]
    assert max(later - earlier for earlier, later in pairwise(times)) < 3.0
    others = {one for number in range(1, 4) for one in fleet.sandbox.segment_ids[number::4]}
    last = max(e.at for e in fleet.sandbox.record.submits() if e.segment_id in others)
    assert last < SINCE + 40  # and not after the network is repaired


@pytest.mark.whole
async def test_who_died_while_the_vendor_was_away_holds_nobody_for_long(where: str) -> None:
    """Processes that start after all others have died in an outage go on within seconds."""
    fleet = Fleet(vendor(), where, shared=False)
    fleet.sandbox.inject(MAINTENANCE, since=SINCE, until=SINCE + 20)
    with anyio.move_on_after(SINCE + 10):
        await fleet.work_all(4)
    assert 503 in statuses_after(fleet.sandbox, SINCE, SINCE + 10)
    await anyio.sleep(30)
    began = anyio.current_time()
    await fleet.work_all(4)
    [first, *_] = [entry.at for entry in fleet.posts(201, 200, 202) if entry.at >= began]
    assert first < began + 60 + 5
    assert fleet.sandbox.record.duplicates() == {}


async def test_a_500_to_one_run_holds_the_runs_of_other_processes(where: str) -> None:
    """After a 500 to one run no other run of the journal sends anything for a minute."""
    fleet = Fleet(vendor(), where, shared=False)
    fleet.sandbox.inject(Fault.status(500), since=SINCE, times=1, **POST)
    await fleet.work_all(4)
    [error] = [entry for entry in fleet.sandbox.record.api() if entry.status == 500]
    assert error.ended_at is not None
    assert statuses_after(fleet.sandbox, error.ended_at + 2, error.ended_at + 59.5) == set()
    # One probe, by the process that received the 500, before all others.
    after = [e for e in fleet.sandbox.record.api() if e.at >= error.ended_at + 59.5]
    assert after[0].method == "GET"
