"""Why nothing moves: what delays requests, or downloads, by more than their turn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta

import attrs

from segments_async.results import Held, HeldReason

#: The pacer counts as a hold where the next request has to wait for this many seconds. Below that,
#: requests are sent all the time, and a user would see the reason flicker.
NOTABLE = 1.0


@attrs.frozen
class Hold:
    """Something that delays requests or downloads.

    Attributes:
        until: when the next one may go, in seconds of the event loop's clock; inf where an answer,
            or the end of an export, decides.
    """

    reason: HeldReason
    until: float

    def told(self, now: float, time: datetime) -> Held:
        """The hold as a public value, with wall times; `time` is the wall clock's at `now`."""
        if self.until == math.inf:
            return Held(reason=self.reason)
        seconds = max(0.0, self.until - now)
        return Held(reason=self.reason, seconds=seconds, until=time + timedelta(seconds=seconds))


def heaviest(*holds: Hold | None, places: Mapping[str, int]) -> Hold | None:
    """The hold, of those that delay the asker, whose reason stands first in `HeldReason`.

    Args:
        *holds: the present ones; None for one that there is not.
        places: how many of the asker's exports are ``waiting``, ``pending`` and ``fetching``.
    """
    order = list(HeldReason)
    found = [hold for hold in holds if hold is not None and _delays(hold.reason, places)]
    return min(found, key=lambda hold: order.index(hold.reason), default=None)


def _delays(reason: HeldReason, places: Mapping[str, int]) -> bool:
    """Whether the reason delays anything that the asker has still to do."""
    match reason:
        case HeldReason.STORAGE_AWAY | HeldReason.STORAGE_CREDENTIALS | HeldReason.DESTINATION_AWAY:
            delayed = ["fetching"]
        case HeldReason.JOB_CAP:
            delayed = ["waiting"]
        case HeldReason.JOURNAL_AWAY:
            return True
        case _:  # the API's
            delayed = ["waiting", "pending"]
    return any(places.get(place) for place in delayed)
