"""The values that the journal returns about runs and about the account."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs

from segments_async._sansio.jobs.lifecycle import State
from segments_async._sansio.jobs.record import ExportRecord
from segments_async._sansio.pace.trace import PacePoint
from segments_async.models import iso
from segments_async.results import Held

_NOT_EXPORTED = (State.REFUSED, State.UNKNOWN, State.FAILED, State.EXPIRED)
#: States that a later session of an unfinished run leaves again.
_GIVEN_UP = (State.UNASKED, State.BROKEN_OFF)


@attrs.frozen(kw_only=True)
class RunSpec:
    """The request that a run was started with: enough to start a later session of the run.

    ``client.open_bulk_export(spec.segments, to, journal=..., run=name, **spec.options)`` goes on
    with the run.

    Attributes:
        segments: ids, in the order of the request.
        options: keywords of :meth:`SegmentsClient.open_bulk_export`: ``overwrite``,
            ``only_changed``, ``retry_failed``, ``on_unknown``, ``on_expired``, ``export_timeout``;
            of a run that several processes share, ``shared``.
    """

    segments: Sequence[str]
    options: Mapping[str, Any]


@attrs.frozen(kw_only=True)
class RunStatus:
    """One run, and the number of its segments by outcome.

    Attributes:
        name: of the run.
        destination: the directory of its files; None for a run without files (``to=None``).
        started_at: when its first session started; aware, UTC.
        ended_at: when its last export ended; aware, UTC. None for an unfinished run.
        live: whether a process has the run open now.
        processes: number of processes that work at segments of the run now: of a run that isn't
            shared, 1 or 0. A process of a shared run that has no segment at present doesn't count.
        held: of a live run, what the journal knows to hold every request of the account: the ticket
            guard, after an answer of 500, or the vendor's outage. None where it knows nothing; each
            process may have other reasons of its own to wait.
        segments: number of segments; None where the journal has no spec of an unfinished run.
        exported: segments whose files are in place.
        unchanged: segments whose earlier files are still right.
        not_exported: segments that ended without a file.
        unfinished: the other segments; where `segments` is None, only those with an event.
    """

    name: str
    destination: str | None
    started_at: datetime
    ended_at: datetime | None
    live: bool
    processes: int
    held: Held | None
    segments: int | None
    exported: int
    unchanged: int
    not_exported: int
    unfinished: int

    def to_dict(self) -> dict[str, object]:
        """JSON-ready; the schema is in docs/json.md, and a line of ``runs --json`` has it."""
        return {
            "run": self.name,
            "destination": self.destination,
            "started_at": iso(self.started_at),
            "ended_at": iso(self.ended_at),
            "live": self.live,
            "processes": self.processes,
            "held": None if self.held is None else self.held.to_dict(),
            "segments": self.segments,
            "exported": self.exported,
            "unchanged": self.unchanged,
            "not_exported": self.not_exported,
            "unfinished": self.unfinished,
        }


def counts(states: Mapping[State, int], *, ended: bool, specified: int | None) -> dict[str, Any]:
    """The counts of a :class:`RunStatus`.

    Args:
        states: number of segments in each state; of an unfinished run, without those in NEW.
        ended: whether the run has ended.
        specified: number of segments in the run's spec; None without a spec.
    """
    exported, unchanged = states.get(State.DONE, 0), states.get(State.UNCHANGED, 0)
    over = (*_NOT_EXPORTED, *_GIVEN_UP) if ended else _NOT_EXPORTED
    not_exported = sum(states.get(state, 0) for state in over)
    segments = logged = sum(states.values())
    if not ended and specified is not None:
        # A later session may have been given fewer segments than have events.
        segments = max(logged, specified)
    return {
        "segments": segments if ended or specified is not None else None,
        "exported": exported,
        "unchanged": unchanged,
        "not_exported": not_exported,
        "unfinished": segments - exported - unchanged - not_exported,
    }


@attrs.frozen(kw_only=True)
class StoredRun:
    """Everything that the journal has of one run.

    Attributes:
        status: of the run.
        segments: ids, of the run's spec; None where the journal has no spec.
        records: of the segments that have events, by id.
        pace: over time; empty where an earlier version made the run, and for a shared run.
    """

    status: RunStatus
    segments: Sequence[str] | None
    records: Mapping[str, ExportRecord]
    pace: Sequence[PacePoint]


@attrs.frozen
class GuardRecord:
    """The account's ticket guard, as the last process stored it.

    Attributes:
        until: no request is sent before this time; aware, UTC.
        pause: the pause after another 500, in seconds.
        internal_errors: answers of 500 since the guard was armed.
    """

    until: datetime
    pause: float
    internal_errors: int
