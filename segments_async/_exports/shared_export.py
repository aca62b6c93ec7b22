"""One export at the vendor, from its first caller to its end there, and its followers.

*Single flight*: callers of `export()` and bulk runs that want the same segment share the vendor's
export, and nothing else: each caller keeps its destination, its timeout and its cancellation. No
task belongs to a shared export. Its requests are sent by whichever of its followers the gate hands
the permit to.
"""

from __future__ import annotations

import copy
import math
from typing import Protocol

from segments_async._pace.permits import Mailbox, Permit, Target
from segments_async._sansio.jobs.lifecycle import Event
from segments_async._sansio.jobs.verdict import Missing, PollJob, Submitted
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


class SharedExport:
    """One export at the vendor.

    Attributes:
        segment_id: None until an answer names the segment, where only an export's id was given.
        output_format: of the file.
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
        missing: answers that lack what must come soon; see `verdict`.
        queued: its next request in the scheduler.
    """

    __slots__ = (
        "abandoned_at",
        "alone",
        "ended",
        "error",
        "export",
        "export_id",
        "followers",
        "missing",
        "output_format",
        "polled_at",
        "posting",
        "queued",
        "refusals",
        "resumable",
        "segment_id",
        "setback",
        "setbacks",
        "submitted",
        "submitted_at",
        "tries",
    )

    def __init__(
        self, segment_id: str | None, output_format: OutputFormat = OutputFormat.CSV
    ) -> None:
        self.segment_id: str | None = segment_id
        self.output_format: OutputFormat = output_format
        self.export_id: str | None = None
        self.export: Export | None = None
        self.posting: bool = False
        self.ended: bool = False
        self.error: SegmentsError | None = None
        self.resumable: bool = False
        self.submitted: Submitted = "no"
        self.submitted_at: float = math.nan
        self.polled_at: float = math.nan
        self.followers: dict[Follower, None] = {}
        self.abandoned_at: float | None = None
        self.setbacks: int = 0
        self.setback: SegmentsError | None = None
        self.alone: bool = False
        self.tries: int = 0
        self.refusals: Refusals = _NO_REFUSALS
        self.missing: Missing | None = None
        self.queued: QueuedRequest[Target] = QueuedRequest(Kind.SUBMIT, self)

    @property
    def waits_for_submit(self) -> bool:
        """Whether its POST is still to be sent."""
        return self.export_id is None and not self.posting and not self.ended

    @property
    def running(self) -> bool:
        """Whether the vendor is at work on it, as far as is known."""
        return self.export_id is not None and not self.ended

    def known_seconds(self) -> float:
        """Seconds that the vendor is known to have worked on it, by the last poll; 0 before one."""
        if math.isnan(self.polled_at):
            return 0.0
        return max(0.0, self.polled_at - self.submitted_at)

    def deliver(self, permit: Permit, /) -> None:
        """The gate grants this export's request: the first follower is to send it."""
        next(iter(self.followers)).mailbox.deliver(permit)

    def poll_job(self) -> PollJob:
        """The facts about the export for the verdict on a poll."""
        if self.export_id is None:
            raise AssertionError("a poll of an export without an id")
        return PollJob(
            export_id=self.export_id,
            segment_id=self.segment_id,
            submitted_at=self.submitted_at,
            setbacks=self.setbacks,
            missing=self.missing,
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
