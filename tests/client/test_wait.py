"""`wait_for_export`: a failing poll never ends the wait."""

from __future__ import annotations

import json
import logging
import math
from typing import Any

import anyio
import pytest

from client.test_input import other
from client.vendor import STEADY, connected, gaps
from segments_async import (
    DecodeError,
    ExportFailedError,
    ExportStatus,
    ExportTimeoutError,
    NotFoundError,
    Pacer,
    ServerError,
)
from segments_async.sandbox import PAGE_SEGMENT_ID, Durations, Fault, Sandbox

POLL: dict[str, Any] = {"method": "GET", "path": "export/"}

SETBACKS = {
    "429": Fault.status(429),
    "429 with Retry-After": Fault.status(429, headers={"retry-after": "3"}),
    "502": Fault.status(502, body="<html>"),
    "503": Fault.status(503, headers={"retry-after": "2"}),
    "504": Fault.status(504),
    "lost before": Fault.LOST_BEFORE,
    "lost after": Fault.LOST_AFTER,
    "unreachable": Fault.UNREACHABLE,
    "html": Fault.status(200, body="<html>log in</html>"),
    "cut": Fault.cut(20),
    "another export": Fault.changed(other(exportId="another")),
    "another segment": Fault.changed(other(segment={"segmentId": "another"})),
    "compressed": Fault.status(200, headers={"content-encoding": "gzip"}),
    "a moment of 404": Fault.status(404),
    "418": Fault.status(418),
    "redirect": Fault.status(302, headers={"location": "/login"}),
}


@pytest.mark.alternating
@pytest.mark.parametrize("fault", SETBACKS.values(), ids=SETBACKS)
async def test_a_setback_is_asked_about_again(fault: Fault) -> None:
    """After failed polls of any kind, the wait ends with the export."""
    sandbox = Sandbox(durations=STEADY)
    sandbox.inject(fault, **POLL, times=3)
    async with connected(sandbox) as client:
        requested = await client.request_export(PAGE_SEGMENT_ID)
        export = await client.wait_for_export(requested)
    assert export.status == ExportStatus.COMPLETE
    assert export.export_id == requested.export_id
    assert sandbox.faults_left() == 0
    assert len(sandbox.record.submits()) == 1


@pytest.mark.alternating
async def test_a_setback_waits_before_it_asks_again() -> None:
    """After a failed poll, the next one is as far away as after others."""
    sandbox = Sandbox(durations=STEADY)
    sandbox.inject(Fault.LOST_AFTER, **POLL, times=12)
    async with connected(sandbox, pacer=Pacer(rate=math.inf)) as client:
        await client.wait_for_export(await client.request_export(PAGE_SEGMENT_ID))
    assert min(gaps(sandbox.record.polls())) >= 0.5


@pytest.mark.alternating
async def test_a_500_to_a_poll_pauses_the_whole_client() -> None:
    """After a 500 nothing is sent for 60 s, then one probe alone, and the wait goes on."""
    sandbox = Sandbox(segments=3, latency=0.2, durations=STEADY)
    async with connected(sandbox) as client:
        exports = [await client.request_export(s) for s in sandbox.segment_ids]
        sandbox.inject(Fault.status(500), **POLL)
        async with anyio.create_task_group() as tasks:
            for export in exports:
                tasks.start_soon(client.wait_for_export, export)
    entries = list(sandbox.record)
    refused = next(e for e in entries if e.status == 500)
    assert refused.ended_at is not None
    later = [e for e in entries if e.at > refused.ended_at]
    probe_ended = later[0].ended_at
    assert probe_ended is not None
    assert later[0].at - refused.ended_at >= 60.0
    assert all(e.at >= probe_ended for e in later[1:])


@pytest.mark.alternating
async def test_500s_in_a_row_double_the_pause() -> None:
    """After the second probe with a 500 the pause is two minutes, after the third four."""
    sandbox = Sandbox(durations=STEADY)
    async with connected(sandbox) as client:
        export = await client.request_export(PAGE_SEGMENT_ID)
        sandbox.inject(Fault.status(500), **POLL, times=4)
        await client.wait_for_export(export)
    pauses = gaps(sandbox.record.polls())
    assert pauses == pytest.approx([60, 120, 240, 480], abs=1.0)


@pytest.mark.alternating
async def test_an_unknown_status_is_not_finished(caplog: pytest.LogCaptureFixture) -> None:
    """A new status ("QUEUED") counts as at work, with one warning per client."""
    sandbox = Sandbox(segments=2, durations=STEADY)
    sandbox.inject(Fault.changed(other(status="QUEUED")), **POLL, times=5)
    async with connected(sandbox) as client:
        with caplog.at_level(logging.WARNING, logger="segments_async"):
            for segment_id in sandbox.segment_ids:
                export = await client.request_export(segment_id)
                assert (await client.wait_for_export(export)).status == ExportStatus.COMPLETE
    assert [r.getMessage() for r in caplog.records] == [
        "unknown export status 'QUEUED': taken as not finished"
    ]


@pytest.mark.alternating
async def test_an_unknown_status_stays_a_string() -> None:
    """Callers get the vendor's own word."""
    sandbox = Sandbox()
    async with connected(sandbox) as client:
        export = await client.request_export(PAGE_SEGMENT_ID)
        sandbox.inject(Fault.changed(other(status="QUEUED")))
        assert (await client.get_export(export)).status == "QUEUED"


@pytest.mark.alternating
async def test_a_404_for_good_is_not_found() -> None:
    """An export that stays unknown to the vendor ends the wait after a grace of ten seconds."""
    sandbox = Sandbox()
    async with connected(sandbox) as client:
        with pytest.raises(NotFoundError):
            await client.wait_for_export("no-such-export")
        assert 10.0 < anyio.current_time() < 60.0
    assert len(sandbox.record.polls("no-such-export")) > 1


@pytest.mark.alternating
async def test_failed_is_an_error() -> None:
    """FAILED ends the wait with the export as the vendor last described it."""
    sandbox = Sandbox(failed=1.0, durations=STEADY)
    async with connected(sandbox) as client:
        requested = await client.request_export(PAGE_SEGMENT_ID)
        with pytest.raises(ExportFailedError) as caught:
            await client.wait_for_export(requested.export_id)
    assert caught.value.segment_id == PAGE_SEGMENT_ID
    assert caught.value.export is not None
    assert caught.value.export.status == ExportStatus.FAILED


@pytest.mark.alternating
async def test_complete_without_a_link_is_asked_again() -> None:
    """COMPLETE with a null `filename` is polled again for a grace."""
    sandbox = Sandbox(durations=STEADY)
    async with connected(sandbox) as client:
        export = await client.request_export(PAGE_SEGMENT_ID)
        await anyio.sleep(10)
        sandbox.inject(Fault.changed(other(filename=None)), **POLL, times=5)
        export = await client.wait_for_export(export)
    assert export.filename is not None
    assert len(sandbox.record.polls()) == 6


@pytest.mark.alternating
async def test_complete_without_a_link_for_good_is_a_decode_error() -> None:
    """After a minute, COMPLETE without a link is a DecodeError."""
    sandbox = Sandbox(durations=STEADY)
    sandbox.inject(Fault.changed(other(filename=None)), **POLL, times=10_000)
    async with connected(sandbox) as client:
        export = await client.request_export(PAGE_SEGMENT_ID)
        with pytest.raises(DecodeError) as caught:
            await client.wait_for_export(export)
        assert 60.0 < anyio.current_time() < 75.0
    assert caught.value.where == "$.filename"


@pytest.mark.alternating
async def test_running_out_of_time_is_not_failure() -> None:
    """The ExportTimeoutError has the export, and a new wait for it works."""
    sandbox = Sandbox(durations=Durations(median=300.0, sigma=0, longest=300.0))
    async with connected(sandbox) as client:
        requested = await client.request_export(PAGE_SEGMENT_ID)
        for given in (requested, requested.export_id):
            with pytest.raises(ExportTimeoutError) as caught:
                await client.wait_for_export(given, timeout=20)
            assert caught.value.export is not None
            assert caught.value.export.export_id == requested.export_id
        assert anyio.current_time() == pytest.approx(40, abs=0.1)
        export = await client.wait_for_export(caught.value.export, timeout=600)
    assert export.status == ExportStatus.COMPLETE
    assert len(sandbox.record.submits()) == 1


@pytest.mark.alternating
async def test_another_process_can_go_on_waiting() -> None:
    """An id is enough to wait, in a client that never saw the export."""
    sandbox = Sandbox(durations=STEADY)
    async with connected(sandbox) as client:
        export_id = (await client.request_export(PAGE_SEGMENT_ID)).export_id
    async with connected(sandbox) as client:
        export = await client.wait_for_export(export_id)
    assert export.filename is not None


@pytest.mark.alternating
async def test_a_finished_export_is_not_asked_about() -> None:
    """An export with a link is returned as it is."""
    sandbox = Sandbox(durations=STEADY)
    async with connected(sandbox) as client:
        export = await client.wait_for_export(await client.request_export(PAGE_SEGMENT_ID))
        before = len(sandbox.record)
        assert await client.wait_for_export(export) == export
    assert len(sandbox.record) == before


@pytest.mark.alternating
@pytest.mark.parametrize("callers", [1, 20])
async def test_polls_of_one_export_keep_their_distance(callers: int) -> None:
    """With any number of callers and any pacer, polls are half a second apart."""
    sandbox = Sandbox(durations=Durations(median=60.0, sigma=0), latency=0.05)
    async with connected(sandbox, pacer=Pacer(rate=math.inf)) as client:
        export = await client.request_export(PAGE_SEGMENT_ID)
        async with anyio.create_task_group() as tasks:
            for _ in range(callers):
                tasks.start_soon(client.wait_for_export, export)
                tasks.start_soon(client.wait_for_export, export.export_id)
    assert min(gaps(sandbox.record.polls())) >= 0.5


async def test_callers_that_come_and_go_keep_the_distance() -> None:
    """Callers that wait in turns, each cancelled in mid-poll, don't poll faster."""
    sandbox = Sandbox(durations=Durations(median=20.0, sigma=0))
    sandbox.inject(Fault.slow(0.2), **POLL, times=10_000)
    async with connected(sandbox, pacer=Pacer(rate=math.inf)) as client:
        export = await client.request_export(PAGE_SEGMENT_ID)
        for _ in range(200):
            with anyio.move_on_after(0.07):
                await client.wait_for_export(export)
    polls = sandbox.record.polls()
    assert len(polls) > 5
    assert min(gaps(polls)) >= 0.5


@pytest.mark.alternating
async def test_polls_of_a_long_export_become_rarer() -> None:
    """An export of an hour takes a few hundred polls, and its end is noticed within 2 %."""
    sandbox = Sandbox(durations=Durations(median=3600.0, sigma=0, longest=3600.0))
    async with connected(sandbox) as client:
        await client.wait_for_export(await client.request_export(PAGE_SEGMENT_ID))
        assert anyio.current_time() < 3600 * 1.021 + 1
    assert len(sandbox.record.polls()) < 400


@pytest.mark.alternating
async def test_get_export_asks_once_more_where_that_helps() -> None:
    """After a lost answer, a 502 and a 429, a single status request goes again."""
    sandbox = Sandbox()
    async with connected(sandbox) as client:
        export = await client.request_export(PAGE_SEGMENT_ID)
        for fault in (Fault.LOST_AFTER, Fault.status(502), Fault.status(429)):
            sandbox.inject(fault, **POLL)
        assert (await client.get_export(export)).export_id == export.export_id
    assert len(sandbox.record.polls()) == 4


@pytest.mark.alternating
async def test_a_broken_vendor_is_not_asked_for_ever() -> None:
    """A list that is answered with 502s ends after five tries, with pauses between them."""
    sandbox = Sandbox()
    sandbox.inject(Fault.status(502, body=json.dumps({"error": "bad gateway"})), times=99)
    async with connected(sandbox) as client:
        with pytest.raises(ServerError) as caught:
            await client.list_segments()
    assert caught.value.status_code == 502
    assert len(sandbox.record) == 5
