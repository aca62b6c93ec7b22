"""Why nothing moves: what delays requests, or downloads, by more than their turn."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime, timedelta

import attrs

from segments_async.results import Held, HeldReason

#: The pacer counts as a hold where the next request has to wait for so many seconds. Below that,
#: requests are sent all the time, and a user would see the reason flicker.
NOTABLE = 1.0


@attrs.frozen
class Hold:
    """Something that delays requests or downloads.

    Attributes:
        reason: of the delay.
        until: when the next one may go, in seconds of the event loop's clock; inf where an answer,
            or the end of an export, decides.
    """

    reason: HeldReason
    until: float

    def told(self, now: float, time: datetime) -> Held:
        """The hold as users read it; `time` is the wall clock's at `now`."""
        if self.until == math.inf:
            return Held(reason=self.reason)
        seconds = max(0.0, self.until - now)
        return Held(reason=self.reason, seconds=seconds, until=time + timedelta(seconds=seconds))


def heaviest(holds: Iterable[Hold | None]) -> Hold | None:
    """The hold to tell of several: of the reason that stands first in :class:`HeldReason`."""
    order = list(HeldReason)
    found = [hold for hold in holds if hold is not None]
    return min(found, key=lambda hold: order.index(hold.reason), default=None)
