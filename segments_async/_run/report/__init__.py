"""The report of a bulk run, the error that holds one, and the page that a report is written to."""

from __future__ import annotations

from segments_async._run.report.bulk_report import BulkExportError, BulkReport

__all__ = ["BulkExportError", "BulkReport"]
