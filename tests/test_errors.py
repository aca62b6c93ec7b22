"""The errors: one root, the tree in the docstring, and facts that survive a pickle."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

import segments_async
from segments_async import errors
from segments_async._run.report import BulkExportError, BulkReport
from segments_async.errors import (
    APIConnectionError,
    APIStatusError,
    DecodeError,
    DownloadError,
    ExportError,
    RateLimitedError,
    SegmentsError,
)
from segments_async.models import Export, ExportStatus, Segment, SegmentType
from segments_async.results import NotExported, Progress

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
EXPORT = Export(
    export_id="an-export",
    segment=Segment("a-segment", "A Segment", "a-project", SegmentType.STATIC, last_run=NOON),
    status=ExportStatus.COMPLETE,
    start_time=NOON,
)
REPORT: BulkReport[Any] = BulkReport(
    name="a-run",
    exported=[],
    not_exported=[NotExported("a-segment", None, ExportError("no"), "no", resumable=True)],
    started_at=NOON,
    ended_at=NOON,
    progress=Progress(1, 0, 0, 0, 0, 0, 1, 0, 0, 0, None, None, None),
)

REQUEST = {"method": "POST", "path": "/service/v1/segments/export/"}
STATUS = {**REQUEST, "status_code": 429, "body": "slow down", "retry_after": 7.5}
FACTS: dict[type[SegmentsError], dict[str, Any]] = {
    errors.APIError: REQUEST,
    errors.TargetExistsError: {"path": "exports/a.csv"},
    APIConnectionError: {**REQUEST, "sent": True},
    errors.APITimeoutError: {**REQUEST, "sent": True, "seconds": 5.0},
    DecodeError: {**REQUEST, "where": "$[3].segmentId"},
    RateLimitedError: {**STATUS, "scope": "workspace"},
    errors.JournalError: {"reason": "newer", "location": "runs.db"},
    DownloadError: {"export": EXPORT, "reason": "checksum"},
    errors.DestinationError: {"reason": "away"},
    BulkExportError: {"report": REPORT},
}


def tree(root: type[SegmentsError] = SegmentsError) -> Iterator[type[SegmentsError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__.startswith("segments_async."):
            yield from tree(child)


CLASSES = list(tree())


def payload_of(cls: type[SegmentsError]) -> dict[str, Any]:
    """A value for each fact that the class takes."""
    if cls in FACTS:
        return FACTS[cls]
    if issubclass(cls, APIStatusError):
        return STATUS
    if issubclass(cls, ExportError):
        return {"segment_id": "a-segment", "export": EXPORT}
    return {}


def made(cls: type[SegmentsError]) -> SegmentsError:
    return cls("what happened", **payload_of(cls))


def drawn() -> dict[str, str]:
    """Each class of the tree in the docstring, with the class above it."""
    above: dict[str, str] = {}
    path: list[str] = []
    for line in inspect.getdoc(errors).splitlines():  # type: ignore[union-attr]
        if match := re.match(r"^([│├└─ ]*)(\w+Error)\b", line):
            path[len(match[1]) // 4 - 1 :] = [match[2]]
            above[match[2]] = path[-2] if len(path) > 1 else ""
    return above


COPIES: dict[str, Callable[[SegmentsError], SegmentsError]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{
        f"pickle {n}": lambda error, n=n: pickle.loads(pickle.dumps(error, n))  # type: ignore[misc]
        for n in range(pickle.HIGHEST_PROTOCOL + 1)
    },
}
every_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
every_copy = pytest.mark.parametrize("copied", COPIES.values(), ids=list(COPIES))


@every_copy
@every_class
def test_a_copy_keeps_class_message_and_facts(
    cls: type[SegmentsError], copied: Callable[[SegmentsError], SegmentsError]
) -> None:
    """A pickled or copied error is of the same class, with its message and every fact."""
    error = copied(made(cls))
    assert type(error) is cls
    assert str(error) == "what happened"
    facts = payload_of(cls)
    kept = {name: getattr(error, name) for name in facts if name != "report"}
    assert kept == {name: value for name, value in facts.items() if name != "report"}


@every_copy
@every_class
def test_a_copy_keeps_what_others_added(
    cls: type[SegmentsError], copied: Callable[[SegmentsError], SegmentsError]
) -> None:
    """A copy keeps notes, and attributes that a caller set."""
    error = made(cls)
    error.add_note("while exporting for the newsletter")
    error.permit = 4711  # type: ignore[attr-defined]
    error = copied(error)
    assert error.__notes__ == ["while exporting for the newsletter"]
    assert error.permit == 4711  # type: ignore[attr-defined]


@every_copy
def test_a_copied_bulk_error_keeps_its_report(
    copied: Callable[[SegmentsError], SegmentsError],
) -> None:
    """A copied BulkExportError has its report, with the outcomes and their errors."""
    error = copied(made(BulkExportError))
    assert isinstance(error, BulkExportError)
    assert (error.report.name, error.report.progress) == (REPORT.name, REPORT.progress)
    assert str(error.report.not_exported[0].error) == "no"


@every_class
def test_every_fact_is_always_there(cls: type[SegmentsError]) -> None:
    """Each attribute that a class's docstring names exists, also if its value is None."""
    documented = re.findall(r"^    (\w+): ", inspect.getdoc(cls) or "", re.MULTILINE)
    error = made(cls)
    assert [name for name in documented if not hasattr(error, name)] == []


@pytest.mark.parametrize("cls", [c for c in CLASSES if issubclass(c, ExportError)])
def test_the_facts_of_an_export_error_may_be_unknown(cls: type[ExportError]) -> None:
    """Without a segment or an export, the facts are there and None."""
    error = cls("what happened")
    assert (error.segment_id, error.export) == (None, None)


@every_class
def test_an_error_shows_its_message_only(cls: type[SegmentsError]) -> None:
    """Neither str nor repr has the facts, such as an excerpt or an export."""
    error = made(cls)
    assert str(error) == "what happened"
    assert repr(error) == f"{cls.__name__}('what happened')"


@every_class
def test_every_class_is_at_the_front_door(cls: type[SegmentsError]) -> None:
    """Every error class can be imported from the package itself."""
    assert getattr(segments_async, cls.__name__) is cls


@every_class
def test_every_class_is_drawn_where_it_is(cls: type[SegmentsError]) -> None:
    """The tree in the module's docstring has every class, below its base class."""
    above = "" if cls is SegmentsError else cls.__bases__[0].__name__
    assert drawn().get(cls.__name__) == above


def test_nothing_is_drawn_that_is_not_there() -> None:
    """The tree in the module's docstring has no class that doesn't exist."""
    assert drawn().keys() == {cls.__name__ for cls in CLASSES}
