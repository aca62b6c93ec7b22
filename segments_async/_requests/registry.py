"""The shared exports of one client: which caller joins which export, and when one is forgotten."""

from __future__ import annotations

import math
from collections.abc import Iterator

import anyio

from segments_async._requests.gate import Gate
from segments_async._requests.permits import Mailbox, Permit
from segments_async._requests.shared_export import Follower, SharedExport
from segments_async._sansio.api.wire import checked_id
from segments_async._sansio.jobs.exports import seconds_taken
from segments_async._sansio.pace.scheduler import Kind
from segments_async.models import Export, OutputFormat

#: Seconds for which an export that all callers stopped waiting for is still joined by the next
#: caller, rather than run twice. After a longer time, a service that exports each night would get
#: last night's users.
ABANDONED_JOIN = 3600.0


class ExportRegistry:
    """The shared exports of one client, by segment and by the vendor's id."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._by_segment: dict[str, SharedExport] = {}
        self._by_export: dict[str, SharedExport] = {}
        self._alone: dict[SharedExport, None] = {}
        self._abandoned: dict[SharedExport, None] = {}
        #: Seconds that the last export of each segment took: a guess at the next one's.
        self._durations: dict[str, float] = {}

    def join_segment(
        self,
        follower: Follower,
        segment_id: str,
        *,
        expected_seconds: float = 0.0,
        not_before: float = -math.inf,
    ) -> SharedExport:
        """Join the segment's export that isn't over, or start one.

        Args:
            expected_seconds: how long the export may take; 0 where that isn't known.
            not_before: when the POST may be sent, in seconds of the event loop's clock.
        """
        self._sweep()
        shared = self._by_segment.get(segment_id)
        if shared is None or shared.ended:
            shared = self._by_segment[segment_id] = SharedExport(segment_id)
            shared.queued.key = -(expected_seconds or self._durations.get(segment_id, 0.0))
            shared.queued.not_before = not_before
        elif not_before < shared.queued.not_before and not shared.tries and shared.queued.entry:
            # A run asks for a FAILED export again after a minute. This caller needn't wait so long.
            shared.queued.not_before = not_before
            self._gate.add(shared.queued)
        self._add_follower(follower, shared)
        return shared

    def join_export(
        self, follower: Follower, export_id: str, export: Export | None, *, age: float = 0.0
    ) -> SharedExport:
        """Join an export that was submitted before, here or by another process.

        Args:
            export: as last seen; None where only the id is known.
            age: seconds since its POST was accepted, as far as is known.
        """
        shared = self._by_export.get(checked_id("an export", export_id))
        if shared is None or shared.ended:
            shared = self._adopted(export_id, export)
        if export is not None:
            self.update(shared, export)
        shared.submitted_at = min(shared.submitted_at, anyio.current_time() - age)
        self._add_follower(follower, shared)
        return shared

    def start_alone(
        self, follower: Follower, segment_id: str, output_format: OutputFormat
    ) -> SharedExport:
        """Start an export of the segment, whatever else runs. Its POST is the next to be sent."""
        self._sweep()
        shared = SharedExport(segment_id, output_format)
        shared.alone = True
        shared.queued.key = -math.inf
        self._alone[shared] = None
        self._add_follower(follower, shared)
        return shared

    def share(self, shared: SharedExport) -> None:
        """Let the next `export()` of its segment join it, unless another one is under way."""
        known = self._by_segment.get(shared.segment_id or "")
        if shared.segment_id is not None and (known is None or known.ended):
            self._by_segment[shared.segment_id] = shared

    def accepted(self, shared: SharedExport, export: Export, now: float) -> None:
        """The vendor gave the export an id: polls follow."""
        shared.export_id = export.export_id
        shared.submitted_at = now
        shared.queued.kind, shared.queued.key = Kind.POLL, now
        self._by_export[export.export_id] = shared
        if shared.alone:
            self._alone.pop(shared, None)
            self.share(shared)

    def update(self, shared: SharedExport, export: Export) -> None:
        """An answer describes the export anew."""
        if export != shared.export:  # else the run's record and this export share one value
            shared.export = export
        # A caller may have given the export's id alone: the answer has the segment's.
        shared.segment_id = shared.segment_id or export.segment.segment_id or None
        seconds = seconds_taken(export)
        if seconds is not None and shared.segment_id is not None:
            self._durations[shared.segment_id] = seconds

    def is_of_another_segment(self, shared: SharedExport, export: Export) -> bool:
        """Whether the id is known as another segment's: the file would have the other's users."""
        known = self._by_export.get(export.export_id)
        return known is not None and known.segment_id not in (None, shared.segment_id)

    def waiting_for_submit(self) -> Iterator[SharedExport]:
        """The exports whose POST is still queued."""
        for shared in (*self._alone, *self._by_segment.values()):
            if shared.awaits_its_turn:
                yield shared

    def unfollow(self, follower: Follower, shared: SharedExport) -> None:
        """The follower waits no more. Without followers, nothing more is sent for the export."""
        shared.followers.pop(follower, None)
        if shared.followers or shared.ended:
            return
        self._gate.cancel(shared.queued)
        if shared.running:
            shared.abandoned_at = anyio.current_time()
            self._abandoned[shared] = None
            self._gate.pending_ended()
            self._sweep()
        else:
            self.forget(shared)

    def release(self, mailbox: Mailbox) -> None:
        """Release unused permits. An export that others follow queues its request again."""
        items = list(mailbox.items)
        mailbox.items.clear()
        for permit in items:
            if isinstance(permit, Permit):
                shared = permit.queued.target
                if isinstance(shared, SharedExport):
                    self.requeue(shared, permit.queued.key)
                self._gate.release(permit)

    def requeue(self, shared: SharedExport, key: float) -> None:
        """Queue the export's next request, after a permit for it was used or released.

        Args:
            key: its place among the others; see `QueuedRequest.key`.
        """
        if shared.waits_for_submit:
            self._gate.submit_undone()
        shared.queued.key = key
        if shared.followers:
            self._gate.add(shared.queued)

    def forget(self, shared: SharedExport) -> None:
        """Let no caller join the export: it has ended, or lost its followers before its POST."""
        self._alone.pop(shared, None)
        if shared.segment_id and self._by_segment.get(shared.segment_id) is shared:
            del self._by_segment[shared.segment_id]
        if shared.export_id and self._by_export.get(shared.export_id) is shared:
            del self._by_export[shared.export_id]

    def _adopted(self, export_id: str, export: Export | None) -> SharedExport:
        shared = SharedExport(None if export is None else export.segment.segment_id)
        shared.submitted = "yes"
        shared.submitted_at = shared.queued.key = anyio.current_time()
        shared.queued.kind = Kind.POLL
        shared.export_id = export_id
        shared.export = export
        shared.abandoned_at = shared.submitted_at
        self._by_export[export_id] = shared
        return shared

    def _add_follower(self, follower: Follower, shared: SharedExport) -> None:
        first = not shared.followers
        shared.followers[follower] = None
        if not first:
            return
        if shared.abandoned_at is not None:
            shared.abandoned_at = None
            self._abandoned.pop(shared, None)
            self._gate.pending_began()
        self._gate.add(shared.queued)

    def _sweep(self) -> None:
        """Forget the exports that were abandoned too long ago to be joined."""
        if not self._abandoned:
            return
        before = anyio.current_time() - ABANDONED_JOIN
        while shared := next(iter(self._abandoned), None):  # the one that was abandoned first
            if shared.abandoned_at is not None and shared.abandoned_at > before:
                return
            del self._abandoned[shared]
            self.forget(shared)
