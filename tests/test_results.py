"""The report of a bulk export, its progress, and a line per outcome."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import attrs
import pytest

from segments_async._run.report import BulkExportError, BulkReport
from segments_async.errors import DownloadError, NotSubmittedError
from segments_async.models import Export, ExportStatus, Segment, SegmentType
from segments_async.results import (
    Completed,
    Exported,
    ExportedFile,
    NotExported,
    Progress,
    in_bytes,
)

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
LINK = "https://bucket.s3.amazonaws.com/secret-path?X-Amz-Signature=5ec4e7"
SEGMENT = Segment("a-segment", "A Segment", "a-project", SegmentType.STATIC)
EXPORT = Export("an-export", SEGMENT, ExportStatus.COMPLETE, NOON, end_time=NOON, filename=LINK)
FILE = ExportedFile("/exports/a.csv", 0, "ab" * 32, verified=False, export=EXPORT)

EXPORTED = Exported("a-segment", EXPORT, FILE)
COMPLETED = Completed("a-segment", EXPORT)
NOT_SUBMITTED = NotExported(
    "a-segment", None, NotSubmittedError("too late"), "no", resumable=True, name="Given"
)
NOT_FETCHED = NotExported(
    "a-segment",
    EXPORT,
    DownloadError("the file is shorter than announced", reason="length", export=EXPORT),
    "yes",
    resumable=True,
)
OUTCOMES = [EXPORTED, COMPLETED, NOT_SUBMITTED, NOT_FETCHED]
KEYS = [
    "run",
    "at",
    "outcome",
    "segment_id",
    "name",
    "export_id",
    "file",
    "size",
    "sha256",
    "verified",
    "source",
    "submitted",
    "resumable",
    "error",
]
every_outcome = pytest.mark.parametrize(
    "outcome", OUTCOMES, ids=["exported", "completed", "not submitted", "not fetched"]
)
Outcome = Exported | Completed | NotExported


def report(*not_exported: NotExported) -> BulkReport[Exported]:
    total = 1 + len(not_exported)
    progress = Progress(total, 0, 0, 0, 1, 0, total - 1, 4, 3, 0, 10.0, None, 0.0)
    return BulkReport("a-run", [EXPORTED], not_exported, NOON, NOON, progress)


# The report.


def test_a_report_with_a_failure_raises() -> None:
    """The error has the number of failures, the first one's reason, and the report."""
    failed = report(NOT_SUBMITTED, NOT_FETCHED)
    with pytest.raises(BulkExportError, match=r"^2 of 3 .*: too late$") as caught:
        failed.raise_for_errors()
    assert caught.value.report is failed
    assert not failed.ok


def test_a_report_without_a_failure_raises_nothing() -> None:
    """If every segment was exported, the report is ok and raises nothing."""
    report().raise_for_errors()
    assert report().ok


def test_an_empty_run_is_ok() -> None:
    """An account without segments is no failure."""
    assert attrs.evolve(report(), exported=[]).ok


# A line per outcome.


@every_outcome
def test_every_line_has_the_same_keys(outcome: Outcome) -> None:
    """Every line has the same keys in the same order, for any outcome."""
    assert list(outcome.to_dict(run="a-run")) == KEYS


@every_outcome
def test_a_line_has_no_link(outcome: Outcome) -> None:
    """No line has a link to a file, nor any part of it."""
    line = json.dumps(outcome.to_dict(run="a-run"))
    assert "amazonaws" not in line
    assert "secret-path" not in line
    assert "5ec4e7" not in line


@every_outcome
def test_a_line_is_json(outcome: Outcome) -> None:
    """A line is plain JSON that can be read back."""
    line = outcome.to_dict(run="a-run")
    assert json.loads(json.dumps(line)) == line


def test_a_line_of_a_file_of_nothing() -> None:
    """A size of 0 and an unverified file are 0 and false, not null."""
    line = EXPORTED.to_dict(run="a-run")
    assert (line["size"], line["verified"]) == (0, False)


def test_a_line_of_an_exported_segment() -> None:
    """An exported segment's line has its file, and no error."""
    line = EXPORTED.to_dict(run="a-run")
    del line["at"]
    assert line == {
        "run": "a-run",
        "outcome": "exported",
        "segment_id": "a-segment",
        "name": "A Segment",
        "export_id": "an-export",
        "file": "/exports/a.csv",
        "size": 0,
        "sha256": "ab" * 32,
        "verified": False,
        "source": "exported",
        "submitted": "yes",
        "resumable": None,
        "error": None,
    }


def test_a_line_of_a_completed_segment() -> None:
    """A completed segment's line has its export, and no file."""
    line = COMPLETED.to_dict(run="a-run")
    assert (line["outcome"], line["export_id"], line["file"]) == ("completed", "an-export", None)


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (NOT_SUBMITTED, {"type": "NotSubmittedError", "message": "too late"}),
        (
            NOT_FETCHED,
            {"type": "DownloadError", "message": "the file is shorter than announced"},
        ),
    ],
)
def test_a_line_of_a_segment_that_was_not_exported(
    outcome: NotExported, error: dict[str, str]
) -> None:
    """The line has the error's class and message, and whether the segment was submitted."""
    line = outcome.to_dict(run="a-run")
    assert line["outcome"] == "not_exported"
    assert (line["error"], line["submitted"]) == (error, outcome.submitted)
    assert line["resumable"] is True


@pytest.mark.parametrize(
    ("outcome", "name"), [(NOT_SUBMITTED, "Given"), (NOT_FETCHED, "A Segment")]
)
def test_the_name_in_a_line(outcome: Outcome, name: str) -> None:
    """The name is that of the export's segment, or the caller's where there is no export."""
    assert outcome.to_dict(run="a-run")["name"] == name


@every_outcome
def test_a_line_says_when(outcome: Outcome) -> None:
    """The time is the caller's, in UTC, with its offset; without one it is null."""
    assert outcome.to_dict()["at"] is None
    at = NOON.astimezone(timezone(timedelta(hours=2)))
    assert outcome.to_dict(at=at)["at"] == "2026-11-23T12:00:00.000+00:00"


def test_sizes_in_words() -> None:
    """Sizes as people write them."""
    assert [in_bytes(n) for n in (0, 999, 1000, 999_999, 12_345_678)] == [
        "0 B", "999 B", "1.0 kB", "1.0 MB", "12.3 MB",
    ]  # fmt: skip
