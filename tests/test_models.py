"""The models: frozen values whose reprs have no secrets."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest

from segments_async._run.report import BulkReport
from segments_async.errors import ConfigurationError, NotSubmittedError
from segments_async.models import Export, ExportStatus, OutputFormat, Segment, SegmentType
from segments_async.results import (
    Completed,
    Exported,
    ExportedFile,
    NotExported,
    Progress,
)

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
LINK = "https://bucket.s3.amazonaws.com/secret-path?X-Amz-Signature=5ec4e7"
SEGMENT = Segment("a-segment", "A Segment", "a-project", SegmentType.STATIC, last_run=NOON)
EXPORT = Export("an-export", SEGMENT, ExportStatus.COMPLETE, NOON, end_time=NOON, filename=LINK)
FILE = ExportedFile("/exports/a.csv", 4, "ab" * 32, verified=True, export=EXPORT)
PROGRESS = Progress(1, 0, 0, 0, 1, 0, 0, 4, 3, 0, 10.0, None, 0.0)
REPORT = BulkReport("a-run", [Exported("a-segment", EXPORT, FILE)], [], NOON, NOON, PROGRESS)
VALUES: list[Any] = [
    SEGMENT,
    EXPORT,
    FILE,
    Exported("a-segment", EXPORT, FILE),
    Completed("a-segment", EXPORT),
    NotExported("a-segment", EXPORT, NotSubmittedError("no", export=EXPORT), "no", resumable=True),
    PROGRESS,
    REPORT,
]
every_value = pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)


@every_value
def test_values_are_frozen(value: Any) -> None:
    """No attribute of a value can be set or deleted."""
    for attribute in attrs.fields(type(value)):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(value, attribute.name, None)
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            delattr(value, attribute.name)


@every_value
def test_values_have_no_room_for_more(value: Any) -> None:
    """A misspelt attribute is an error, and no new attribute."""
    with pytest.raises((AttributeError, attrs.exceptions.FrozenInstanceError)):
        value.segmentId = "a-segment"


@every_value
def test_a_repr_has_no_link(value: Any) -> None:
    """A repr hides an export's link, wherever the export is inside: a link is a credential."""
    assert "amazonaws" not in repr(value)
    assert "5ec4e7" not in str(value)


@pytest.mark.parametrize("location", ["s3://bucket/key.csv", "https://host/key.csv"])
def test_a_file_elsewhere_has_no_path(location: str) -> None:
    """The local path of a file that isn't on this machine raises."""
    with pytest.raises(ConfigurationError, match="not a local file"):
        _ = attrs.evolve(FILE, location=location).path


@pytest.mark.parametrize("location", ["/exports/a.csv", "/exports/a:b.csv", "/s3:/bucket/a.csv"])
def test_a_local_file_has_its_path(location: str) -> None:
    """The path of a local file is its location."""
    assert attrs.evolve(FILE, location=location).path == Path(location)


def test_what_may_be_unknown_is_none() -> None:
    """Description, category, last run, project of an export, end and link default to None."""
    segment = Segment("a-segment", "A Segment", "a-project", "Realtime")
    export = Export("an-export", segment, "QUEUED", NOON)
    unknown = (segment.description, segment.category, segment.last_run)
    assert unknown == (None, None, None)
    assert (export.project_id, export.end_time, export.filename) == (None, None, None)


@pytest.mark.parametrize("value", VALUES[:5], ids=lambda value: type(value).__name__)
def test_a_copy_is_equal(value: Any) -> None:
    """A value that is copied is equal to the first, its link included."""
    assert copy.copy(value) == value
    assert copy.deepcopy(value) == value


def test_a_pickled_export_lacks_its_link_and_nothing_else() -> None:
    """A pickled export lacks its link, which is a credential, and nothing else."""
    export = attrs.evolve(
        EXPORT, filename="https://bucket.s3.amazonaws.com/a.csv?X-Amz-Signature=5"
    )
    data = pickle.dumps(ExportedFile("/a.csv", 1, "", verified=True, export=export))
    assert b"X-Amz-Signature" not in data
    assert pickle.loads(data).export == attrs.evolve(export, filename=None)


@pytest.mark.parametrize("value", [SEGMENT, EXPORT, FILE], ids=lambda value: type(value).__name__)
def test_values_can_be_keys(value: Any) -> None:
    """Equal values have equal hashes, so that they can be in a set."""
    assert {value, copy.deepcopy(value)} == {value}


@pytest.mark.parametrize(
    ("member", "text"),
    [
        (SegmentType.STATIC, "Static"),
        (SegmentType.DYNAMIC, "Dynamic"),
        (ExportStatus.PENDING, "PENDING"),
        (ExportStatus.COMPLETE, "COMPLETE"),
        (ExportStatus.FAILED, "FAILED"),
        (OutputFormat.CSV, "csv"),
    ],
)
def test_members_are_the_pages_words(member: str, text: str) -> None:
    """A member of an enum is, compares and prints as the word on the vendor's page."""
    assert member == text
    assert f"{member}" == text
