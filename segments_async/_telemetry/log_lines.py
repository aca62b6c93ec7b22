"""The changes and ends of exports as log lines: a sentence for people, and fields for programs.

docs/observability.md has the fields. Their names begin with `segments_`: a name that a LogRecord
has already would raise. Values are texts, numbers and booleans, which every handler can write; a
field that has nothing to say is absent. No value is an error or an export: those may hold a link.
"""

from __future__ import annotations

import logging
from typing import Any

import anyio

from segments_async._sansio.jobs.lifecycle import Event, State
from segments_async._sansio.jobs.line_limit import LineLimit, Untold
from segments_async._telemetry.guard import log
from segments_async._telemetry.listener import End, OutcomeKind, shown_id
from segments_async.errors import DownloadError, printable

logger: logging.Logger = logging.getLogger("segments_async")

_CHANGES = {
    Event.INTENT: "the request for its export is sent",
    Event.NOT_SENT: "the request for its export was not acted on",
    Event.ACCEPTED: "the vendor accepted export %s",
    Event.REFUSED: "the vendor refused the export",
    Event.LOST: "it is unknown whether the vendor accepted the export",
    Event.ADOPTED: "export %s is under way, and is followed",
    Event.COMPLETED: "export %s is complete at the vendor",
    Event.FAILED: "the vendor says that export %s failed",
    Event.FETCH: "the file of export %s is being fetched",
    Event.FETCHED: "export %s is done",
    Event.EXPIRED: "the file of export %s is gone at the vendor",
    Event.GAVE_UP: "the export is given up",
    Event.UNCHANGED: "unchanged since its last export",
    Event.RESUMED: "the export of an earlier session goes on",
    Event.OPTED_IN: "the vendor is asked for one more export",
}


class LogLines:
    """Writes the lines of one run, or of one client's single calls.

    Args:
        run: the run's name; None for single calls.
    """

    def __init__(self, run: str | None) -> None:
        self._run = run
        self._limit = LineLimit()

    def on_change(
        self,
        segment_id: str | None,
        export_id: str | None,
        event: Event,
        before: State,
        state: State,
    ) -> None:
        """Log the change at DEBUG, after the counts that are due."""
        # Counts must not wait for the next end: single calls may end hours apart.
        if self._limit.has_untold:
            self._log_due()
        if not logger.isEnabledFor(logging.DEBUG):
            return
        text = _CHANGES[event]
        arguments = [_name(segment_id, export_id)]
        if "%s" in text:
            arguments.append(shown_id(export_id or ""))
        fields = self._fields(event.value, segment_id, export_id)
        fields["segments_state"], fields["segments_state_before"] = state.value, before.value
        log(logging.DEBUG, f"%s: {text}.", *arguments, extra=fields)

    def on_end(self, end: End) -> None:
        """Log the end at INFO, within limits; at DEBUG where an earlier session has logged it."""
        if end.kind is OutcomeKind.REQUESTED:
            return
        level = logging.DEBUG if end.earlier else logging.INFO
        if not logger.isEnabledFor(level):
            return
        if end.earlier:
            self._log_end(level, end)
            return
        self._log_due()
        name = end.kind.value if end.error is None else type(end.error).__name__
        kind = _LIMITED_TOGETHER.get(end.kind, "with a file")
        if self._limit.admits(name, kind=kind, now=anyio.current_time()):
            self._log_end(level, end)

    def on_closed(self) -> None:
        """The run has ended: log the counts of the lines that the limits left out."""
        self._log_due(closing=True)

    def _log_due(self, *, closing: bool = False) -> None:
        if not logger.isEnabledFor(logging.INFO):
            return
        if (untold := self._limit.due(anyio.current_time(), closing=closing)) is not None:
            self._log_untold(untold)

    def _log_end(self, level: int, end: End) -> None:
        fields = self._fields(end.kind.value, end.segment_id, end.export_id)
        name = _name(end.segment_id, end.export_id)
        if end.error is not None:
            message = str(end.error)
            fields |= {
                "segments_error": type(end.error).__name__,
                "segments_error_message": message,
                "segments_resumable": end.resumable,
            }
            if isinstance(end.error, DownloadError):
                fields["segments_reason"] = end.error.reason
            line = message if (end.segment_id or "") in message else f"{name}: {message}"
            log(level, "Not exported: %s", line, extra=fields)
        elif end.file is not None:
            file = end.file
            fields |= {"segments_file": file.location, "segments_bytes": file.size}
            text = _WITH_FILE[end.kind]
            log(level, text, name, file.size, printable(file.location), extra=fields)
        else:
            log(level, _WITHOUT_FILE[end.kind], name, extra=fields)

    def _log_untold(self, untold: Untold) -> None:
        counts = ", ".join(f"{count} {name}" for name, count in untold.counts.most_common())
        fields: dict[str, Any] = {"segments_event": "summary", "segments_ended": untold.total}
        if self._run is not None:
            fields["segments_run"] = self._run
        log(
            logging.INFO,
            "%d more exports have ended in %.0f s, without a line for each: %s.",
            untold.total,
            untold.seconds,
            counts,
            extra=fields,
        )

    def _fields(self, event: str, segment_id: str | None, export_id: str | None) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "segments_event": event,
            "segments_run": self._run,
            "segments_segment_id": segment_id and shown_id(segment_id),
            "segments_export_id": export_id and shown_id(export_id),
        }
        return {name: value for name, value in fields.items() if value is not None}


_WITH_FILE = {
    OutcomeKind.EXPORTED: "%s: exported, %d bytes to %s.",
    OutcomeKind.UNCHANGED: "%s: unchanged since its last export, whose %d bytes stay in %s.",
    OutcomeKind.CANCELLED: "%s: its caller was cancelled; %d bytes are in %s.",
}
_WITHOUT_FILE = {
    OutcomeKind.COMPLETED: "%s: its export is complete at the vendor.",
    OutcomeKind.CANCELLED: "%s: its caller was cancelled; the export may go on at the vendor.",
}

#: Ends whose lines have a limit of their own, so that other ends don't use it up.
_LIMITED_TOGETHER = {
    OutcomeKind.NOT_EXPORTED: "without a file",
    OutcomeKind.CANCELLED: "cancelled",
}


def _name(segment_id: str | None, export_id: str | None) -> str:
    return (
        f"Segment {shown_id(segment_id)}" if segment_id else f"Export {shown_id(export_id or '')}"
    )
