"""Whether the API takes submits, where the answers to some say that their path takes none.

A 404 or 410 to a submit is mostly about its segment. But a gateway without a route to the API
answers so, too. If lists still have a route, each submit would end its segment for nothing. So
where the list shows the segment, and where the answer is 405, the segment is not the reason:
submits are held, and one at a time goes as a probe, each time another one, until one is accepted.
"""

from __future__ import annotations

from typing import Any

from segments_async._sansio.api.wire import ABSENT, NO_METHOD, NOT_NOW, ApiAnswer, ApiRequest
from segments_async._sansio.pace.absence import Absence
from segments_async._sansio.pace.notice import Notice, on_unrouted
from segments_async._sansio.pace.outage import AWAY_IN_A_ROW
from segments_async._sansio.pace.scheduler import QueuedRequest
from segments_async._sansio.pace.submit_hold import SubmitHold


class SubmitRoute:
    """The answers to submits which say that there is nothing at their path.

    Args:
        hold: of the client's submits.
    """

    def __init__(self, hold: SubmitHold) -> None:
        self._hold = hold
        #: Answers to submits of 404 and 410; lists and single calls count as successes alone.
        self.absent: Absence = Absence()

    @property
    def lost(self) -> bool:
        """Whether submits are held because their path takes none: no segment is missing."""
        return self._hold.unrouted

    @property
    def held(self) -> bool:
        """Whether submits are held, for this reason or another one."""
        return self._hold.armed

    def hopeless(self, now: float) -> bool:
        """Whether that has lasted so long that the caller has to hear of it."""
        return self._hold.hopeless(now)

    def on_answer(
        self, queued: QueuedRequest[Any], sent_at: float, request: ApiRequest, answer: ApiAnswer
    ) -> Notice | None:
        """A request was answered. Returns what to log; an answer to no submit changes nothing."""
        if request.body is None:
            return None
        shown = self.absent.shown_since(queued.shown_at)
        about_all = answer.status in ABSENT and (shown or self.lost)
        if answer.status == NO_METHOD or about_all:
            # One server of several may have no route, as after a 404 that no list contradicts.
            enough = 1 if about_all else AWAY_IN_A_ROW
            if not self._hold.on_unrouted(answer.at, sent_at, enough=enough):
                return None
            pause = self._hold.next_at() - answer.at
            return on_unrouted(request.method, request.path, answer.status, pause)
        if answer.status in NOT_NOW | ABSENT:
            # The submit was not acted on: if it was to show what becomes of submits, the next one
            # has to.
            self._hold.on_no_word(sent_at)
        return None

    def on_listed(
        self, queued: QueuedRequest[Any], sent_at: float, now: float, *, shown: bool
    ) -> None:
        """A list in a submit's place was answered. `shown`: it has the submit's segment."""
        if shown:
            queued.shown_at = now
        else:
            self.absent.on_success(sent_at)
