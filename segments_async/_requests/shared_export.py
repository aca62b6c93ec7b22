"""One export at the vendor, from its first caller to its end there, and its followers.

*Single flight*: callers of `export()` and bulk runs that want the same segment share the vendor's
export, and nothing else: each caller keeps its destination, its timeout and its cancellation. No
task belongs to a shared export. Its requests are sent by whichever of its followers the gate hands
the permit to.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Protocol

import attrs

from segments_async._requests.permits import Mailbox, Permit, Target
from segments_async._sansio.jobs.lifecycle import Event
from segments_async._sansio.jobs.payload import Submitted
from segments_async._sansio.jobs.verdict import Missing, PollJob
from segments_async._sansio.pace.absence import Absence
from segments_async._sansio.pace.refusals import Refusals
from segments_async._sansio.pace.scheduler import Kind, QueuedRequest
from segments_async.errors import SegmentsError
from segments_async.models import Export, OutputFormat

_NO_REFUSALS = Refusals()


class Follower(Protocol):
    """A single caller, or a run, that waits for a shared export."""

    @property
    def mailbox(self) -> Mailbox:
        """Where the gate puts the export's permits, if this follower is to send the request."""
        ...

    async def record(self, shared: SharedExport, event: Event) -> None:
        """Record the event, durably where that is promised, before anything follows from it."""
        ...

    async def unfinished(self, shared: SharedExport, now: float, *, answered: bool) -> None:
        """A poll ended, and the export is unfinished. `answered`: the poll brought a status."""
        ...

    async def ended(self, shared: SharedExport) -> None:
        """The export has ended at the vendor. Never raises: the task may be another caller's."""
        ...


@attrs.define(eq=False, repr=False, weakref_slot=False)
class SharedExport:
    """One export at the vendor.

    Attributes:
        segment_id: None until an answer names the segment, where only an export's id was given.
        export_id: the vendor's id; None before the POST is accepted.
        export: as last seen; None before an answer describes it.
        posting: whether its POST is about to be sent, or is on the wire.
        ended: whether nothing more is asked of the vendor for it.
        error: why it ended without a link; None while it goes on, and where it is COMPLETE.
        resumable: of one that ended in an error, whether going on costs no second export.
        submitted: whether the vendor was asked for it.
        submitted_at: when its POST was accepted, in seconds of the event loop's clock; NaN before.
        polled_at: when a poll last brought its status; NaN before.
        followers: those that wait for it, the first one first.
        abandoned_at: since when it runs without a follower; None while it has one, or doesn't run.
        setbacks: polls in a row that brought no status.
        setback: why the last of these polls brought none.
        alone: whether `request_export` asked for it: it joins no other export, and is joined by no
            caller before its POST is accepted.
        tries: submits that came to nothing.
        refusals: the submits that were answered "not now".
        absent_at: when its POST was first answered 404 or 410, in seconds of the event loop's
            clock; inf before.
        listed: whether a list in the place of its POST was answered by the API itself.
        missing: answers that lack what must come soon; see `verdict`.
        queued: its next request in the scheduler.
    """

    segment_id: str | None
    output_format: OutputFormat = OutputFormat.CSV
    export_id: str | None = None
    export: Export | None = None
    posting: bool = False
    ended: bool = False
    error: SegmentsError | None = None
    resumable: bool = False
    submitted: Submitted = "no"
    submitted_at: float = math.nan
    polled_at: float = math.nan
    followers: dict[Follower, None] = attrs.field(factory=dict["Follower", None])
    abandoned_at: float | None = None
    setbacks: int = 0
    setback: SegmentsError | None = None
    alone: bool = False
    tries: int = 0
    refusals: Refusals = _NO_REFUSALS
    absent_at: float = math.inf
    listed: bool = False
    missing: Missing | None = None
    queued: QueuedRequest[Target] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.queued = QueuedRequest(Kind.SUBMIT, self)

    @property
    def waits_for_submit(self) -> bool:
        """Whether the export's POST is still to be sent."""
        return self.export_id is None and not self.posting and not self.ended

    @property
    def running(self) -> bool:
        """Whether the vendor has accepted the export, and no answer has told of its end."""
        return self.export_id is not None and not self.ended

    @property
    def awaits_its_turn(self) -> bool:
        """Whether the export's POST is queued, and a follower waits for it."""
        return self.waits_for_submit and bool(self.followers and self.queued.entry)

    def each_follower(self) -> Iterator[Follower]:
        """The followers, without those that leave before it is their turn."""
        for follower in tuple(self.followers):
            if follower in self.followers:
                yield follower

    def known_seconds(self) -> float:
        """Seconds from the accepted POST to the last poll that brought a status; 0 before one."""
        if math.isnan(self.polled_at):
            return 0.0
        return max(0.0, self.polled_at - self.submitted_at)

    def deliver(self, permit: Permit, /) -> None:
        """The gate grants this export's request: the first follower is to send it."""
        next(iter(self.followers)).mailbox.deliver(permit)

    def poll_job(self, export_id: str, polls: Absence) -> PollJob:
        """The facts about the export for the verdict on a poll; `polls`: of all exports."""
        return PollJob(
            export_id=export_id,
            segment_id=self.segment_id,
            submitted_at=self.submitted_at,
            setbacks=self.setbacks,
            missing=self.missing,
            polls_answered_at=polls.answered_at,
            polls_absent_in_a_row=polls.in_a_row,
        )

    def fresh_error(self) -> SegmentsError:
        """The error, anew for each caller: a shared one would collect all their tracebacks."""
        if self.error is None:
            raise AssertionError("an export that didn't fail was asked for its error")
        error = copy.copy(self.error)
        error.__cause__ = self.error.__cause__
        return error


def last_setback(shared: SharedExport) -> str:
    """Why the last polls brought no status, for the end of a message; empty where they did."""
    if shared.setback is None:
        return ""
    polls = "poll" if shared.setbacks == 1 else f"{shared.setbacks} polls"
    return f"; the last {polls} brought no status: {shared.setback}"
