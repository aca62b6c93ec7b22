"""OpenTelemetry's spans. Imported only where a provider is in use.

An export takes hours, and its steps run in whichever task is handed the permit. So no span is open
while an export goes on, and none is ever made current: a span could be left open by a cancellation,
or become the parent of another caller's requests. All spans of an export are made when it ends,
with the times that were noted.

The times are those of the event loop's clock, counted back from the wall clock's time of the end: a
wall clock that is set meanwhile makes no span longer or shorter.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import anyio
import attrs
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from segments_async._sansio.jobs.lifecycle import Event, State
from segments_async._telemetry.guard import ask
from segments_async._telemetry.listener import End, Operation, OutcomeKind, shown_id
from segments_async._telemetry.metrics import SCOPE, outcome_attributes, scope_version
from segments_async.errors import (
    ExportError,
    ExportExpiredError,
    ExportFailedError,
    SubmitUnknownError,
)

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

    from segments_async._telemetry.metrics import Metrics

_Attributes = dict[str, str | int | bool]

_SUBMITTED = frozenset({Event.ACCEPTED, Event.REFUSED, Event.LOST, Event.NOT_SENT})
_FETCHED = frozenset({Event.FETCHED, Event.EXPIRED, Event.GAVE_UP})
_ENDED = frozenset({Event.FAILED, Event.LOST, Event.EXPIRED})
_MAY_BE_FIRST = frozenset({Event.ADOPTED, Event.RESUMED, Event.FETCH})
_NOTED = frozenset(Event) - {Event.COMPLETED, Event.UNCHANGED}

#: How an export ended that a run replaced by another one.
_REPLACED: dict[State, type[ExportError]] = {
    State.FAILED: ExportFailedError,
    State.UNKNOWN: SubmitUnknownError,
    State.EXPIRED: ExportExpiredError,
}


@attrs.define
class Times:
    """When the steps of one export began and ended, in seconds of the event loop's clock."""

    began: float
    submit: tuple[float, float] | None = None
    submit_result: Event | None = None
    fetch_began: float | None = None
    fetch: tuple[float, float] | None = None
    ended: float | None = None

    def note(self, event: Event, now: float) -> None:
        """Something happened to the export after its beginning."""
        if event is Event.FETCH:
            self.fetch_began = now
        elif event in _SUBMITTED:
            self.submit, self.submit_result = (self.began, now), event
        elif event in _FETCHED and self.fetch_began is not None:
            self.fetch = (self.fetch_began, now)
        if event in _ENDED:
            self.ended = now


class ExportSpans:
    """Makes the spans of one run or call, and feeds the metrics.

    Args:
        provider: of tracers; None makes no spans.
        metrics: the instruments; None where no meter provider is in use.
        operation: what the caller asked for.
        run: the run's name; None for a call.
    """

    def __init__(
        self, provider: Any, metrics: Metrics | None, operation: Operation, *, run: str | None
    ) -> None:
        self._provider = provider
        self._tracer: Tracer | None = None
        self._metrics = metrics
        self._operation = operation
        self._run = run
        self._times: dict[str | None, Times] = {}
        # A call's spans are children of its caller's. A run's exports may be 100 000: each is a
        # trace of its own, with a link to the span in which the run was entered.
        self._parent: Context | None = None
        self._links: list[Link] = []
        if run is not None:
            self._parent = Context()
        if provider is not None:
            ask(provider, self._open)

    def _open(self) -> None:
        if self._run is not None:
            caller = trace.get_current_span().get_span_context()
            self._links = [Link(caller)] if caller.is_valid else []
        self._tracer = self._provider.get_tracer(SCOPE, scope_version())

    def on_change(
        self,
        segment_id: str | None,
        export_id: str | None,
        event: Event,
        before: State,
        state: State,  # noqa: ARG002 - as its protocol has it
    ) -> None:
        """Note the time."""
        if event is Event.LOST and self._metrics is not None:
            self._metrics.on_unknown_submit()
        if event not in _NOTED:
            return
        key = self._key(segment_id)
        self._note(key, event, anyio.current_time())
        if event is Event.OPTED_IN and key in self._times and before in _REPLACED:
            self._on_replaced(segment_id, export_id, _REPLACED[before])

    def _note(self, key: str | None, event: Event, now: float) -> None:
        if event is Event.INTENT:
            self._times[key] = Times(now)
        elif event in _MAY_BE_FIRST:
            self._times.setdefault(key, Times(now)).note(event, now)
        elif (known := self._times.get(key)) is not None:
            known.note(event, now)

    def _on_replaced(
        self, segment_id: str | None, export_id: str | None, error: type[ExportError]
    ) -> None:
        """The export has ended without a file, and the segment goes on with another one."""
        self.on_end(
            End(
                kind=OutcomeKind.NOT_EXPORTED,
                segment_id=segment_id,
                export_id=export_id,
                error=error("another export was asked for", segment_id=segment_id),
            )
        )

    def on_end(self, end: End) -> None:
        """Make the export's spans."""
        times = self._times.pop(self._key(end.segment_id), None)
        if end.earlier:
            return
        clock = _Clock(anyio.current_time(), time.time())
        if times is not None and times.ended is not None:
            clock = _Clock(times.ended, clock.wall - (clock.now - times.ended))
        seconds, outcome = _seconds(end, times, clock), outcome_attributes(end)
        if self._metrics is not None:
            self._metrics.on_file(end)
            if self._operation in (Operation.EXPORT, Operation.WAIT):
                self._metrics.on_end(outcome, seconds)
        if self._tracer is not None and seconds is not None:
            times = times or Times(clock.now)
            attributes = self._attributes(end, outcome)
            began = clock.at(clock.now - seconds)
            ask(
                self._provider, self._make_spans, self._tracer, end, times, attributes, began, clock
            )

    def on_closed(self) -> None:
        """Nothing more follows."""
        self._times.clear()

    def _key(self, segment_id: str | None) -> str | None:
        # A call may learn the segment's id from a later answer.
        return None if self._run is None else segment_id

    def _make_spans(
        self,
        tracer: Tracer,
        end: End,
        times: Times,
        attributes: _Attributes,
        began: int,
        clock: _Clock,
    ) -> None:
        name = _NAMES.get(self._operation, "segments.export")
        span = tracer.start_span(
            name,
            self._parent,
            SpanKind.INTERNAL,
            attributes,
            self._links,
            began,
        )
        if span.is_recording():
            if name == "segments.export":
                self._make_steps(tracer, span, end, times, clock)
            if end.error is not None:
                span.set_status(Status(StatusCode.ERROR, str(end.error)))
        span.end(clock.at(clock.now))

    def _make_steps(
        self, tracer: Tracer, span: Span, end: End, times: Times, clock: _Clock
    ) -> None:
        inside = trace.set_span_in_context(span, Context())

        def make(name: str, step: tuple[float, float], error: str | None, size: int | None) -> None:
            began, ended = map(clock.at, step)
            # Given at once: to set an attribute later takes the SDK's lock once more.
            attributes = None if size is None else {"segments.file.size": size}
            made = tracer.start_span(name, inside, SpanKind.INTERNAL, attributes, None, began)
            if error is not None:
                made.set_attribute("error.type", error)
                made.set_status(Status(StatusCode.ERROR))
            made.end(ended)

        if times.submit is not None:
            result = times.submit_result or Event.ACCEPTED
            refused = None if result is Event.ACCEPTED else result.value
            make("segments.submit", times.submit, refused, None)
        fetch = times.fetch
        if fetch is None and times.fetch_began is not None:
            fetch = (times.fetch_began, clock.now)  # the fetch was cut off by the export's end
        if fetch is not None:
            error = None if end.error is None else type(end.error).__qualname__
            size = None if end.file is None else end.file.size
            make("segments.fetch", fetch, error, size)

    def _attributes(self, end: End, outcome: dict[str, str]) -> _Attributes:
        attributes: _Attributes = {**outcome}
        if self._run is not None:
            attributes["segments.run"] = self._run
        if end.segment_id is not None:
            attributes["segments.segment.id"] = shown_id(end.segment_id)
        if end.export_id is not None:
            attributes["segments.export.id"] = shown_id(end.export_id)
        if end.file is not None:
            attributes["segments.file.size"] = end.file.size
        if end.kind is OutcomeKind.NOT_EXPORTED:
            attributes["segments.resumable"] = end.resumable
        return attributes


#: The span of a call that is one step of an export.
_NAMES = {Operation.REQUEST: "segments.submit", Operation.DOWNLOAD: "segments.fetch"}


@attrs.frozen
class _Clock:
    """One moment by the event loop's clock and by the wall clock."""

    now: float
    wall: float

    def at(self, moment: float) -> int:
        """The wall clock's time at a moment of the event loop's clock, in nanoseconds."""
        return int((self.wall - (self.now - moment)) * 1e9)


def _seconds(end: End, times: Times | None, clock: _Clock) -> float | None:
    """How long the export took; None where the vendor was not asked for it."""
    if end.submitted_at is not None and (times is None or times.submit is None):
        # An earlier session submitted it, or another caller did.
        return max(0.0, clock.wall - end.submitted_at.timestamp())
    return None if times is None else clock.now - times.began
