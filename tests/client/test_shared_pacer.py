"""Several clients of one account, with one pacer or with one journal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import anyio
import anyio.from_thread
import pytest
from reliability.judge import busiest_second

from client.vendor import connected
from segments_async import BulkReport, Completed, Pacer
from segments_async._journal import outages
from segments_async.sandbox import Durations, FixedWindow, Sandbox, TokenBucket

pytestmark = pytest.mark.alternating


async def test_a_429_to_one_client_holds_the_other() -> None:
    """Two clients with one pacer together keep to the account's limit."""
    # The median: chance spreads the retries. In 150 runs 9 to 16, rarely more; with a pacer for
    # each client 15 to 40.
    over = [await _throttled_beyond_the_allowed() for _ in range(3)]
    assert sorted(over)[1] <= 0


async def _throttled_beyond_the_allowed() -> float:
    limit = TokenBucket(rate=10, burst=20)
    sandbox = Sandbox(segments=200, limit=limit, durations=Durations(median=2.0, sigma=0))
    ids, pacer = sandbox.segment_ids, Pacer()
    async with (
        connected(sandbox, pacer=pacer) as one,
        connected(sandbox, pacer=pacer) as other,
        one.open_bulk_export(ids[:100], None) as first,
        other.open_bulk_export(ids[100:], None) as second,
    ):
        reports = [await first.report(), await second.report()]
    assert all(report.ok for report in reports)
    return len(sandbox.record.throttled()) - 15 - 0.01 * len(sandbox.record.api())


async def test_an_end_of_a_block_is_told_to_the_other_client() -> None:
    """When one client's probe passes, the other client's request goes one space later."""
    limit = TokenBucket(rate=1, burst=1)
    sandbox = Sandbox(segments=2, limit=limit, durations=Durations(median=0.0, sigma=0))
    pacer = Pacer()
    async with (
        connected(sandbox, pacer=pacer) as one,
        connected(sandbox, pacer=pacer) as other,
        one.open_bulk_export(sandbox.segment_ids[:1], None) as first,
        other.open_bulk_export(sandbox.segment_ids[1:], None) as second,
    ):
        assert (await first.report()).ok
        assert (await second.report()).ok
    granted = [entry.at for entry in sandbox.record.api() if entry.status == 200]
    assert len(granted) == 4
    assert granted[-1] <= 6.0, "without it, the other client would look again up to 7 s later"


#: A limit, what the vendor says with a 429, the requests that the limit grants at once, and how
#: many times the least time all may take: of ten windows, the first two go into finding them.
LIMITS: dict[str, tuple[TokenBucket | FixedWindow, Literal["seconds"] | None, int, float]] = {
    "10/s": (TokenBucket(10, 20), None, 20, 1.15),
    "10/s, with Retry-After": (TokenBucket(10, 10), "seconds", 10, 1.15),
    "100 in 10 s": (FixedWindow(100, 10), None, 100, 1.6),
}


@pytest.fixture
def journal_in_virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal's clock is the event loop's.

    A process counts as ended 5 s after its last report. By the wall clock, a busy machine takes
    that long for one virtual second, and the other processes take the part of a live one.
    """
    began = datetime.now(UTC)

    def now(*_: object) -> datetime:
        seconds: float = anyio.from_thread.run_sync(anyio.current_time)
        return began + timedelta(seconds=seconds)

    monkeypatch.setattr(outages, "machine_time", now)


@pytest.mark.usefixtures("journal_in_virtual_time")
@pytest.mark.parametrize(
    ("limit", "retry_after", "burst", "longest"),
    [
        pytest.param(*values, id=name, marks=[] if name == "10/s" else pytest.mark.whole)
        for name, values in LIMITS.items()
    ],
)
async def test_four_processes_with_one_journal(
    limit: TokenBucket | FixedWindow,
    retry_after: Literal["seconds"] | None,
    burst: int,
    longest: float,
    tmp_path: Path,
) -> None:
    """Four clients with pacers of their own and one journal together keep to the limit.

    The four clients take hardly longer than one client would. After the first twentieth of the time
    no second has more than 1.1 times the limit and its burst, refused requests included.
    """
    rate = limit.rate if isinstance(limit, TokenBucket) else limit.limit / limit.seconds
    sandbox = Sandbox(
        segments=int(40 * rate),
        limit=limit,
        retry_after=retry_after,
        durations=Durations(median=2.0, sigma=0),
    )
    await _export_in_shares(sandbox, 4, journal=tmp_path / "runs.db")
    api, throttled = sandbox.record.api(), len(sandbox.record.throttled())
    last = max(entry.at for entry in api)
    assert busiest_second(api, since=0.05 * last) <= 1.1 * rate + burst
    assert throttled <= 4 * 30 + 0.04 * len(api)  # finding it costs each of them as much
    assert last <= longest * (len(api) - throttled) / rate


async def _export_in_shares(sandbox: Sandbox, clients: int, journal: Path) -> None:
    """Each client exports its part of the segments, and starts a second after the last client."""
    reports: list[BulkReport[Completed]] = []

    async def export(number: int) -> None:
        await anyio.sleep(number)
        ids = sandbox.segment_ids[number::clients]
        async with (
            connected(sandbox) as client,
            client.open_bulk_export(ids, None, journal=journal, run=f"share {number}") as run,
        ):
            reports.append(await run.report())

    async with anyio.create_task_group() as processes:
        for number in range(clients):
            processes.start_soon(export, number)
    assert [report.ok for report in reports] == [True] * clients
