"""`submitted`: a segment reported as not submitted has no POST at the vendor."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from client.vendor import connected
from segments_async import ExportTimeoutError, NotExported, NotSubmittedError, ServerError
from segments_async.sandbox import PAGE_SEGMENT_ID, Durations, Fault, Sandbox

pytestmark = pytest.mark.alternating


@pytest.mark.parametrize("seed", range(6))
async def test_after_a_refused_link_nothing_reported_as_unasked_was_asked(
    seed: int, tmp_path: Path
) -> None:
    """Segments reported as not submitted were not POSTed, and the client goes on submitting."""
    sandbox = Sandbox(segments=30, seed=seed, durations=Durations(1.0, 0.3, 5.0), latency=0.08)
    async with connected(sandbox, max_pending=3, file_hosts=[]) as client:
        report = await client.bulk_export(sandbox.segment_ids, tmp_path)
        unasked = {o.segment_id for o in report.not_exported if o.submitted == "no"}
        asked = {entry.segment_id for entry in sandbox.record.submits()}
        assert unasked
        assert unasked.isdisjoint(asked)
        again = await client.bulk_export(sorted(unasked)[:2], None)
    assert again.ok


async def test_a_timeout_while_a_shared_post_is_on_the_wire_is_not_unasked(tmp_path: Path) -> None:
    """A follower of an export whose POST is on the wire isn't reported as not submitted."""
    sandbox = Sandbox(latency=10.0)
    async with connected(sandbox) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.export, PAGE_SEGMENT_ID, tmp_path / "first.csv")
        await anyio.sleep(0.1)
        with pytest.raises(ExportTimeoutError):
            await client.export(PAGE_SEGMENT_ID, tmp_path / "second.csv", timeout=0.5)


@pytest.mark.parametrize("status", [304, 504, 599])
async def test_an_odd_answer_to_a_post_may_have_acted(status: int) -> None:
    """Only a 4xx refuses; after any other answer, the export may be running."""
    sandbox = Sandbox()
    sandbox.inject(Fault.status(status), method="POST")
    async with connected(sandbox) as client:
        report = await client.bulk_export([PAGE_SEGMENT_ID], None)
    (outcome,) = report.not_exported
    assert outcome.submitted == "maybe"


async def test_export_joins_what_request_export_asked_for(tmp_path: Path) -> None:
    """`export` joins the export that `request_export` began."""
    sandbox = Sandbox()
    async with connected(sandbox) as client:
        await client.request_export(PAGE_SEGMENT_ID)
        await client.export(PAGE_SEGMENT_ID, tmp_path / "a.csv")
    assert sandbox.record.duplicates() == {}


async def test_an_export_waited_for_by_its_id_is_not_joined(tmp_path: Path) -> None:
    """An export waited for by its id may be old: `export` of its segment begins a new one."""
    sandbox = Sandbox(durations=Durations(60.0, 0.0))
    async with connected(sandbox) as first:
        export = await first.request_export(PAGE_SEGMENT_ID)
    async with connected(sandbox) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.wait_for_export, export)
        await anyio.sleep(0.1)
        await client.export(PAGE_SEGMENT_ID, tmp_path / "a.csv")
    assert len(sandbox.record.submits()) == 2


async def test_a_name_that_is_no_unicode_harms_nobody(tmp_path: Path) -> None:
    """A lone surrogate in a segment's name changes one file's name, and ends no run."""
    sandbox = Sandbox(segments=3)

    def rename(body: bytes) -> bytes:
        return body.replace(b'"My Segment"', b'"My \\ud800 Segment"')

    sandbox.inject(Fault.changed(rename), path="export", times=1000)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, tmp_path)
    assert report.ok
    assert len((tmp_path / "manifest.jsonl").read_text().splitlines()) == 3


async def test_a_gateway_error_does_not_close_the_ticket_guard() -> None:
    """A probe that a gateway answers with 503 doesn't end the hold after a 500."""
    sandbox = Sandbox(segments=3, durations=Durations(30.0, 0.0))
    sandbox.inject(Fault.status(500), method="GET", path="export/")
    sandbox.inject(Fault.status(503), method="GET", path="export/", skip=0)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, None)
    assert report.ok
    failed = next(entry.at for entry in sandbox.record.polls() if entry.status == 500)
    probe = next(entry.at for entry in sandbox.record.polls() if entry.status == 503)
    later = [entry.at for entry in sandbox.record.api() if entry.at > probe]
    assert probe >= failed + 60
    assert min(later) >= probe + 30


async def test_retry_after_on_a_503_to_a_poll_is_kept() -> None:
    """A poll answered 503 with a Retry-After of two minutes goes again after two minutes."""
    sandbox = Sandbox()
    sandbox.inject(Fault.status(503, headers={"retry-after": "120"}), method="GET", path="export/")
    async with connected(sandbox) as client:
        await client.bulk_export([PAGE_SEGMENT_ID], None)
    first, second = sandbox.record.polls()[:2]
    assert second.at - first.at >= 120


async def test_what_ends_a_run_is_told_apart() -> None:
    """A segment out of time before its POST is reported as not submitted."""
    sandbox = Sandbox(segments=3, durations=Durations(500.0, 0.0))
    async with connected(sandbox, max_pending=1) as client:
        report = await client.bulk_export(sandbox.segment_ids, None, timeout=5)
    kinds = {type(o.error) for o in report.not_exported if isinstance(o, NotExported)}
    assert kinds == {ExportTimeoutError, NotSubmittedError}
    assert len(sandbox.record.submits()) == 1


async def test_a_call_that_gets_500s_raises_two_tickets_at_most() -> None:
    """A call that got a 500 is tried once more after the guard's pause, and then raises."""
    sandbox = Sandbox()
    sandbox.inject(Fault.status(500), times=99)
    async with connected(sandbox) as client:
        with pytest.raises(ServerError):
            await client.list_segments()
    first, second = sandbox.record.api()
    assert second.at - first.at >= 60
