"""The interface of listeners to the changes and ends of exports, and the group of one run.

A bulk run, and each single call, has one `Listeners`. It hears of each export from the one place
that changes the export's state: `RunState.apply` for a run, `CallState.apply` for a call. An export
that two callers follow is heard of twice, since each of them has its own outcome.

Listeners are called in the event loop, between two steps of an export. So they don't wait, and they
may be called in another caller's task (see `_run/recorder.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Protocol

import attrs

from segments_async._sansio.api.redaction import redact
from segments_async._sansio.api.wire import LONGEST_ID, is_id
from segments_async._sansio.jobs.lifecycle import Event, State
from segments_async._telemetry.guard import log
from segments_async.errors import SegmentsError, printable
from segments_async.results import Completed, Exported, ExportedFile, NotExported, Outcome


class Operation(StrEnum):
    """What a caller asked for."""

    EXPORT = "export"  # a run, or `export()`
    WAIT = "wait"  # `wait_for_export()`
    REQUEST = "request"  # `request_export()`
    DOWNLOAD = "download"  # `download_export()`


class OutcomeKind(StrEnum):
    """How an export ended for its caller."""

    EXPORTED = "exported"
    COMPLETED = "completed"  # complete at the vendor, and no file was wanted
    UNCHANGED = "unchanged"
    NOT_EXPORTED = "not_exported"
    CANCELLED = "cancelled"  # its caller was cancelled, or an error of the caller's own ended it
    REQUESTED = "requested"  # `request_export()`: the vendor accepted it, and it goes on there


@attrs.frozen(kw_only=True)
class End:
    """How an export ended for one of its callers.

    Attributes:
        kind: of the outcome.
        segment_id: None where only an export's id was known.
        export_id: the vendor's id; None where there is none.
        error: why there is no file.
        file: where there is one.
        resumable: as in :class:`NotExported`.
        earlier: whether an earlier session of the run had this outcome already.
        submitted_at: when the POST was accepted, by the wall clock, where that is recorded.
    """

    kind: OutcomeKind
    segment_id: str | None
    export_id: str | None
    error: SegmentsError | None = None
    file: ExportedFile | None = None
    resumable: bool = False
    earlier: bool = False
    submitted_at: datetime | None = None

    @classmethod
    def of(cls, outcome: Outcome, submitted_at: datetime | None, *, earlier: bool) -> End:
        """The end of an export, from its outcome in a run."""
        export = outcome.export
        kind, resumable = OutcomeKind.COMPLETED, False
        error: SegmentsError | None = None
        file: ExportedFile | None = None
        match outcome:
            case Exported(file=file, source=source):
                unchanged = source == "unchanged"
                kind = OutcomeKind.UNCHANGED if unchanged else OutcomeKind.EXPORTED
            case NotExported(error=error, resumable=resumable):
                kind = OutcomeKind.NOT_EXPORTED
            case Completed():
                pass
        return cls(
            kind=kind,
            segment_id=outcome.segment_id,
            export_id=None if export is None else export.export_id,
            error=error,
            file=file,
            resumable=resumable,
            earlier=earlier,
            submitted_at=submitted_at,
        )


def shown_id(given: str) -> str:
    """An id for logs and spans. A caller's may be anything, such as a link, or have line ends."""
    return given if is_id(given) else printable(redact(given))[:LONGEST_ID]


class Listener(Protocol):
    """Hears of the changes and ends of the exports of one run, or of single calls."""

    def on_change(
        self,
        segment_id: str | None,
        export_id: str | None,
        event: Event,
        before: State,
        state: State,
    ) -> None:
        """An export's state has changed from `before` to `state`."""
        ...

    def on_end(self, end: End) -> None:
        """An export has ended for its caller."""
        ...

    def on_closed(self) -> None:
        """Nothing more follows."""
        ...


class Listeners:
    """The listeners of one run, or of one call.

    A fault of a listener (of an exporter, of a handler) never ends an export: such a listener is
    told nothing more.

    Args:
        *listeners: None for one that there is not.
    """

    __slots__ = ("_all",)

    def __init__(self, *listeners: Listener | None) -> None:
        self._all = tuple(one for one in listeners if one is not None)

    def on_change(
        self,
        segment_id: str | None,
        export_id: str | None,
        event: Event,
        before: State,
        state: State,
    ) -> None:
        # Not by `_tell`: an export has some four changes, and a function made for each of them
        # costs as much as what the listeners do at most changes.
        for listener in self._all:
            try:
                listener.on_change(segment_id, export_id, event, before, state)
            except Exception as exc:  # noqa: BLE001 - as in `_tell`
                self._drop(listener, exc)

    def on_end(self, end: End) -> None:
        self._tell(lambda listener: listener.on_end(end))

    def on_closed(self) -> None:
        self._tell(lambda listener: listener.on_closed())

    def _tell(self, tell: Callable[[Listener], None]) -> None:
        for listener in self._all:
            try:
                tell(listener)
            except Exception as exc:  # noqa: BLE001 - a caller's provider or handler may raise anything
                self._drop(listener, exc)

    def _drop(self, listener: Listener, exc: Exception) -> None:
        self._all = tuple(one for one in self._all if one is not listener)
        # The class alone: the error's text may be anything.
        log(
            logging.WARNING,
            "%s raised %s, and is not called again; the exports go on",
            type(listener).__name__,
            type(exc).__name__,
        )
