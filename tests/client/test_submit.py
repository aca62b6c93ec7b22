"""`request_export`: at most one POST has an effect, with any answer."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from client.vendor import STEADY, connected, gaps, is_whole
from segments_async import (
    APIConnectionError,
    ExportStatus,
    NotSubmittedError,
    Pacer,
    RateLimitedError,
    ServerError,
    SubmitUnknownError,
)
from segments_async.sandbox import PAGE_SEGMENT_ID, Fault, Sandbox, TokenBucket

UNKNOWN = {
    "lost before": Fault.LOST_BEFORE,
    "lost after": Fault.LOST_AFTER,
    "cut": Fault.cut(9),
    "late": Fault.slow(100.0),
    "502": Fault.status(502, body="<html>"),
    "503": Fault.status(503, headers={"retry-after": "1"}),
    "504 acted": Fault.status(504, acts=True),
    "compressed": Fault.status(200, headers={"content-encoding": "gzip"}, acts=True),
}
every_unknown = pytest.mark.parametrize("fault", UNKNOWN.values(), ids=UNKNOWN)


@pytest.mark.alternating
@every_unknown
async def test_a_lost_answer_is_unknown_and_never_repeated(fault: Fault) -> None:
    """A POST that may have arrived ends as SubmitUnknownError, after one POST."""
    sandbox = Sandbox()
    sandbox.inject(fault)
    async with connected(sandbox) as client:
        with pytest.raises(SubmitUnknownError) as caught:
            await client.request_export(PAGE_SEGMENT_ID)
    assert caught.value.segment_id == PAGE_SEGMENT_ID
    assert caught.value.export is None
    assert len(sandbox.record.submits()) == 1


@pytest.mark.alternating
@every_unknown
async def test_a_lost_answer_is_unknown_in_a_run_and_in_export(
    fault: Fault, tmp_path: Path
) -> None:
    """`export` and bulk runs don't repeat it either, and report it as unknown."""
    sandbox = Sandbox(segments=2)
    sandbox.inject(fault, method="POST", times=2)
    async with connected(sandbox) as client:
        with pytest.raises(SubmitUnknownError):
            await client.export(sandbox.segment_ids[0], tmp_path / "a.csv")
        report = await client.bulk_export(sandbox.segment_ids[1:], None)
    (missing,) = report.not_exported
    assert isinstance(missing.error, SubmitUnknownError)
    assert (missing.submitted, missing.resumable) == ("maybe", False)
    assert [len(sandbox.record.submits(s)) for s in sandbox.segment_ids] == [1, 1]


@pytest.mark.alternating
async def test_unreachable_is_tried_again() -> None:
    """A POST that provably didn't arrive goes again, with pauses, and makes one export."""
    sandbox = Sandbox()
    sandbox.inject(Fault.UNREACHABLE, times=3)
    async with connected(sandbox) as client:
        export = await client.request_export(PAGE_SEGMENT_ID)
        assert anyio.current_time() > 1.0
    assert export.status == ExportStatus.PENDING
    assert sum(sandbox.record.exports_per_segment().values()) == 1


@pytest.mark.alternating
async def test_unreachable_for_good_is_a_connection_error() -> None:
    """After five tries the error says that nothing was sent."""
    sandbox = Sandbox()
    sandbox.inject(Fault.UNREACHABLE, times=99)
    async with connected(sandbox) as client:
        with pytest.raises(APIConnectionError) as caught:
            await client.request_export(PAGE_SEGMENT_ID)
    assert caught.value.sent is False
    assert sandbox.faults_left() == 1
    assert len(sandbox.record) == 0


@pytest.mark.alternating
async def test_a_run_gives_unreachable_exports_back() -> None:
    """A vendor that can't be reached for ten minutes ends the run: all segments are resumable."""
    sandbox = Sandbox(segments=3)
    sandbox.inject(Fault.UNREACHABLE, times=10**6)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, None)
        assert 600 < anyio.current_time() < 700
    assert [(o.submitted, o.resumable) for o in report.not_exported] == [("no", True)] * 3
    assert all(isinstance(o.error, APIConnectionError) for o in report.not_exported)


@pytest.mark.alternating
async def test_a_429_is_only_put_off() -> None:
    """A POST that got a 429 goes again after the pause, and has one effect."""
    sandbox = Sandbox()
    sandbox.inject(Fault.status(429, headers={"retry-after": "7"}), times=2)
    async with connected(sandbox) as client:
        await client.request_export(PAGE_SEGMENT_ID)
    assert [e.status for e in sandbox.record.submits()] == [429, 429, 200]
    assert min(gaps(sandbox.record.submits())) >= 7.0
    assert sandbox.record.duplicates() == {}


@pytest.mark.alternating
async def test_429s_without_end_are_told() -> None:
    """After five 429s a single call raises RateLimitedError, with the vendor's scope."""
    sandbox = Sandbox()
    headers = {"x-mp-rate-limit-exceeded": "account"}
    sandbox.inject(Fault.status(429, headers=headers), times=99)
    async with connected(sandbox) as client:
        with pytest.raises(RateLimitedError) as caught:
            await client.request_export(PAGE_SEGMENT_ID)
    assert caught.value.scope == "account"
    assert len(sandbox.record.submits()) == 5


@pytest.mark.alternating
async def test_a_500_ends_the_call_after_one_post() -> None:
    """A 500 to a POST is a ServerError at once, since each 500 raises a ticket at the vendor."""
    sandbox = Sandbox()
    sandbox.inject(Fault.status(500))
    async with connected(sandbox) as client:
        with pytest.raises(ServerError) as caught:
            await client.request_export(PAGE_SEGMENT_ID)
    assert type(caught.value) is ServerError
    assert caught.value.status_code == 500
    assert len(sandbox.record.submits()) == 1


@pytest.mark.alternating
async def test_after_a_500_the_vendor_is_left_alone() -> None:
    """The client sends nothing for 60 s after a 500, and then one probe before the rest."""
    sandbox = Sandbox(latency=0.2)
    sandbox.inject(Fault.status(500))
    async with connected(sandbox) as client:
        with pytest.raises(ServerError):
            await client.request_export(PAGE_SEGMENT_ID)
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(client.list_segments)
    first, probe, *rest = sandbox.record
    assert first.ended_at is not None
    assert probe.ended_at is not None
    assert probe.at - first.ended_at >= 60.0
    assert len(rest) == 4
    assert min(e.at for e in rest) >= probe.ended_at


@pytest.mark.alternating
async def test_request_export_never_joins() -> None:
    """`request_export` always POSTs, though an export of the segment is running."""
    sandbox = Sandbox()
    async with connected(sandbox) as client:
        first = await client.request_export(PAGE_SEGMENT_ID)
        second = await client.request_export(PAGE_SEGMENT_ID)
    assert first.export_id != second.export_id
    assert len(sandbox.record.submits()) == 2


async def test_one_cancelled_before_its_turn_sends_nothing() -> None:
    """A call that is cancelled while it waits for the pacer never sends its POST."""
    sandbox = Sandbox()
    async with connected(sandbox, pacer=Pacer(rate=0.5)) as client:
        await client.list_segments()
        began = anyio.current_time()
        with anyio.move_on_after(1.5) as scope:
            await client.request_export(PAGE_SEGMENT_ID)
        assert scope.cancelled_caught
        assert anyio.current_time() - began == pytest.approx(1.5)
        await anyio.sleep(10)
    assert sandbox.record.submits() == []


async def test_a_caller_already_cancelled_sends_nothing(tmp_path: Path) -> None:
    """Neither `request_export` nor `export` starts a POST in a scope that is cancelled."""
    sandbox = Sandbox()
    async with connected(sandbox) as client:
        for call in (
            lambda: client.request_export(PAGE_SEGMENT_ID),
            lambda: client.export(PAGE_SEGMENT_ID, tmp_path / "a.csv"),
        ):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await call()
            assert scope.cancelled_caught
        await anyio.sleep(10)
    assert len(sandbox.record) == 0


async def test_a_post_on_the_wire_has_a_second_more() -> None:
    """Cancelled in mid-POST, the call ends when the answer has come."""
    sandbox = Sandbox()
    sandbox.inject(Fault.slow(0.8))
    async with connected(sandbox) as client:
        with anyio.move_on_after(0.3) as scope:
            await client.request_export(PAGE_SEGMENT_ID)
        assert scope.cancelled_caught
        assert anyio.current_time() == pytest.approx(0.8, abs=0.01)
    (entry,) = sandbox.record
    assert entry.ended_at == pytest.approx(0.8)


async def test_a_post_on_the_wire_has_no_more_than_a_second() -> None:
    """A call cancelled in mid-POST doesn't wait for an answer that takes longer."""
    sandbox = Sandbox()
    sandbox.inject(Fault.slow(20.0))
    async with connected(sandbox) as client:
        with anyio.move_on_after(0.3) as scope:
            await client.request_export(PAGE_SEGMENT_ID)
        assert scope.cancelled_caught
        assert anyio.current_time() == pytest.approx(1.3, abs=0.01)
    assert len(sandbox.record) == 1


async def test_the_id_of_a_cancelled_post_is_kept(tmp_path: Path) -> None:
    """`export` of the segment follows the export whose caller was cancelled during the POST."""
    sandbox = Sandbox(rows=5, durations=STEADY)
    sandbox.inject(Fault.slow(0.8))
    async with connected(sandbox) as client:
        with anyio.move_on_after(0.3) as scope:
            await client.export(PAGE_SEGMENT_ID, tmp_path / "a.csv")
        assert scope.cancelled_caught
        file = await client.export(PAGE_SEGMENT_ID, tmp_path / "a.csv")
    assert is_whole(sandbox, file.path, PAGE_SEGMENT_ID)
    assert len(sandbox.record.submits()) == 1


async def test_out_of_time_in_mid_post_is_unknown(tmp_path: Path) -> None:
    """A timeout in mid-POST, without an answer, says that the export may be running."""
    sandbox = Sandbox()
    sandbox.inject(Fault.slow(20.0))
    async with connected(sandbox) as client:
        with pytest.raises(SubmitUnknownError):
            await client.export(PAGE_SEGMENT_ID, tmp_path / "a.csv", timeout=2.0)
    assert len(sandbox.record.submits()) == 1


async def test_out_of_time_before_the_post_is_not_submitted(tmp_path: Path) -> None:
    """A timeout before the POST says that nothing was sent."""
    sandbox = Sandbox()
    async with connected(sandbox, pacer=Pacer(rate=0.1)) as client:
        await client.list_segments()
        with pytest.raises(NotSubmittedError):
            await client.export(PAGE_SEGMENT_ID, tmp_path / "a.csv", timeout=2.0)
    assert sandbox.record.submits() == []


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(delay=0.5, reply=Fault.status(500).reply, acts=False), ServerError),
        (Fault(delay=0.5, lost="after"), SubmitUnknownError),
    ],
    ids=["500", "lost"],
)
async def test_what_the_grace_brings_is_told(
    fault: Fault, error: type[Exception], tmp_path: Path
) -> None:
    """If the answer comes after the timeout, within the grace, the error is the answer's."""
    sandbox = Sandbox()
    sandbox.inject(fault)
    async with connected(sandbox) as client:
        with pytest.raises(error):
            await client.export(PAGE_SEGMENT_ID, tmp_path / "a.csv", timeout=0.2)
    assert len(sandbox.record.submits()) == 1


@pytest.mark.alternating
async def test_a_hundred_posts_under_faults_make_no_duplicate() -> None:
    """With lost, refused and unreachable POSTs, no segment gets a second export."""
    sandbox = Sandbox(
        segments=100,
        limit=TokenBucket(20, 20),
        lost_before=0.05,
        lost_after=0.05,
        gateway_errors=0.05,
        latency=0.1,
    )
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, None)
    assert len(report.exported) + len(report.not_exported) == 100
    assert sandbox.record.duplicates() == {}
    unknown = {o.segment_id for o in report.not_exported}
    assert all(isinstance(o.error, SubmitUnknownError) for o in report.not_exported)
    repeated = {
        e.segment_id
        for e in sandbox.record.submits()
        if e.lost != "no" or e.status in range(502, 505)
    }
    assert unknown == repeated
