"""One segment of a bulk run in this session, beside its record in the run's state."""

from __future__ import annotations

import attrs

from segments_async._requests.shared_export import SharedExport, last_setback
from segments_async._sansio.jobs.decisions import Following
from segments_async._sansio.jobs.lifecycle import Event
from segments_async._sansio.jobs.payload import NOTHING, Payload
from segments_async.results import Completed, NotExported, Outcome


@attrs.define(eq=False)
class Job:
    """One segment of the run.

    Attributes:
        name: the segment's; None where the caller gave only the id.
        shared: the export that the segment follows; None where it follows none.
        bytes: of its file, fetched so far.
        broke: why the last attempt of the fetch under way failed; empty where none did.
        decided: its outcome, from the moment that it is decided until it is told.
        retry: its outcome if the run ends before the next try, while it waits for that.
        settled: whether its outcome was told.
        resubmits: how often this session has submitted it again after a lost answer.
        replaced: whether this session has asked for another export because a file was gone.
        retold: whether an earlier session told its outcome.
    """

    segment_id: str
    name: str | None
    shared: SharedExport | None = None
    bytes: int = 0
    broke: str = ""
    decided: Outcome | None = None
    retry: NotExported | None = None
    settled: bool = False
    resubmits: int = 0
    replaced: bool = False
    retold: bool = False

    def on_break(self, reason: str) -> None:
        """An attempt to fetch the file failed, and another one follows."""
        self.broke = reason

    @property
    def waiting(self) -> bool:
        """Whether nothing is under way for the segment, and its outcome isn't decided."""
        return self.shared is None and self.decided is None and not self.settled


def following(shared: SharedExport, broke: str = "") -> Following:
    """The facts, for decisions, about the export that the segment follows.

    `broke`: as in `Job`.
    """
    return Following(
        export=shared.export,
        submitted=shared.submitted,
        posting=shared.posting,
        setback=f"; its download broke off: {broke}" if broke else last_setback(shared),
        cause=shared.setback,
    )


def vendor_outcome(segment_id: str, shared: SharedExport) -> NotExported | Completed:
    """The outcome of an ended export at the vendor."""
    if shared.error is not None:
        return _failed_outcome(segment_id, shared)
    if shared.export is None:
        raise AssertionError("an export that is complete has an answer")
    return Completed(segment_id, shared.export)


def _failed_outcome(segment_id: str, shared: SharedExport) -> NotExported:
    error = shared.fresh_error()
    return NotExported(segment_id, shared.export, error, shared.submitted, shared.resumable)


def payload_of(shared: SharedExport, event: Event) -> Payload:
    """The payload of an event for a later session: the export."""
    if shared.error is not None and shared.segment_id is not None:
        return Payload.of_outcome(_failed_outcome(shared.segment_id, shared))
    if event in (Event.ACCEPTED, Event.ADOPTED, Event.COMPLETED, Event.FAILED):
        return Payload(shared.export)
    return NOTHING
