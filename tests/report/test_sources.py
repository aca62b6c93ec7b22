"""The page of a run, from its report and from its journal: the same run, and no secret."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from client.vendor import API_ORIGIN, STEADY, connected

from segments_async import Journal, JournalError
from segments_async.sandbox import PAGE_ACCESS_TOKEN, PAGE_API_KEY, Fault, FixedWindow, Sandbox

pytestmark = pytest.mark.alternating

ACCOUNT = {"api_key": PAGE_API_KEY, "base_url": API_ORIGIN}


def data_of(html: str) -> dict[str, Any]:
    [text] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html)
    found: dict[str, Any] = json.loads(text)
    return found


def rows_of(data: dict[str, Any]) -> set[tuple[object, ...]]:
    columns = (data[name] for name in ("id", "name", "export", "state", "size", "file"))
    return set(zip(*columns, strict=True))


def held_seconds(data: dict[str, Any]) -> Counter[str]:
    found: Counter[str] = Counter()
    for *_, held in data["pace"]:
        found.update(held)
    return found


async def test_the_two_pages_of_a_run_are_the_same(tmp_path: Path) -> None:
    """The report's page and the journal's have the same rows, reasons, requests and 429s.

    And as many requests as the vendor recorded.
    """
    sandbox = Sandbox(segments=40, rows=3, durations=STEADY, failed=0.2, limit=FixedWindow(60, 30))
    sandbox.inject(Fault.status(500), method="GET", path="/export/", skip=5)
    where = tmp_path / "runs.db"
    async with connected(sandbox) as client:
        before = len(sandbox.record.api())
        async with client.open_bulk_export(
            sandbox.segment_ids, tmp_path / "out", journal=where, run="night"
        ) as run:
            report = await run.report()
        sent = sandbox.record.api()[before:]
    journal = await Journal.open(where, **ACCOUNT)
    mine, theirs = data_of(report.to_html()), data_of(await journal.report_html("night"))
    assert rows_of(mine) == rows_of(theirs)
    assert len(rows_of(mine)) == 40
    assert set(mine["state"]) == {"e", "n"}
    assert mine["problems"] == theirs["problems"]
    for data in (mine, theirs):
        assert sum(point[3] for point in data["pace"]) == len(sent)
        assert sum(point[4] for point in data["pace"]) == sum(e.status == 429 for e in sent)
        assert {"ticket_guard", "rate_limit"} <= data["held"].keys()
        assert 55 < held_seconds(data)["ticket_guard"] < 70
        assert -1 not in data["a"]


async def test_no_page_has_a_secret(tmp_path: Path) -> None:
    """Neither page has a link of the exports, their signatures, or the access token."""
    sandbox = Sandbox(segments=10, rows=3, durations=STEADY)
    where = tmp_path / "runs.db"
    async with connected(sandbox) as client:
        report = await client.bulk_export(
            sandbox.segment_ids, tmp_path / "out", journal=where, run="x"
        )
    links = [outcome.export.filename for outcome in report.exported]
    assert all(links)
    page = await (await Journal.open(where, **ACCOUNT)).report_html("x")
    for html in (report.to_html(), page):
        assert PAGE_ACCESS_TOKEN not in html
        assert "Signature" not in html.partition("<script")[0]
        for link in links:
            assert link is not None
            assert link.partition("?")[2] not in html
            assert link not in html


async def test_an_unfinished_run(tmp_path: Path) -> None:
    """Exports under way are shown where they are; the next session's page has the whole run."""
    sandbox = Sandbox(segments=6, rows=3, durations=STEADY)
    where, out = tmp_path / "runs.db", tmp_path / "out"
    async with connected(sandbox, max_pending=3) as client:
        segments = await client.list_segments()
        async with client.open_bulk_export(segments, out, journal=where, run="x") as run:
            async for progress in run.changes(0.1):
                if progress.pending == 3:
                    break
            journal = await Journal.open(where, **ACCOUNT)
            html = await journal.report_html("x")
    assert "The run is under way: 0 of 6 segments are done" in html
    assert Counter(data_of(html)["state"]) == {"p": 3, "w": 3}
    left = await journal.report_html("x")
    assert "The run is unfinished: 0 of 6 segments are done" in left
    earlier = sum(point[3] for point in data_of(left)["pace"])
    assert earlier >= 3
    async with connected(sandbox) as client:
        report = await client.bulk_export(segments, out, journal=where, run="x")
    both = data_of(await journal.report_html("x"))
    assert sum(point[3] for point in both["pace"]) == earlier + report.progress.requests
    mine = data_of(report.to_html())
    assert [point[3:] for point in both["pace"]] == [point[3:] for point in mine["pace"]]
    assert both["state"] == "e" * 6


async def test_a_run_without_a_journal(tmp_path: Path) -> None:
    """Its report has the times and the pace all the same."""
    sandbox = Sandbox(segments=5, rows=3, durations=STEADY)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, tmp_path / "out")
    data = data_of(report.to_html())
    assert -1 not in [*data["a"], *data["c"], *data["e"]]
    assert sum(point[3] for point in data["pace"]) == len(sandbox.record.api())


async def test_a_run_that_wants_only_links() -> None:
    """Without a directory, exports are complete, and no figure speaks of files."""
    sandbox = Sandbox(segments=5, rows=3, durations=STEADY)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, None)
    html = report.to_html()
    assert data_of(html)["state"] == "ccccc"
    assert "manifest.jsonl" not in html


async def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    """A name that the journal doesn't have is an error, and not an empty page."""
    sandbox = Sandbox(segments=1, rows=3, durations=STEADY)
    where = tmp_path / "runs.db"
    async with connected(sandbox) as client:
        await client.bulk_export(sandbox.segment_ids, tmp_path / "out", journal=where)
    journal = await Journal.open(where, **ACCOUNT)
    for name in ("y", "y\udcff", "y\0"):
        with pytest.raises(JournalError, match="no run called 'y") as caught:
            await journal.report_html(name)
        assert caught.value.reason == "missing"
        assert await journal.spec(name) is None
        assert await journal.segments(name) == []
