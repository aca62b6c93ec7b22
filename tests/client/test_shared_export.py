"""Callers that share one export, and the gate of all requests of a client."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from client.vendor import STEADY, assert_at_rest, connected, is_whole, names_in
from segments_async import (
    ConfigurationError,
    ExportFailedError,
    Pacer,
    SegmentsClient,
    SegmentsError,
    SubmitUnknownError,
)
from segments_async.sandbox import (
    API_ORIGIN,
    PAGE_ACCESS_TOKEN,
    PAGE_API_KEY,
    PAGE_SEGMENT_ID,
    Durations,
    Fault,
    Sandbox,
    SandboxTransport,
    TokenBucket,
)

pytestmark = pytest.mark.alternating


async def test_a_hundred_callers_are_one_run(tmp_path: Path) -> None:
    """A hundred tasks awaiting `export` poll no more than one bulk run of the same hundred."""
    polls: dict[str, int] = {}
    for way in ("run", "calls"):
        random.seed(1)
        sandbox = Sandbox(
            segments=100, rows=2, seed=5, limit=TokenBucket(20, 20), latency=0.1,
            # All alike: trio shuffles tasks, and who submits the longest last polls the longest.
            durations=Durations(median=8.0, sigma=0),
        )  # fmt: skip
        async with connected(sandbox) as client:
            if way == "run":
                await client.bulk_export(sandbox.segment_ids, tmp_path / way)
            else:
                (tmp_path / way).mkdir()
                async with anyio.create_task_group() as tasks:
                    for segment_id in sandbox.segment_ids:
                        tasks.start_soon(client.export, segment_id, tmp_path / way / segment_id)
        assert sandbox.record.duplicates() == {}
        assert len(sandbox.record.files()) == 100
        polls[way] = len(sandbox.record.polls())
    assert polls["calls"] <= 1.05 * polls["run"]


@pytest.mark.parametrize("seed", range(5))
async def test_the_rest_lose_nothing_when_some_are_cancelled(seed: int, tmp_path: Path) -> None:
    """18 of 60 tasks are cancelled at random times: 42 files, and a gate at rest."""
    sandbox = Sandbox(segments=60, rows=2, seed=seed, limit=TokenBucket(20, 20), latency=0.3)
    chance = random.Random(seed)
    doomed = set(chance.sample(sandbox.segment_ids, 18))
    done: set[str] = set()
    async with connected(sandbox) as client:

        async def one(segment_id: str, patience: float) -> None:
            with anyio.move_on_after(patience):
                await client.export(segment_id, tmp_path / segment_id)
                done.add(segment_id)

        async with anyio.create_task_group() as tasks:
            for segment_id in sandbox.segment_ids:
                patience = chance.uniform(0, 9) if segment_id in doomed else math.inf
                tasks.start_soon(one, segment_id, patience)
        assert_at_rest(client, sandbox)
    assert done >= set(sandbox.segment_ids) - doomed
    assert len(done) < 60
    assert names_in(tmp_path) == sorted(done)
    assert all(is_whole(sandbox, tmp_path / s, s) for s in done)
    assert sandbox.record.duplicates() == {}


async def test_ten_callers_of_a_segment_share_its_export(tmp_path: Path) -> None:
    """Ten callers of a segment share one POST, and each has a file."""
    sandbox = Sandbox(rows=5, durations=STEADY, latency=0.1)
    async with connected(sandbox) as client, anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(client.export, PAGE_SEGMENT_ID, tmp_path / f"{number}.csv")
            await anyio.sleep(0.3)
    assert len(sandbox.record.submits()) == 1
    assert len(sandbox.record.files()) == 10
    assert all(is_whole(sandbox, tmp_path / name, PAGE_SEGMENT_ID) for name in names_in(tmp_path))
    assert len(names_in(tmp_path)) == 10


async def test_a_finished_export_is_not_joined(tmp_path: Path) -> None:
    """`export` after the end requests a new one, with today's users."""
    sandbox = Sandbox(rows=5)
    async with connected(sandbox) as client:
        await client.export(PAGE_SEGMENT_ID, tmp_path / "a.csv")
        await client.export(PAGE_SEGMENT_ID, tmp_path / "b.csv")
    assert len(sandbox.record.submits()) == 2
    assert is_whole(sandbox, tmp_path / "b.csv", PAGE_SEGMENT_ID, 1)


async def test_an_export_abandoned_long_ago_is_not_joined(tmp_path: Path) -> None:
    """After an hour, an abandoned export isn't joined: its users would be old."""
    sandbox = Sandbox(rows=5, durations=STEADY)
    async with connected(sandbox) as client:
        with anyio.move_on_after(2):
            await client.export(PAGE_SEGMENT_ID, tmp_path / "a.csv")
        await anyio.sleep(3700)
        await client.export(PAGE_SEGMENT_ID, tmp_path / "a.csv")
    assert len(sandbox.record.submits()) == 2


@pytest.mark.parametrize("moment", [0.05, 0.3, 0.7, 1.7, 3.0, 4.3])
async def test_the_first_caller_may_be_cancelled(moment: float, tmp_path: Path) -> None:
    """The first of several callers is cancelled in mid-POST or mid-poll; the others finish."""
    sandbox = Sandbox(rows=5, durations=STEADY, latency=0.4)
    async with connected(sandbox) as client:
        first = anyio.CancelScope()

        async def leaves() -> None:
            with first:
                await client.export(PAGE_SEGMENT_ID, tmp_path / "first.csv")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leaves)
            await anyio.sleep(0.01)
            for number in range(3):
                tasks.start_soon(client.export, PAGE_SEGMENT_ID, tmp_path / f"{number}.csv")
            await anyio.sleep(moment)
            first.cancel()
    assert first.cancelled_caught
    assert names_in(tmp_path) == ["0.csv", "1.csv", "2.csv"]
    assert len(sandbox.record.submits()) == 1


async def test_the_lead_passes_on(tmp_path: Path) -> None:
    """Callers that wait for the pacer are served though each leader is cancelled."""
    sandbox = Sandbox(segments=10)
    served: list[str] = []
    async with connected(sandbox, pacer=Pacer(rate=0.1)) as client:
        await client.list_segments()
        scopes = [anyio.CancelScope() for _ in sandbox.segment_ids]

        async def one(number: int) -> None:
            with scopes[number]:
                await client.request_export(sandbox.segment_ids[number])
                served.append(sandbox.segment_ids[number])

        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(one, number)
            await anyio.sleep(1)
            for scope in scopes[:9]:
                scope.cancel()
                await anyio.sleep(0.1)
    assert served == sandbox.segment_ids[9:]
    assert len(sandbox.record.submits()) == 1


async def test_errors_of_a_shared_export_are_each_callers_own(tmp_path: Path) -> None:
    """A FAILED export is raised to every caller, as different objects."""
    sandbox = Sandbox(failed=1.0)
    errors: list[BaseException] = []
    async with connected(sandbox) as client:

        async def one(number: int) -> None:
            with pytest.raises(ExportFailedError) as caught:
                await client.export(PAGE_SEGMENT_ID, tmp_path / f"{number}.csv")
            errors.append(caught.value)

        async with anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(one, number)
    assert len({id(error) for error in errors}) == 5
    assert len(sandbox.record.submits()) == 1


async def test_a_lost_post_is_told_to_all_who_share_it(tmp_path: Path) -> None:
    """A lost POST is a SubmitUnknownError for each caller, and isn't repeated."""
    sandbox = Sandbox()
    sandbox.inject(Fault(delay=2.0, lost="after"), method="POST")
    unknown: list[int] = []
    async with connected(sandbox) as client:

        async def one(number: int) -> None:
            with pytest.raises(SubmitUnknownError):
                await client.export(PAGE_SEGMENT_ID, tmp_path / f"{number}.csv")
            unknown.append(number)

        async with anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(one, number)
    assert sorted(unknown) == list(range(5))
    assert len(sandbox.record.submits()) == 1


async def test_waiting_and_exporting_share_polls(tmp_path: Path) -> None:
    """`wait_for_export` by id and `export` of the segment share their polls."""
    sandbox = Sandbox(rows=5, durations=STEADY, latency=0.05)
    async with connected(sandbox) as client:
        export = await client.request_export(PAGE_SEGMENT_ID)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.wait_for_export, export)
            await anyio.sleep(0.1)
            tasks.start_soon(client.export, PAGE_SEGMENT_ID, tmp_path / "a.csv")
            tasks.start_soon(client.wait_for_export, export.export_id)
    assert len(sandbox.record.submits()) == 1
    assert len(sandbox.record.polls()) < 12


@pytest.mark.parametrize("way", ["run", "calls"])
async def test_at_most_64_requests_at_once(way: str, tmp_path: Path) -> None:
    """With any vendor and any pacer, the 65th request waits for a slot."""
    sandbox = Sandbox(segments=200, latency=2.0, rows=1)
    async with connected(sandbox, pacer=Pacer(rate=math.inf)) as client:
        if way == "run":
            assert (await client.bulk_export(sandbox.segment_ids, None)).ok
        else:
            async with anyio.create_task_group() as tasks:
                for segment_id in sandbox.segment_ids:
                    tasks.start_soon(client.request_export, segment_id)
    assert 55 <= sandbox.record.most_at_once() <= 64
    assert len(sandbox.record.submits()) == 200


async def test_a_pacer_may_serve_two_clients() -> None:
    """Two clients of one pacer together keep its rate."""
    sandbox = Sandbox(segments=60)
    pacer = Pacer(rate=10)
    async with (
        connected(sandbox, pacer=pacer) as one,
        connected(sandbox, pacer=pacer) as other,
        anyio.create_task_group() as tasks,
    ):
        for number, segment_id in enumerate(sandbox.segment_ids):
            tasks.start_soon((one, other)[number % 2].request_export, segment_id)
    assert len(sandbox.record.submits()) == 60
    assert sandbox.record.highest_rate() <= 11
    last = max(e.at for e in sandbox.record)
    assert 5.5 < last < 6.5


async def test_a_429_of_one_client_holds_the_other() -> None:
    """A 429 to one client delays the other client of the pacer."""
    sandbox = Sandbox()
    pacer = Pacer(rate=10)
    async with connected(sandbox, pacer=pacer) as one, connected(sandbox, pacer=pacer) as other:
        sandbox.inject(Fault.status(429, headers={"retry-after": "20"}))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one.list_segments)
            await anyio.sleep(1)
            tasks.start_soon(other.list_segments)
    assert [e.status for e in sandbox.record] == [429, 200, 200]
    assert sandbox.record.lists()[1].at >= 20


async def test_a_callers_http_client_stays_as_it_is(tmp_path: Path) -> None:
    """A caller's HTTP client is neither closed nor changed, by calls, errors, or `aclose`."""
    sandbox = Sandbox(segments=3, rows=5)
    sandbox.inject(Fault.LOST_AFTER, method="GET")

    def state(http: httpx.AsyncClient) -> Any:
        return (
            http.is_closed,
            dict(http.headers),
            dict(http.cookies),
            http.auth,
            http.timeout,
            http.event_hooks,
            http.follow_redirects,
            http.base_url,
            http.params,
            http.trust_env,
        )

    async with httpx.AsyncClient(
        transport=SandboxTransport(sandbox), headers={"x-mine": "1"}, timeout=3
    ) as http:
        before = state(http)
        async with SegmentsClient(
            PAGE_API_KEY,
            PAGE_ACCESS_TOKEN,
            base_url=API_ORIGIN,
            http_client=http,
            file_http_client=http,
        ) as client:
            await client.bulk_export(await client.list_segments(), tmp_path)
            await client.aclose()
        assert state(http) == before
        assert (await http.get(API_ORIGIN + "/")).status_code == 401


class _Faulty(httpx.AsyncBaseTransport):
    """A caller's transport with a fault of its own."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await anyio.sleep(1)
        raise RuntimeError("a fault in the caller's transport")


async def test_a_foreign_fault_strands_nobody(tmp_path: Path) -> None:
    """A transport's own exception is raised; other callers of the export aren't left waiting."""
    ends: list[BaseException] = []
    sandbox = Sandbox()
    async with (
        httpx.AsyncClient(transport=_Faulty()) as http,
        connected(sandbox, http_client=http) as client,
    ):

        async def one(number: int) -> None:
            try:
                await client.export(PAGE_SEGMENT_ID, tmp_path / f"{number}.csv", timeout=100)
            except (RuntimeError, SegmentsError) as exc:
                ends.append(exc)

        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(one, number)
        assert anyio.current_time() < 50
    assert [type(end) for end in ends].count(RuntimeError) == 1
    assert [type(end) for end in ends].count(SubmitUnknownError) == 2


async def test_a_closed_client_says_so(tmp_path: Path) -> None:
    """Calls after `aclose` are refused, also those of a shared export."""
    client = SegmentsClient("key", "token", base_url="http://127.0.0.1:9")
    await client.aclose()
    await client.aclose()
    refused: list[int] = []

    async def one(number: int) -> None:
        with pytest.raises(ConfigurationError, match="closed"):
            await client.export(PAGE_SEGMENT_ID, tmp_path / f"{number}.csv")
        refused.append(number)

    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(one, number)
    assert sorted(refused) == [0, 1, 2]
    assert_at_rest(client, Sandbox())
