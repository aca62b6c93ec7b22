"""The segments and exports of the vendor's API, as frozen values."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Self

import attrs


class SegmentType(StrEnum):
    """Whether a segment is refreshed ("One-time" and "Daily" in the vendor's web application)."""

    STATIC = "Static"
    """Made once, so that its users don't change."""
    DYNAMIC = "Dynamic"
    """Refreshed by the vendor, daily."""


class ExportStatus(StrEnum):
    """Where an export stands at the vendor."""

    PENDING = "PENDING"
    """The vendor works on it."""
    COMPLETE = "COMPLETE"
    """Its file is there, for 48 hours."""
    FAILED = "FAILED"
    """It ended without a file."""


class OutputFormat(StrEnum):
    """The format of the exported file: "currently only CSV is supported"."""

    CSV = "csv"
    """Comma-separated values, with a header."""


@attrs.frozen
class Segment:
    """A saved group of users.

    A field other than the id is None where the vendor's answer lacks it, or has something else in
    its place: only the id is needed to export the segment.

    Attributes:
        segment_id: the vendor's id. Empty in ``Export.segment`` where neither the answer nor the
            caller named the segment.
        name: for people; not unique.
        project_id: the project it belongs to.
        type: a :class:`SegmentType`, or the plain string where the vendor has a new one.
        description: for people; None where there is none.
        category: for people; None where there is none.
        last_run: when it was last refreshed (aware, UTC), or None where it never was.
    """

    segment_id: str
    name: str | None = None
    project_id: str | None = None
    type: SegmentType | str | None = None
    description: str | None = None
    category: str | None = None
    last_run: datetime | None = None

    def to_dict(self) -> dict[str, object]:
        """The segment as JSON values; docs/json.md has the schema."""
        return {
            "segment_id": self.segment_id,
            "name": self.name,
            "type": None if self.type is None else str(self.type),
            "category": self.category,
            "description": self.description,
            "project_id": self.project_id,
            "last_run": iso(self.last_run),
        }


@attrs.frozen
class Export:
    """One export of one segment, as the vendor last described it.

    Attributes:
        export_id: the vendor's id; :meth:`SegmentsClient.wait_for_export` takes it in any process.
        segment: the segment as it was when the export was asked for.
        status: an :class:`ExportStatus`, or the plain string where the vendor has a new one. A new
            one counts as not finished, unless the answer has a link to the file.
        start_time: when the vendor started it (aware, UTC); None where the answer has no such
            time.
        project_id: None where the answer lacks it, as the examples on the vendor's page do.
        end_time: when it completed, None until then.
        filename: the link to the file, None until COMPLETE. Not in the repr: a presigned link
            is a credential.
    """

    export_id: str
    segment: Segment
    status: ExportStatus | str
    start_time: datetime | None = None
    project_id: str | None = None
    end_time: datetime | None = None
    filename: str | None = attrs.field(default=None, repr=False)

    def to_dict(self) -> dict[str, object]:
        """The export as JSON values, without its link; docs/json.md has the schema."""
        return {
            "export_id": self.export_id,
            "segment": self.segment.to_dict(),
            "status": str(self.status),
            "project_id": self.project_id,
            "start_time": iso(self.start_time),
            "end_time": iso(self.end_time),
        }

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled without its link, which `get_export()` brings again: pickles end up in caches."""
        known = attrs.evolve(self, filename=None)
        return type(self), tuple(getattr(known, a.name) for a in attrs.fields(type(self)))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: dict[int, Any]) -> Self:
        return self


def iso(time: datetime | None) -> str | None:
    """A time as ISO 8601; None stays None."""
    return None if time is None else time.isoformat()
