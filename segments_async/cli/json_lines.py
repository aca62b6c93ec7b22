"""The JSON lines of each command."""

from __future__ import annotations

from datetime import UTC, datetime

from segments_async import Export, Exported, NotExported, without_secret
from segments_async.cli.wording import in_words
from segments_async.models import iso


def outcome_line(outcome: Exported | NotExported, *, run: str, name: str) -> dict[str, object]:
    """One outcome of `export`, as in the manifest, but for the words of an error's message."""
    line = outcome.to_dict(run=run, at=datetime.now(UTC))
    line["name"] = line["name"] or name
    if isinstance(outcome, NotExported):
        kind = type(outcome.error).__name__
        line["error"] = {"type": kind, "message": in_words(str(outcome.error))}
    return line


def export_line(export: Export) -> dict[str, object]:
    """The answer of `status`, its link without the signature."""
    return {
        "export_id": export.export_id,
        "segment_id": export.segment.segment_id,
        "name": export.segment.name,
        "status": str(export.status),
        "start_time": iso(export.start_time),
        "end_time": iso(export.end_time),
        "filename": unsigned(export.filename),
    }


def unsigned(link: str | None) -> str | None:
    """The link without its signature, which is a credential for the file."""
    return None if link is None else without_secret(link)
