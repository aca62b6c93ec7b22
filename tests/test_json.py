"""The JSON of public values: plain, documented, and without a link or a secret."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from client.vendor import STEADY, connected
from jsonschema import Draft202012Validator
from test_results import COMPLETED, EXPORTED, NOT_FETCHED, NOT_SUBMITTED

from segments_async import BulkReport, Held, HeldReason, Journal
from segments_async.sandbox import API_ORIGIN, PAGE_ACCESS_TOKEN, PAGE_API_KEY, Fault, Sandbox

DOCS = Path(__file__).parent.parent / "docs"
SCHEMA: dict[str, Any] = json.loads((DOCS / "schema.json").read_text())
SECRET = re.compile(rf"Signature|amazonaws|{PAGE_ACCESS_TOKEN}")


def check(value: Any, definition: str) -> None:
    """The value is valid, is the same after a round trip through JSON, and has no secret."""
    text = json.dumps(value)
    assert json.loads(text) == value
    validator = Draft202012Validator(
        {**SCHEMA, "$ref": f"#/$defs/{definition}"},
        format_checker=Draft202012Validator.FORMAT_CHECKER,
    )
    assert [error.message for error in validator.iter_errors(value)] == []
    assert SECRET.search(text) is None


async def report_of(tmp_path: Path) -> tuple[BulkReport[Any], list[Any]]:
    """A report with files and failures, and the progress that was told meanwhile."""
    sandbox = Sandbox(segments=12, rows=1, durations=STEADY, failed=0.3)
    sandbox.inject(Fault.status(500), method="GET", path="/export/", skip=3)
    async with connected(sandbox) as client:
        segments = await client.list_segments()
        for segment in segments:
            check(segment.to_dict(), "segment")
        async with client.open_bulk_export(segments, tmp_path) as run:
            seen = [progress async for progress in run.changes(0.5)]
            return await run.report(), seen


async def test_a_run(tmp_path: Path) -> None:
    """The progress, the report, its outcomes, exports and files of a run fit the schema."""
    report, seen = await report_of(tmp_path)
    check(report.to_dict(), "report")
    assert report.exported
    assert report.not_exported
    for progress in seen:
        check(progress.to_dict(), "progress")
    assert {p.held.reason for p in seen if p.held} == {HeldReason.TICKET_GUARD}
    for outcome in report.exported:
        check(outcome.file.to_dict(), "file")
        check(outcome.export.to_dict(), "export")
    for line in (tmp_path / "manifest.jsonl").read_text().splitlines():
        check(json.loads(line), "outcome")
    assert {o.name for o in report.not_exported} != {None}


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_the_runs_of_a_journal(tmp_path: Path) -> None:
    """A run's status fits the schema while the run is open, and when it has ended."""
    sandbox = Sandbox(segments=3, rows=1, durations=STEADY)
    place = tmp_path / "runs.db"
    async with connected(sandbox) as client:
        async with client.open_bulk_export(sandbox.segment_ids, None, journal=place):
            (live,) = await _statuses(place)
        await client.bulk_export(sandbox.segment_ids, None, journal=place)
    (ended,) = await _statuses(place)
    assert (live["live"], live["ended_at"], live["segments"]) == (True, None, 3)
    assert (ended["live"], ended["exported"], ended["unfinished"]) == (False, 3, 0)


async def _statuses(place: Path) -> list[dict[str, Any]]:
    journal = await Journal.open(place, api_key=PAGE_API_KEY, base_url=API_ORIGIN)
    found: list[dict[str, Any]] = [run.to_dict() for run in await journal.runs()]
    for status in found:
        check(status, "run_status")
    return found


@pytest.mark.parametrize("outcome", [EXPORTED, COMPLETED, NOT_SUBMITTED, NOT_FETCHED])
def test_every_kind_of_outcome(outcome: Any) -> None:
    """An outcome is valid with a run's name and without one."""
    check(outcome.to_dict(), "outcome")
    check(outcome.to_dict(run="a-run"), "outcome")


@pytest.mark.parametrize("reason", HeldReason)
def test_every_reason(reason: HeldReason) -> None:
    """Each reason is in the schema, and on the page that explains reasons."""
    check(Held(reason=reason).to_dict(), "held")
    assert f'"{reason}"' in (DOCS / "observability.md").read_text()


@pytest.mark.parametrize("definition", SCHEMA["$defs"])
def test_each_key_is_on_a_page(definition: str) -> None:
    """docs/json.md, or docs/manifest.md for outcomes, names each key of the schema."""
    page = "manifest.md" if definition == "outcome" else "json.md"
    text = (DOCS / page).read_text()
    missing = [k for k in SCHEMA["$defs"][definition]["properties"] if f"`{k}`" not in text]
    assert missing == []


async def test_a_report_in_a_notebook(tmp_path: Path) -> None:
    """A report's repr is short, and its HTML has no markup of names and errors."""
    report, _ = await report_of(tmp_path)
    assert len(repr(report)) < 200
    assert SECRET.search(repr(report)) is None
    html = report._repr_html_()
    assert "<table>" in html
    assert html.count("<tr>") == 1 + min(20, len(report.not_exported))
    evil = NOT_SUBMITTED.__class__("s", None, NOT_SUBMITTED.error, "no", True, "<script>x</script>")
    shown = BulkReport("<b>", [], [evil], report.started_at, report.ended_at, report.progress)
    assert "<script>" not in shown._repr_html_()
    assert "<b>" not in shown._repr_html_()
