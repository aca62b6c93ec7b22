"""When an event of a run is written: at once, or together with the next one that can't wait.

A commit costs more than all else that the journal does for an export. So an event whose loss costs
little waits for the commit of another event, and no longer than the table says:

===========================  ====================================  =============================
event                        what a kill costs before its commit   its commit
===========================  ====================================  =============================
INTENT                       nothing: the POST waits for it        `INTENTS_APART` s after the
                                                                   last one
ACCEPTED, NOT_SENT, and all  the export's id, or its reason: the   `APART` s after the last one
that the next lines lack     export counts as unknown
FETCHED, UNCHANGED           a poll, or a look at the file: the    `LINGER` s after the last one
                             outcome waits for it
COMPLETED, RESUMED,          a poll, or nothing: a later session   `LONGEST` s after the event;
OPTED_IN                     finds the same out again              no caller waits for it
===========================  ====================================  =============================

Events stay in the order in which they happened: a commit takes all that wait. While no other export
of the run is under way, no event waits for another one, so that a single export is no slower.
"""

from __future__ import annotations

import math

from segments_async._sansio.jobs.lifecycle import Event

#: Seconds after the last commit at which an INTENT is written. A POST waits so long at most, which
#: is less than the pacer lets two requests stray from their times.
INTENTS_APART = 0.02

#: Seconds after the last commit at which the answer to a POST is written. Each of them adds to the
#: exports that a kill makes unknown: those whose POST is on the wire, or whose id waits.
APART = 0.01

#: Seconds after the last commit at which an outcome that waits is told at the latest. A process
#: that submits 5 exports a second commits each 0.1 s anyway.
LINGER = 0.5

#: Seconds after which an event for which no caller waits is written, if nothing else was.
LONGEST = 1.0

#: Events for which no caller waits. The file of a COMPLETED export is fetched meanwhile; a run for
#: links records FETCHED next, which has the outcome. The other two are recorded before the segment
#: is submitted, polled or given up.
UNAWAITED = frozenset({Event.COMPLETED, Event.RESUMED, Event.OPTED_IN})

#: Seconds after the last commit at which an event is written that a caller waits for.
_AFTER_THE_LAST = {Event.INTENT: INTENTS_APART, Event.FETCHED: LINGER, Event.UNCHANGED: LINGER}


class CommitSchedule:
    """When each event of one run is written at the latest."""

    def __init__(self) -> None:
        self._last = -math.inf

    def on_commit(self, now: float) -> None:
        """Events were written."""
        self._last = now

    def due(self, event: Event, now: float, *, others: bool) -> float:
        """When an event for which a caller waits is written at the latest, in seconds.

        Args:
            event: what happened.
            now: seconds.
            others: whether other exports of the run are under way.
        """
        if not others:
            return now
        return max(now, self._last + _AFTER_THE_LAST.get(event, APART))

    def due_later(self, now: float) -> float:
        """When an event for which no caller waits is written at the latest, in seconds."""
        return now + LONGEST
