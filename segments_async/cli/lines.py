"""JSON lines on stdout, for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import datetime

import anyio.to_thread

from segments_async._sansio.links import without_secret
from segments_async.cli.standing import Standing
from segments_async.models import Export, Segment
from segments_async.results import ExportedFile


def write(line: Mapping[str, object]) -> None:
    """Write one line and hand it over at once: the reader may be waiting for it."""
    # ASCII only, so that it is whole under any locale and harmless on a terminal.
    sys.stdout.write(json.dumps(line, allow_nan=False) + "\n")
    sys.stdout.flush()


async def send(line: Mapping[str, object]) -> None:
    """As `write`, off the event loop: a reader that is slow must not hold up the exports."""
    await anyio.to_thread.run_sync(write, line, abandon_on_cancel=True)


def segment_line(segment: Segment) -> dict[str, object]:
    """One segment of `list`."""
    return {
        "segment_id": segment.segment_id,
        "name": segment.name,
        "type": None if segment.type is None else str(segment.type),
        "category": segment.category,
        "description": segment.description,
        "project_id": segment.project_id,
        "last_run": _stamp(segment.last_run),
    }


def export_line(export: Export) -> dict[str, object]:
    """The answer of `status`, its link without the signature."""
    return {
        "export_id": export.export_id,
        "segment_id": export.segment.segment_id,
        "name": export.segment.name,
        "status": str(export.status),
        "start_time": _stamp(export.start_time),
        "end_time": _stamp(export.end_time),
        "filename": unsigned(export.filename),
    }


def file_line(file: ExportedFile) -> dict[str, object]:
    """What `download` fetched."""
    return {
        "export_id": file.export.export_id,
        "segment_id": file.export.segment.segment_id,
        "name": file.export.segment.name,
        "file": file.location,
        "size": file.size,
        "sha256": file.sha256,
        "verified": file.verified,
    }


def run_line(run: Standing) -> dict[str, object]:
    """One run of `runs`."""
    return {
        "run": run.name,
        "destination": run.destination,
        "started_at": _stamp(run.started_at),
        "ended_at": _stamp(run.ended_at),
        "segments": run.segments,
        "exported": run.exported,
        "unchanged": run.unchanged,
        "not_exported": run.not_exported,
        "unfinished": run.unfinished,
    }


def unsigned(link: str | None) -> str | None:
    """The link without what opens it: whoever has that has the file."""
    return None if link is None else without_secret(link)


def _stamp(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
