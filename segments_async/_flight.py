"""One export at the vendor, shared by everyone on this client who waits for it.

*Single flight*: callers of `export()` and bulk runs that want the same segment share the vendor's
export, and nothing else: each keeps its destination, its timeout and its cancellation. No task
belongs to a flight. Its requests go to whichever of its parties the gate hands the ticket to.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import random
from collections.abc import Generator
from typing import Literal, Protocol

import anyio
import anyio.lowlevel

from segments_async._gate import Gate, Inbox, Target, Ticket
from segments_async._sansio.lifecycle import Event, State, advance
from segments_async._sansio.retry import full_jitter, may_have_acted
from segments_async._sansio.schedule import Kind, Want, next_poll_at
from segments_async._sansio.wire import (
    ApiAnswer,
    ApiRequest,
    checked_id,
    poll_request,
    read_export,
    status_error,
    submit_request,
)
from segments_async.errors import (
    APIConnectionError,
    APIStatusError,
    AuthenticationError,
    DecodeError,
    ExportFailedError,
    PermissionDeniedError,
    SegmentsError,
    SubmitUnknownError,
)
from segments_async.models import Export, ExportStatus, OutputFormat

logger: logging.Logger = logging.getLogger("segments_async")

#: Seconds that a POST on the wire goes on after its caller was cancelled, so that its id is kept.
POST_GRACE = 1.0

#: Seconds during which a 404 to a poll may mean that the vendor's left hand doesn't know yet, and
#: a COMPLETE without a link that the upload isn't listed yet.
MISSING_GRACE = 10.0
LINK_GRACE = 60.0

#: Seconds for which an export that everybody stopped waiting for is still joined by the next
#: caller, rather than run twice. Longer, and a service's next night would get last night's users.
ABANDONED_JOIN = 3600.0

Submitted = Literal["no", "yes", "maybe"]


class Party(Protocol):
    """Somebody who waits for a flight: a single caller, or a run."""

    @property
    def inbox(self) -> Inbox: ...
    async def record(self, flight: Flight, event: Event) -> None:
        """Keep the event, durably where that is promised, before anything follows from it."""
        ...

    async def unfinished(self, flight: Flight, now: float, *, answered: bool) -> None:
        """A poll came back, and the export goes on."""
        ...

    async def ended(self, flight: Flight) -> None:
        """Nothing more will be asked of the vendor. Never raises: the task may be another's."""
        ...


class Flight:
    """One export at the vendor, from the first wish for it to its end there."""

    __slots__ = (
        "abandoned_at",
        "error",
        "export",
        "export_id",
        "missing_since",
        "output_format",
        "parties",
        "resumable",
        "segment_id",
        "setbacks",
        "state",
        "submitted",
        "submitted_at",
        "want",
    )

    def __init__(self, segment_id: str | None, output_format: OutputFormat) -> None:
        #: None until an answer tells, where only an export id was given.
        self.segment_id: str | None = segment_id
        self.output_format: OutputFormat = output_format
        self.state: State = State.NEW
        self.export_id: str | None = None
        self.export: Export | None = None
        self.error: SegmentsError | None = None
        #: Whether going on later costs no second export; meant for flights that ended in an error.
        self.resumable: bool = False
        self.submitted: Submitted = "no"
        self.submitted_at: float = math.nan
        self.parties: dict[Party, None] = {}
        self.abandoned_at: float | None = None
        #: Polls in a row that brought no status.
        self.setbacks: int = 0
        self.missing_since: float | None = None
        self.want: Want[Target] = Want(Kind.SUBMIT, self)

    @property
    def ended(self) -> bool:
        """Nothing more will be asked of the vendor."""
        return self.state not in (State.NEW, State.INTENT, State.SUBMITTED)

    def deliver(self, ticket: Ticket, /) -> None:
        """The gate grants this flight's request: any of its parties may send it."""
        next(iter(self.parties)).inbox.deliver(ticket)

    def fresh_error(self) -> SegmentsError:
        """The error, anew for each caller: a shared one would collect all their tracebacks."""
        if self.error is None:
            raise AssertionError("a flight without an error was asked for it")
        error = copy.copy(self.error)
        error.__cause__ = self.error.__cause__
        return error


class Flights:
    """The flights of one client, and how their requests are sent."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._by_segment: dict[str, Flight] = {}
        self._by_export: dict[str, Flight] = {}
        self._abandoned: dict[Flight, None] = {}
        self._unknown_statuses: set[str] = set()
        #: Seconds that the last export of each segment took: a guess at the next one's.
        self._durations: dict[str, float] = {}

    def join_segment(
        self,
        party: Party,
        segment_id: str,
        *,
        expected_seconds: float = 0.0,
        output_format: OutputFormat = OutputFormat.CSV,
    ) -> Flight:
        """Join the segment's flight, or start one."""
        self._sweep()
        flight = self._by_segment.get(segment_id)
        if flight is None or flight.ended:
            flight = self._by_segment[segment_id] = Flight(segment_id, output_format)
            flight.want.key = -(expected_seconds or self._durations.get(segment_id, 0.0))
        self._board(party, flight)
        return flight

    def join_export(
        self, party: Party, export_id: str, export: Export | None, *, age: float = 0.0
    ) -> Flight:
        """Join the flight of an export that was asked for before, here or elsewhere.

        `age`: seconds since its POST was accepted, as far as is known.
        """
        flight = self._by_export.get(checked_id("an export", export_id))
        if flight is None or flight.ended:
            flight = self._adopted(export_id, export)
        if export is not None:
            self._learn(flight, export)
        flight.submitted_at = min(flight.submitted_at, anyio.current_time() - age)
        self._board(party, flight)
        return flight

    def share(self, flight: Flight) -> None:
        """Have the next `export()` of its segment join it, unless another one is under way."""
        known = self._by_segment.get(flight.segment_id or "")
        if flight.segment_id is not None and (known is None or known.ended):
            self._by_segment[flight.segment_id] = flight

    def leave(self, party: Party, flight: Flight) -> None:
        """No more waiting for it. Without parties, nothing more is sent for it."""
        flight.parties.pop(party, None)
        if flight.parties or flight.ended:
            return
        self._gate.discard(flight.want)
        if flight.state is State.SUBMITTED:
            flight.abandoned_at = anyio.current_time()
            self._abandoned[flight] = None
            self._gate.pending_ended()
            self._sweep()
        else:
            self._forget(flight)

    @contextlib.contextmanager
    def waiting(self, inbox: Inbox, party: Party, flight: Flight) -> Generator[None]:
        """Leave the flight at the end, and give back its tickets that nobody spent."""
        try:
            yield
        finally:
            self.leave(party, flight)
            self.hand_back(inbox)

    def hand_back(self, inbox: Inbox) -> None:
        """Give unspent tickets back; flights that others wait for want their request again."""
        items = list(inbox.items)
        inbox.items.clear()
        for ticket in items:
            if isinstance(ticket, Ticket):
                flight = ticket.want.target
                if isinstance(flight, Flight):
                    self._requeue(flight, ticket.want.key)
                self._gate.hand_back(ticket)

    async def perform(self, ticket: Ticket) -> None:
        """Send the request that was granted, and draw the conclusions."""
        flight = ticket.want.target
        if not isinstance(flight, Flight):
            raise AssertionError("a ticket for something else")
        if not flight.parties:
            # Left by everybody between the grant and now: nothing more is sent for it.
            self._requeue(flight, ticket.want.key)
            self._gate.hand_back(ticket)
        elif flight.state is State.NEW:
            await self._submit(flight, ticket)
        else:
            await self._poll(flight, ticket)

    # ----------------------------------------------------------------- coming and going

    def _adopted(self, export_id: str, export: Export | None) -> Flight:
        segment_id = None if export is None else export.segment.segment_id
        flight = Flight(segment_id, OutputFormat.CSV)
        flight.state = advance(flight.state, Event.ADOPTED)
        flight.submitted = "yes"
        flight.submitted_at = flight.want.key = anyio.current_time()
        flight.want.kind = Kind.POLL
        flight.export_id = export_id
        flight.export = export
        flight.abandoned_at = flight.submitted_at
        self._by_export[export_id] = flight
        return flight

    def remember(self, export: Export) -> None:
        """An export that a single call has just asked for: the next `export()` may join it.

        One that is only waited for by its id isn't joined: it may be yesterday's.
        """
        if export.status in (ExportStatus.COMPLETE, ExportStatus.FAILED):
            return
        flight = self._adopted(export.export_id, export)
        self._abandoned[flight] = None
        self._by_segment.setdefault(export.segment.segment_id, flight)

    def _board(self, party: Party, flight: Flight) -> None:
        first = not flight.parties
        flight.parties[party] = None
        if not first:
            return
        if flight.abandoned_at is not None:
            flight.abandoned_at = None
            self._abandoned.pop(flight, None)
            self._gate.pending_began()
        self._gate.add(flight.want)

    def _sweep(self) -> None:
        """Forget the flights that were abandoned too long ago to be joined."""
        before = anyio.current_time() - ABANDONED_JOIN
        while flight := next(iter(self._abandoned), None):  # the one that was left first
            if flight.abandoned_at is not None and flight.abandoned_at > before:
                return
            del self._abandoned[flight]
            self._forget(flight)

    def _forget(self, flight: Flight) -> None:
        if flight.segment_id and self._by_segment.get(flight.segment_id) is flight:
            del self._by_segment[flight.segment_id]
        if flight.export_id and self._by_export.get(flight.export_id) is flight:
            del self._by_export[flight.export_id]

    def _requeue(self, flight: Flight, key: float) -> None:
        """Want the flight's next request, at its place among the others (see `Want.key`)."""
        if flight.state is State.NEW and flight.want.kind is Kind.SUBMIT:
            self._gate.submit_undone()
        flight.want.key = key
        if flight.parties:
            self._gate.add(flight.want)

    async def _advance(self, flight: Flight, event: Event) -> None:
        flight.state = advance(flight.state, event)
        for party in tuple(flight.parties):
            if party in flight.parties:  # it may have left while another one recorded
                await party.record(flight, event)

    async def _end(
        self,
        flight: Flight,
        event: Event,
        error: SegmentsError | None,
        *,
        resumable: bool = False,
    ) -> None:
        flight.error = error
        flight.resumable = resumable
        if flight.state is not State.SUBMITTED or flight.parties:
            self._gate.pending_ended()
        self._forget(flight)
        await self._advance(flight, event)
        for party in tuple(flight.parties):
            if party in flight.parties:
                await party.ended(flight)

    # ----------------------------------------------------------------- submitting

    async def _submit(self, flight: Flight, ticket: Ticket) -> None:
        if flight.segment_id is None:
            raise AssertionError("a submit without a segment")
        request = submit_request(flight.segment_id, flight.output_format)
        try:
            await self._advance(flight, Event.INTENT)
            # From here on it is shielded: who was cancelled already sends no POST.
            await anyio.lowlevel.checkpoint_if_cancelled()
        except BaseException:
            await self._unsent(flight, ticket)
            raise
        if not flight.parties:
            await self._unsent(flight, ticket)
            return
        flight.submitted = "maybe"
        try:
            answer = await self._gate.send(ticket, request)
        except APIConnectionError as exc:
            await self._on_submit_broken(flight, exc)
        except DecodeError as exc:
            await self._on_submit_lost(flight, exc)
        except BaseException:
            # Cancelled, or a fault of a caller's HTTP client: others wait for this flight's end.
            with anyio.CancelScope(shield=True):
                if ticket.may_have_left:
                    await self._on_submit_lost(flight, None)
                else:
                    await self._not_sent(flight)
                    self._requeue(flight, flight.want.key)
            raise
        else:
            await self._on_submit_answer(flight, request, answer)
            if answer.raised is not None:
                raise answer.raised

    async def _on_submit_broken(self, flight: Flight, exc: APIConnectionError) -> None:
        if exc.sent:
            await self._on_submit_lost(flight, exc)
            return
        await self._not_sent(flight)
        if self._gate.outage.hopeless(anyio.current_time()):
            await self._end(flight, Event.GAVE_UP, exc, resumable=True)
        else:
            self._requeue(flight, flight.want.key)

    async def _on_submit_answer(
        self, flight: Flight, request: ApiRequest, answer: ApiAnswer
    ) -> None:
        if answer.status == 429:
            await self._not_sent(flight)
            self._requeue(flight, flight.want.key)
            return
        try:
            export = read_export(request, answer, segment_id=flight.segment_id)
        except DecodeError as exc:
            await self._on_submit_lost(flight, exc)
        except APIStatusError as exc:
            if not may_have_acted(exc.status_code):
                flight.submitted = "no"
                await self._end(flight, Event.REFUSED, exc)
            elif exc.status_code == 500:
                # Whether it acted can't be known; but the vendor has answered, and said so.
                await self._end(flight, Event.LOST, exc)
            else:
                await self._on_submit_lost(flight, exc)
        else:
            await self._on_submitted(flight, export, answer.at)

    async def _unsent(self, flight: Flight, ticket: Ticket) -> None:
        """Something came between INTENT and the first byte."""
        try:
            with anyio.CancelScope(shield=True):
                await self._not_sent(flight)
        finally:
            self._requeue(flight, flight.want.key)
            self._gate.hand_back(ticket)

    async def _not_sent(self, flight: Flight) -> None:
        flight.submitted = "no"
        await self._advance(flight, Event.NOT_SENT)

    async def _on_submitted(self, flight: Flight, export: Export, now: float) -> None:
        flight.export = export
        flight.export_id = export.export_id
        flight.submitted = "yes"
        flight.submitted_at = now
        self._by_export[export.export_id] = flight
        await self._advance(flight, Event.ACCEPTED)
        flight.want.kind = Kind.POLL
        if not await self._on_status(flight, export, now):
            await self._poll_again(flight, now)

    async def _on_submit_lost(self, flight: Flight, cause: SegmentsError | None) -> None:
        flight.submitted = "maybe"
        error = SubmitUnknownError(
            f"segment {flight.segment_id}: the answer to the export request was lost; the export "
            "may be running at the vendor, so the request was not repeated",
            segment_id=flight.segment_id,
        )
        error.__cause__ = cause
        logger.warning("%s", error)
        await self._end(flight, Event.LOST, error)

    # ----------------------------------------------------------------- polling

    async def _poll(self, flight: Flight, ticket: Ticket) -> None:
        export_id = flight.export_id
        if export_id is None:
            raise AssertionError("a poll without an export")
        request = poll_request(export_id)
        try:
            answer = await self._gate.send(ticket, request)
        except (APIConnectionError, DecodeError):
            await self._poll_after_setback(flight)
            return
        except BaseException:
            # Cancelled, or a fault of a caller's HTTP client. This poll has gone out: whoever else
            # waits asks no sooner than after another.
            self._requeue(flight, next_poll_at(anyio.current_time(), flight.submitted_at))
            raise
        if answer.status == 429:
            # No setback of the export's: the pacer holds everybody, and this poll is still due.
            self._requeue(flight, flight.want.key)
            await self._tell_unfinished(flight, answer.at, answered=False)
            return
        await self._on_poll_answer(flight, request, answer, export_id)

    async def _on_poll_answer(
        self, flight: Flight, request: ApiRequest, answer: ApiAnswer, export_id: str
    ) -> None:
        if answer.status in (401, 403):
            await self._end(flight, Event.GAVE_UP, status_error(request, answer), resumable=True)
            return
        if answer.status == 404 and self._missing_too_long(flight, MISSING_GRACE, answer.at):
            await self._end(flight, Event.GAVE_UP, status_error(request, answer))
            return
        try:
            export = read_export(request, answer, export_id=export_id, segment_id=flight.segment_id)
        except (APIStatusError, DecodeError) as exc:
            # "A failing poll never ends the wait": ask again later.
            logger.info("%s; asking again later", exc)
            asked = exc.retry_after if isinstance(exc, APIStatusError) else None
            await self._poll_after_setback(flight, asked or 0.0)
            return
        flight.setbacks = 0
        self._learn(flight, export)
        if not await self._on_status(flight, export, answer.at):
            await self._poll_again(flight, answer.at)

    async def _on_status(self, flight: Flight, export: Export, now: float) -> bool:
        """Whether the status ends the flight."""
        flight.export = export
        if export.status == ExportStatus.FAILED:
            error = ExportFailedError(
                f"segment {flight.segment_id}: the vendor says that export {export.export_id} "
                "failed",
                segment_id=flight.segment_id,
                export=export,
            )
            await self._end(flight, Event.FAILED, error)
            return True
        if export.status != ExportStatus.COMPLETE:
            self._warn_of_unknown(export.status)
            flight.missing_since = None
            return False
        if export.filename:
            if export.end_time is not None:
                took = (export.end_time - export.start_time).total_seconds()
                self._durations[export.segment.segment_id] = took
            await self._end(flight, Event.COMPLETED, None)
            return True
        if not self._missing_too_long(flight, LINK_GRACE, now):
            return False
        path = poll_request(export.export_id)
        missing = DecodeError(
            f"{path.method} {path.path}: COMPLETE without a link at $.filename",
            method=path.method,
            path=path.path,
            where="$.filename",
        )
        await self._end(flight, Event.GAVE_UP, missing)
        return True

    async def _poll_again(self, flight: Flight, now: float, pause: float = 0.0) -> None:
        self._requeue(flight, max(now + pause, next_poll_at(now, flight.submitted_at)))
        await self._tell_unfinished(flight, now, answered=True)

    async def _tell_unfinished(self, flight: Flight, now: float, *, answered: bool) -> None:
        for party in tuple(flight.parties):
            if party in flight.parties:
                await party.unfinished(flight, now, answered=answered)

    async def _poll_after_setback(self, flight: Flight, asked: float = 0.0) -> None:
        pause = max(asked, full_jitter(flight.setbacks, random.random()))
        flight.setbacks += 1
        await self._poll_again(flight, anyio.current_time(), pause)

    def _missing_too_long(self, flight: Flight, grace: float, now: float) -> bool:
        if flight.missing_since is None:
            flight.missing_since = now
        return now - flight.missing_since > grace

    def _learn(self, flight: Flight, export: Export) -> None:
        """Of an export known by its id alone, the first answer tells the segment."""
        if flight.segment_id is None:
            flight.segment_id = export.segment.segment_id

    def _warn_of_unknown(self, status: str) -> None:
        if status == ExportStatus.PENDING or status in self._unknown_statuses:
            return
        self._unknown_statuses.add(status)
        logger.warning("unknown export status %r: taken as not finished", status)


def fatal(error: SegmentsError | None) -> bool:
    """Whether the error is about the account, and so about every export of it."""
    return isinstance(error, AuthenticationError | PermissionDeniedError)
