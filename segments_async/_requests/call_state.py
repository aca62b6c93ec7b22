"""The state of the export of one single call, and the listeners that hear of each change.

`CallState` does for a call what `RunState` does for a run: it advances the export's state by each
event.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable

from segments_async._requests.shared_export import SharedExport
from segments_async._sansio.jobs.lifecycle import Event, State, advance
from segments_async._sansio.jobs.run_state import PLACES
from segments_async._telemetry.listener import End, Listener, Listeners, Operation, OutcomeKind
from segments_async._telemetry.log_lines import LogLines
from segments_async._telemetry.otel import current_metrics, open_telemetry
from segments_async.errors import SegmentsError
from segments_async.models import Export
from segments_async.results import ExportedFile

_DONE = {
    Operation.EXPORT: OutcomeKind.EXPORTED,
    Operation.WAIT: OutcomeKind.COMPLETED,
    Operation.REQUEST: OutcomeKind.REQUESTED,
    Operation.DOWNLOAD: OutcomeKind.EXPORTED,
}


class CallState:
    """The state of one call's export.

    Args:
        lines: the listener that logs the changes and ends of the client's calls.
        of: the ids of the segment and of the export; None for an id that the caller doesn't know.

    Attributes:
        oldest_file: always None (see `metrics.Live`): a call fetches its file at once, so its file
            never waits.
    """

    oldest_file: float | None = None

    def __init__(self, operation: Operation, lines: Listener, of: _Ids) -> None:
        self._operation = operation
        self._segment_id, self._export_id = of
        self._state = State.COMPLETE if operation is Operation.DOWNLOAD else State.NEW
        self._file: ExportedFile | None = None
        self._metrics = current_metrics()
        spans = open_telemetry(operation, self._metrics)
        self._listeners = Listeners(lines, spans)

    def places(self) -> Iterable[tuple[str, int]]:
        """Where the export is; see `metrics.Live`."""
        place = PLACES.get(self._state)
        return () if place is None else ((place, 1),)

    def on_joined(self, shared: SharedExport) -> None:
        """The call has joined an export: catch up with it, since it may be under way already."""
        if shared.posting:
            self.apply(shared, Event.INTENT)
        elif shared.running:
            self.apply(shared, Event.ADOPTED)

    def apply(self, shared: SharedExport, event: Event) -> None:
        """Advance the state by an event of the export that the call follows."""
        self._segment_id = shared.segment_id or self._segment_id
        self._export_id = shared.export_id or self._export_id
        self._advance(event)

    def on_fetch(self, export: Export) -> None:
        """The file is fetched from now on."""
        self._segment_id = export.segment.segment_id or self._segment_id
        self._export_id = export.export_id
        self._advance(Event.FETCH)

    def on_fetched(self, file: ExportedFile) -> ExportedFile:
        """The file is in its place."""
        self._file = file
        self._advance(Event.FETCHED)
        return file

    @contextlib.contextmanager
    def until_the_end(self) -> Generator[CallState]:
        """Tell the listeners how the call ended: with a result, an error or a cancellation."""
        if self._metrics is not None:
            self._metrics.begin(self)
        try:
            yield self
        except SegmentsError as exc:
            self._end(OutcomeKind.NOT_EXPORTED, exc)
            raise
        except BaseException:
            self._end(OutcomeKind.CANCELLED)
            raise
        else:
            self._end(_DONE[self._operation])
        finally:
            if self._metrics is not None:
                self._metrics.end(self)

    def _advance(self, event: Event) -> None:
        before, self._state = self._state, advance(self._state, event)
        self._listeners.on_change(self._segment_id, self._export_id, event, before, self._state)

    def _end(self, kind: OutcomeKind, error: SegmentsError | None = None) -> None:
        self._listeners.on_end(
            End(
                kind=kind,
                segment_id=self._segment_id,
                export_id=self._export_id,
                error=error,
                file=self._file,
            )
        )


class CallTelemetry:
    """Makes the state of each single call of one client, and has the listener that logs them."""

    def __init__(self) -> None:
        # One listener limits the lines of all calls: a service may make 100 000 calls.
        self._lines = LogLines(None)

    def call(self, operation: Operation, of: _Ids) -> contextlib.AbstractContextManager[CallState]:
        """The state of one call's export. Its listeners hear of the call's end, too."""
        return CallState(operation, self._lines, of).until_the_end()

    def close(self) -> None:
        """The client is closed: no call follows."""
        self._lines.on_closed()


#: The ids of a segment and of an export; None for an id that the caller doesn't know.
_Ids = tuple[str | None, str | None]


def ids_of(export: Export | str) -> _Ids:
    """The ids of the segment and the export, as far as an export, or its id alone, has them."""
    if isinstance(export, Export):
        return export.segment.segment_id or None, export.export_id
    return None, export
