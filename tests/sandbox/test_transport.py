"""The sandbox behind an `httpx.AsyncClient`, in virtual time."""

from __future__ import annotations

import anyio
import httpx
import pytest

from sandbox.asking import EXPORT, LIST, PAGE_AUTH
from segments_async.sandbox import (
    API_ORIGIN,
    PAGE_SEGMENT_ID,
    Durations,
    Fault,
    Sandbox,
    SandboxTransport,
)
from segments_async.sandbox.clock import Timeline

pytestmark = pytest.mark.anyio

BODY = {"segmentId": PAGE_SEGMENT_ID, "outputFormat": "csv"}


def client(sandbox: Sandbox, timeout: float | None = None) -> httpx.AsyncClient:
    return client_over(SandboxTransport(sandbox), timeout)


def client_over(transport: SandboxTransport, timeout: float | None = None) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=transport, base_url=API_ORIGIN, auth=PAGE_AUTH, timeout=timeout
    )


async def test_export_from_post_to_file() -> None:
    """The sandbox's time is anyio's: after four seconds of sleep the export is complete."""
    sandbox = Sandbox(durations=Durations(median=4.0, sigma=0))
    transport = SandboxTransport(sandbox)
    async with client_over(transport) as http, httpx.AsyncClient(transport=transport) as bare:
        path = EXPORT + (await http.post(EXPORT, json=BODY)).json()["exportId"]
        assert (await http.get(path)).json()["status"] == "PENDING"
        await anyio.sleep(4.0)
        link = (await http.get(path)).json()["filename"]
        file = await bare.get(link)
    assert file.content == sandbox.content(PAGE_SEGMENT_ID)
    assert not sandbox.record.credentials_seen_by_files()


async def test_latency_passes_before_and_after_the_vendor_acts() -> None:
    """A quarter of the latency passes on the way to the vendor."""
    sandbox = Sandbox(latency=1.0)
    async with client(sandbox) as http:
        began = anyio.current_time()
        await http.get(LIST)
        took = anyio.current_time() - began
    (entry,) = sandbox.record
    assert entry.ended_at is not None
    assert took == pytest.approx(entry.ended_at)
    assert entry.at == pytest.approx(took / 4)


async def test_requests_at_once_are_counted() -> None:
    """A request counts until its answer has been read."""
    sandbox = Sandbox(latency=1.0)
    async with client(sandbox) as http, anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(http.get, LIST)
    assert (sandbox.record.most_at_once(), sandbox.record.under_way()) == (10, 0)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.UNREACHABLE, httpx.ConnectError),
        (Fault.LOST_BEFORE, httpx.ReadError),
        (Fault.LOST_AFTER, httpx.ReadError),
        (Fault.cut(10), httpx.RemoteProtocolError),
        (Fault.slow(60.0), httpx.ReadTimeout),
    ],
)
async def test_faults_are_httpx_errors(fault: Fault, error: type[Exception]) -> None:
    """Faults raise the errors of a real connection; the record ends each request."""
    sandbox = Sandbox()
    sandbox.inject(fault)
    async with client(sandbox, timeout=30.0) as http:
        with pytest.raises(error):
            await http.get(LIST)
        assert (await http.get(LIST)).status_code == 200
    assert sandbox.record.under_way() == 0


async def received(response: httpx.Response, into: list[bytes]) -> None:
    async for piece in response.aiter_raw():
        into.append(piece)  # noqa: PERF401 (what came before the break is wanted)


async def test_bodies_are_lazy_and_break_in_the_middle() -> None:
    """The client has the first pieces before the connection ends."""
    sandbox = Sandbox(rows=3000)
    transport = SandboxTransport(sandbox)
    async with client_over(transport) as http, httpx.AsyncClient(transport=transport) as bare:
        path = EXPORT + (await http.post(EXPORT, json=BODY)).json()["exportId"]
        await anyio.sleep(60)
        link = (await http.get(path)).json()["filename"]
        sandbox.inject(Fault.cut(200_000), origin="files")
        pieces: list[bytes] = []
        async with bare.stream("GET", link) as response:
            with pytest.raises(httpx.RemoteProtocolError):
                await received(response, pieces)
    assert len(pieces) > 1
    assert b"".join(pieces) == sandbox.content(PAGE_SEGMENT_ID)[:200_000]


async def test_transports_of_one_sandbox_share_its_time() -> None:
    """A second client that is made later has the same time."""
    sandbox = Sandbox()
    async with client(sandbox) as http:
        await http.get(LIST)
    await anyio.sleep(10.0)
    async with client(sandbox) as http:
        await http.get(LIST)
    assert [round(e.at, 3) for e in sandbox.record] == [0.0, 10.0]


async def test_cancelled_request_was_sent_all_the_same() -> None:
    """A POST on the wire arrives though its sender was cancelled: the export is begun."""
    sandbox = Sandbox(latency=10.0)
    async with client(sandbox) as http:
        with anyio.move_on_after(0.1) as scope:
            await http.post(EXPORT, json=BODY)
    assert scope.cancelled_caught
    assert sum(sandbox.record.exports_per_segment().values()) == 1
    assert sandbox.record.under_way() == 0


async def test_cancelled_while_waiting_for_the_answer() -> None:
    """The record ends the request when its caller is cancelled."""
    sandbox = Sandbox()
    sandbox.inject(Fault.slow(100.0))
    async with client(sandbox) as http:
        with anyio.move_on_after(5.0):
            await http.get(LIST)
    (entry,) = sandbox.record
    assert entry.ended_at == pytest.approx(5.0)


async def test_caller_already_cancelled_sends_nothing() -> None:
    """A caller that is cancelled already sends no request."""
    sandbox = Sandbox(latency=1.0)
    async with client(sandbox) as http:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await http.get(LIST)
    assert not len(sandbox.record)


async def test_other_hosts_are_out_of_reach() -> None:
    """A request to another host fails to connect."""
    async with client(Sandbox()) as http:
        with pytest.raises(httpx.ConnectError):
            await http.get("https://example.com/")


def test_time_goes_on_in_the_next_event_loop() -> None:
    """In the next event loop, exports have gone on."""
    timeline = Timeline()
    assert [timeline.now("first loop", t) for t in (100.0, 110.0)] == [0.0, 10.0]
    assert [timeline.now("second loop", t) for t in (3.0, 5.0)] == [10.0, 12.0]
