"""Answers that there is nothing at a path (404, 410), beside those with success.

Such an answer is about its segment or export where other requests are answered with success.
Where several come in a row, a gateway may have no route to the API.
"""

from __future__ import annotations

import math

import attrs

#: This many 404s in a row may each be about their own segment or export.
ABSENT_IN_A_ROW = 2

#: A first 404 to a POST is believed where another call, sent at most this many seconds before, was
#: answered with success.
ANSWERED_LATELY = 2.0


@attrs.define
class Absence:
    """The answers to one kind of requests.

    Attributes:
        answered_at: when the last request was sent that was answered with success, in seconds; -inf
            for none.
        in_a_row: answers of 404 or 410 so far, without a success to a request that was sent after
            the first of them. A request that was sent before may have had a route.
        itself_at: as `answered_at`, of requests of this kind alone.
    """

    answered_at: float = -math.inf
    in_a_row: int = 0
    itself_at: float = -math.inf
    _since: float = -math.inf

    def on_absent(self, now: float) -> None:
        """A request was answered 404 or 410."""
        if self.in_a_row == 0:
            self._since = now
        self.in_a_row += 1

    def on_success(self, sent_at: float, *, itself: bool = False) -> None:
        """A request that was sent at `sent_at` was answered with success.

        Args:
            sent_at: seconds.
            itself: whether it was of this kind. A list shows less about submits than a submit does.
        """
        if itself:
            self.itself_at = max(self.itself_at, sent_at)
        self.answered_at = max(self.answered_at, sent_at)
        if sent_at > self._since:
            self.in_a_row = 0

    def shown_since(self, shown_at: float) -> bool:
        """Whether no request of this kind has passed since a list at `shown_at` showed its segment.

        `shown_at` is inf where no list has.
        """
        return self.itself_at <= shown_at < math.inf


def api_is_there(
    submits: Absence,
    now: float,
    *,
    away: bool,
    held: bool,
    listed: bool,
    absent_at: float,
) -> bool:
    """Whether a 404 to a POST, if that is the answer that came now, is about its segment.

    Args:
        submits: the answers to submits, this one included.
        now: seconds.
        away: whether a gateway is known to answer in the vendor's place: all requests, or submits.
        held: whether submits are held, so that this one was a probe, perhaps for other processes.
        listed: whether a list in the place of this segment's POST was answered by the API itself.
        absent_at: when this segment's POST was first answered 404; inf before.
    """
    if away:
        return False
    if listed or submits.answered_at > absent_at:
        return True
    first = submits.in_a_row <= ABSENT_IN_A_ROW and absent_at == math.inf and not held
    lately = now - submits.answered_at <= ANSWERED_LATELY
    return first and (lately or submits.answered_at == -math.inf)
