"""Facts derived from an export's fields, any of which the vendor's answer may lack."""

from __future__ import annotations

from datetime import datetime

from segments_async.models import Export, ExportStatus, Segment, SegmentType


def is_complete(export: Export) -> bool:
    """Whether the export's file can be fetched.

    A status that the page doesn't know, beside a link, is taken for COMPLETE: the page has a link
    in no other state, and an export that is polled on for a day outlives half of its file's 48
    hours.
    """
    if not export.filename:
        return False
    return export.status not in (ExportStatus.PENDING, ExportStatus.FAILED)


def seconds_taken(export: Export) -> float | None:
    """Seconds that the vendor worked on the export; None where the export's times don't say."""
    if export.start_time is None or export.end_time is None:
        return None
    seconds = (export.end_time - export.start_time).total_seconds()
    return seconds if seconds >= 0 else None


def file_since(export: Export) -> datetime | None:
    """When the file's 48 hours began, at the latest; None where the answer has neither time."""
    return export.end_time or export.start_time


def is_unchanged(now: Segment, then: Segment) -> bool:
    """Whether the segment has not run since.

    "Static segments never change while Dynamic segments may be refreshed", and `lastRun` says when.
    It is compared by inequality: a date that went back is a change, too.

    Args:
        now: as the list has it.
        then: as the COMPLETE export has it, the segment as it was exported.
    """
    if now.last_run is None and now.type != SegmentType.STATIC:
        return False  # the list doesn't say whether the segment was refreshed
    return now.last_run == then.last_run
