"""The JSON lines of each command."""

from __future__ import annotations

from datetime import datetime

from segments_async import RunStatus, without_secret
from segments_async.cli.wording import in_words
from segments_async.models import Export, Segment
from segments_async.results import Exported, ExportedFile, NotExported
from segments_async.results import outcome_line as line_of


def outcome_line(outcome: Exported | NotExported, *, run: str, name: str) -> dict[str, object]:
    """One outcome of `export`, as in the manifest, but for the words of an error's message."""
    line = line_of(outcome, run=run, name=name)
    if isinstance(outcome, NotExported):
        error = outcome.error
        line["error"] = {"type": type(error).__name__, "message": in_words(str(error))}
    return line


def segment_line(segment: Segment) -> dict[str, object]:
    """One segment of `list`."""
    return {
        "segment_id": segment.segment_id,
        "name": segment.name,
        "type": None if segment.type is None else str(segment.type),
        "category": segment.category,
        "description": segment.description,
        "project_id": segment.project_id,
        "last_run": _iso(segment.last_run),
    }


def export_line(export: Export) -> dict[str, object]:
    """The answer of `status`, its link without the signature."""
    return {
        "export_id": export.export_id,
        "segment_id": export.segment.segment_id,
        "name": export.segment.name,
        "status": str(export.status),
        "start_time": _iso(export.start_time),
        "end_time": _iso(export.end_time),
        "filename": unsigned(export.filename),
    }


def file_line(file: ExportedFile) -> dict[str, object]:
    """The file that `download` fetched."""
    return {
        "export_id": file.export.export_id,
        "segment_id": file.export.segment.segment_id,
        "name": file.export.segment.name,
        "file": file.location,
        "size": file.size,
        "sha256": file.sha256,
        "verified": file.verified,
    }


def run_line(run: RunStatus) -> dict[str, object]:
    """One run of `runs`."""
    return {
        "run": run.name,
        "destination": run.destination,
        "started_at": _iso(run.started_at),
        "ended_at": _iso(run.ended_at),
        "segments": run.segments,
        "exported": run.exported,
        "unchanged": run.unchanged,
        "not_exported": run.not_exported,
        "unfinished": run.unfinished,
    }


def unsigned(link: str | None) -> str | None:
    """The link without its signature, which is a credential for the file."""
    return None if link is None else without_secret(link)


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()
