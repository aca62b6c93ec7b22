"""The public `Journal`, as a program that looks after runs uses it. On both backends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from client.vendor import API_ORIGIN, STEADY, connected

from segments_async import ConfigurationError, Journal, JournalError, Segment, file_names
from segments_async.sandbox import PAGE_API_KEY, Fault, Sandbox

pytestmark = pytest.mark.alternating

ACCOUNT = {"api_key": PAGE_API_KEY, "base_url": API_ORIGIN}


async def test_a_journal_is_opened_and_never_created(where: str, tmp_path: Path) -> None:
    """Without a journal, and for another account's, there is an error; nothing is created."""
    for _ in range(2):
        with pytest.raises(JournalError) as caught:
            await Journal.open(where, **ACCOUNT)
        assert caught.value.reason == "missing"
    sandbox = Sandbox(segments=1, rows=5, durations=STEADY)
    async with connected(sandbox) as client:
        await client.bulk_export(await client.list_segments(), tmp_path / "out", journal=where)
    assert len(await (await Journal.open(where, **ACCOUNT)).runs()) == 1
    with pytest.raises(JournalError) as caught:
        await Journal.open(where, api_key="another", base_url=API_ORIGIN)
    assert caught.value.reason == "foreign"


async def test_a_run_is_gone_on_with_by_its_spec(where: str, tmp_path: Path) -> None:
    """An unfinished run is found and ended by its stored segments and options.

    While a process has the run open, its status is live.
    """
    sandbox = Sandbox(segments=3, rows=5, durations=STEADY)
    out = tmp_path / "out"
    options: dict[str, Any] = {"retry_failed": 2, "on_expired": "resubmit", "overwrite": True}
    async with connected(sandbox, max_pending=1) as client:
        segments = await client.list_segments()
        bulk = client.open_bulk_export(segments, out, journal=where, run="x", **options)
        async with bulk as run:
            async for _ in run:
                break
            journal = await Journal.open(where, **ACCOUNT)
            [status] = await journal.runs(to=out)
            assert status.live
    [status] = await journal.runs()
    assert (status.name, status.destination, status.live) == ("x", str(out), False)
    assert (status.segments, status.ended_at) == (3, None)
    assert status.exported + status.unfinished == 3
    spec = await journal.spec("x")
    assert spec is not None
    assert list(spec.segments) == [one.segment_id for one in segments]
    assert options.items() <= spec.options.items()
    async with connected(sandbox) as client:
        report = await client.bulk_export(
            spec.segments, status.destination, journal=where, run=status.name, **spec.options
        )
    assert report.ok
    [status] = await journal.runs()
    assert (status.exported, status.unfinished) == (3, 0)
    assert status.ended_at is not None
    assert await journal.spec("x") is None
    found = await journal.segments("x")
    assert {one.segment_id: one for one in found if not isinstance(one, str)} == {
        one.segment_id: one for one in segments
    }
    assert await journal.runs(to=tmp_path / "elsewhere") == []
    assert len(sandbox.record.submits()) == 3


async def test_a_segment_without_an_export_keeps_its_name(where: str, tmp_path: Path) -> None:
    """The journal has the name of a segment whose answer was lost, and later readers show it."""
    sandbox = Sandbox(segments=2, rows=5, durations=STEADY)
    async with connected(sandbox) as client:
        _, lost = segments = await client.list_segments()
        sandbox.inject(Fault.LOST_AFTER, method="POST", segment_id=lost.segment_id)
        await client.bulk_export(segments, tmp_path / "out", journal=where, run="x")
        journal = await Journal.open(where, **ACCOUNT)
        assert Segment(lost.segment_id, lost.name) in await journal.segments("x")
        assert str(lost.name) in await journal.report_html("x")
        ids = [one.segment_id for one in segments]
        report = await client.bulk_export(ids, tmp_path / "out", journal=where, run="x")
    assert [outcome.name for outcome in report.not_exported] == [lost.name]
    assert len(sandbox.record.submits()) == 2


async def test_what_is_unchanged(where: str, tmp_path: Path) -> None:
    """`unchanged` names the segments that `only_changed` skips, and file_names() the files."""
    sandbox = Sandbox(segments=3, rows=5, durations=STEADY)
    async with connected(sandbox) as client:
        segments = await client.list_segments()
        report = await client.bulk_export(segments, tmp_path / "out", journal=where)
        names = {
            outcome.segment_id: Path(outcome.file.location).name for outcome in report.exported
        }
        assert file_names(iter(segments)) == names
        journal = await Journal.open(where, **ACCOUNT)
        assert await journal.unchanged(segments, tmp_path / "out") == set(names)
        sandbox.refresh(segments[0].segment_id, 86_400.0)
        (tmp_path / "out" / names[segments[1].segment_id]).unlink()
        refreshed = await client.list_segments()
        left = await journal.unchanged(refreshed, tmp_path / "out")
        assert left == {segments[2].segment_id}
        assert await journal.unchanged(segments, tmp_path / "elsewhere") == set()
        assert await journal.prune(datetime.now(UTC) + timedelta(days=1)) == 1
        assert await journal.unchanged(segments, tmp_path / "out") == set()


def test_the_place_of_the_command_lines_journal(tmp_path: Path) -> None:
    """In the directory of the files, by one name whatever links lead there; never at a URL."""
    (tmp_path / "link").symlink_to(tmp_path)
    expected = tmp_path.resolve() / ".segments-async" / "runs.db"
    assert Journal.path_in(tmp_path / "link") == Journal.path_in(tmp_path) == expected
    with pytest.raises(ConfigurationError, match="s3://"):
        Journal.path_in("s3://bucket/x")
