"""The report of a bulk run, and the error that holds one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape
from typing import Any, Generic

import attrs

from segments_async._sansio.jobs.history import RunHistory
from segments_async.errors import SegmentsError, printable
from segments_async.models import iso
from segments_async.results import NotExported, OutcomeT, Progress

#: Rows of the table of a report in a notebook.
_ROWS = 20


@attrs.frozen(repr=False)
class BulkReport(Generic[OutcomeT]):
    """The result of a run.

    Attributes:
        name: the run's.
        exported: outcomes of the segments whose files are in place, in completion order. Of a run
            with ``to=None``: outcomes of the segments whose exports are COMPLETE.
        not_exported: outcomes of the other segments, each with its error, in completion order.
        started_at: when this session of the run began; aware, UTC.
        ended_at: when this session ended; aware, UTC.
        progress: of the run, as it was at the end.
    """

    name: str
    exported: Sequence[OutcomeT]
    not_exported: Sequence[NotExported]
    started_at: datetime
    ended_at: datetime
    progress: Progress
    _history: RunHistory | None = attrs.field(default=None, eq=False, alias="history")

    @property
    def ok(self) -> bool:
        """Whether every segment was exported; of an empty run, too."""
        return not self.not_exported

    def to_dict(self) -> dict[str, object]:
        """The report as JSON values, one object per segment; docs/json.md has the schema."""
        return {
            "run": self.name,
            "ok": self.ok,
            "started_at": iso(self.started_at),
            "ended_at": iso(self.ended_at),
            "progress": self.progress.to_dict(),
            "exported": [outcome.to_dict(run=self.name) for outcome in self.exported],
            "not_exported": [outcome.to_dict(run=self.name) for outcome in self.not_exported],
        }

    def to_html(self) -> str:
        """The run as one page for a browser: totals, timeline, pace, reasons, and each export.

        The page requests nothing from anywhere, and holds no link and no credential. The page
        of a report that your own code has made has no times.
        """
        # Not at the top: few programs make a page, and its modules take time to import.
        from segments_async._run.report.page import page_html
        from segments_async._run.report.views import view_of_report

        return page_html(view_of_report(self, self._history))

    def __repr__(self) -> str:
        return (
            f"<BulkReport {self.name:.80}: {len(self.exported)} of {self.progress.total} segments "
            f"exported, {self.progress.bytes} bytes>"
        )

    def _repr_html_(self) -> str:
        """For notebooks: the totals, and the first segments that were not exported."""
        rows = "".join(
            f"<tr><td>{escape(outcome.name or outcome.segment_id)}</td>"
            f"<td>{escape(printable(str(outcome.error)))}</td></tr>"
            for outcome in self.not_exported[:_ROWS]
        )
        more = len(self.not_exported) - _ROWS
        rest = f"<p>and {more} more</p>" if more > 0 else ""
        table = f"<table><tr><th>Not exported</th><th>Reason</th></tr>{rows}</table>{rest}"
        return f"<p>{escape(repr(self)[1:-1])}</p>{table if rows else ''}"

    def raise_for_errors(self) -> None:
        """Raise BulkExportError if a segment was not exported."""
        if self.not_exported:
            first = self.not_exported[0]
            raise BulkExportError(
                f"{len(self.not_exported)} of {self.progress.total} segments were not exported; "
                f"the first: {first.error}",
                report=self,
            )


class BulkExportError(SegmentsError):
    """Not every segment of a bulk export was exported.

    Raised by :meth:`BulkReport.raise_for_errors` alone. Each entry of ``report.not_exported`` has
    the error of its segment, and says whether going on later costs no second export.

    Attributes:
        report: the outcomes of all segments.
    """

    report: BulkReport[Any]

    def __init__(self, message: str, *, report: BulkReport[Any]) -> None:
        super().__init__(message, report=report)
