"""Whether a segment is as it was when it was exported last, and so needn't be exported again."""

from __future__ import annotations

from segments_async.models import Segment, SegmentType


def is_unchanged(now: Segment, then: Segment) -> bool:
    """Whether the segment has not run since.

    "Static segments never change while Dynamic segments may be refreshed", and `lastRun` says when.
    It is compared by inequality: a date that went back is a change, too.

    Args:
        now: as the list has it.
        then: as the COMPLETE export has it, the segment as it was exported.
    """
    if now.last_run is None and now.type != SegmentType.STATIC:
        return False  # nobody said that it wasn't refreshed
    return now.last_run == then.last_run
