"""The JSON lines of each command."""

from __future__ import annotations

from datetime import UTC, datetime

from segments_async import RunStatus, without_secret
from segments_async.cli.wording import in_words
from segments_async.models import Export
from segments_async.results import Exported, NotExported


def outcome_line(outcome: Exported | NotExported, *, run: str, name: str) -> dict[str, object]:
    """One outcome of `export`, as in the manifest, but for the words of an error's message."""
    line = outcome.to_dict(run=run, at=datetime.now(UTC))
    line["name"] = line["name"] or name
    match line["error"]:
        case {"type": kind, "message": str(message)}:
            line["error"] = {"type": kind, "message": in_words(message)}
        case _:
            pass
    return line


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
