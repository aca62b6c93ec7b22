"""Whether to ask again, and after how long. When the next request may go at all is the pacer's.

Retrying (something went wrong) and polling (nothing went wrong, it just isn't finished) are two
things: what they share is only the gate through which both pass.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime

#: The longest pause that a Retry-After can order, in seconds. Other APIs of this vendor speak of
#: seconds and minutes; an hour is already longer than any window known, and a day, or a typing
#: error, would silently stop the account's every task.
LONGEST_RETRY_AFTER = 3600.0

#: Full jitter, from 1 s doubling to 30 s, for gateways' errors and broken links.
FIRST_BACKOFF = 1.0
LONGEST_BACKOFF = 30.0

#: The ticket guard's first and longest pause, in seconds, and how many answers of 500 end a run.
FIRST_GUARD = 60.0
LONGEST_GUARD = 900.0
MOST_INTERNAL_ERRORS = 6

#: Python's float() would also take "inf", "1_000" and "1e9".
_NUMBER = re.compile(r"[0-9]{1,16}(\.[0-9]{1,16})?")


def retry_after_seconds(status: int, headers: Mapping[str, str]) -> float | None:
    """The pause that an answer asks for, in seconds; None where it asks for none that makes sense.

    RFC 9110 section 10.2.3: seconds (fractions are seen too) or a date, which is read against the
    answer's own ``Date``, since neither clock need be right. Only on 429 and 503: a 401 with a
    Retry-After is still a 401. Past, negative, NaN and garbage are None: our own backoff is better.
    """
    value = headers.get("retry-after")
    if value is None or status not in (429, 503):
        return None
    seconds = _seconds(value.strip(), headers.get("date"))
    if math.isnan(seconds) or seconds <= 0:
        return None
    return min(seconds, LONGEST_RETRY_AFTER)


def _seconds(value: str, date: str | None) -> float:
    if _NUMBER.fullmatch(value):
        return float(value)
    until, since = _moment(value), _moment(date)
    if until is None or since is None:
        return math.nan
    return (until - since).total_seconds()


def _moment(value: str | None) -> datetime | None:
    """An HTTP date with its zone, or None."""
    if value is None or len(value) > 64:
        return None
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return moment if moment.tzinfo else None


def full_jitter(attempt: int, chance: float) -> float:
    """Seconds to wait before attempt number `attempt` + 1 (0: the first has just failed).

    Full jitter: callers that failed together don't come back together.
    """
    return chance * min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(attempt, 30))


class RetryQuota:
    """A bucket of retries that successes refill, so that an outage isn't met with a multiple of it.

    A retry takes one; a success gives back a tenth. Ten calls that each fail for ever thus send at
    most `size` requests more than their own ten, however large their own patience.
    """

    def __init__(self, size: float = 50.0, refill: float = 0.1) -> None:
        self._size = size
        self._refill = refill
        self._left = size

    def take(self) -> bool:
        """Take one retry, if there is one."""
        if self._left < 1.0 - 1e-9:  # ten tenths don't add up to one in binary
            return False
        self._left -= 1.0
        return True

    def on_success(self) -> None:
        self._left = min(self._size, self._left + self._refill)


class TicketGuard:
    """After a 500, leave the vendor alone: each one "will automatically raise a ticket".

    Any 500 holds the whole account for 60 s, doubling up to 15 minutes while they go on. Then one
    request goes as a probe; if it succeeds, the guard closes.
    """

    def __init__(self) -> None:
        self._until = -math.inf
        self._pause = FIRST_GUARD
        self._probing = False
        self.armed: bool = False
        #: Answers of 500 since the client was made.
        self.internal_errors: int = 0

    def next_at(self) -> float:
        """When the next request may go; never, while the probe is under way."""
        return math.inf if self._probing else self._until

    def restore(self, until: float, pause: float) -> None:
        """An earlier process had armed it: hold until then at least, and let a probe go first."""
        self._until = max(self._until, until)
        self._pause = max(self._pause, min(pause, LONGEST_GUARD))
        self.armed = True

    @property
    def pause(self) -> float:
        """Seconds that the next 500 would hold everybody."""
        return self._pause

    @property
    def until(self) -> float:
        """Until when everybody is held, where it is armed."""
        return self._until

    def on_internal_error(self, now: float) -> None:
        """A 500. Those of requests sent before the first one's answer don't double the pause."""
        self.internal_errors += 1
        if self.armed and not self._probing:
            return
        self._until = now + self._pause
        self._pause = min(LONGEST_GUARD, 2 * self._pause)
        self.armed, self._probing = True, False

    def on_sent(self) -> bool:
        """A request goes: whether it is the guard's probe."""
        self._probing = self.armed
        return self._probing

    def on_probe_answer(self, now: float, *, passed: bool) -> None:
        """The probe's answer came, or was lost; a 500 is told to :meth:`on_internal_error`.

        One that didn't pass is no reason for a longer pause, and none to go on either.
        """
        if not self._probing:
            return
        self._probing = False
        if passed:
            self.armed, self._until, self._pause = False, -math.inf, FIRST_GUARD
        else:
            self._until = now + LONGEST_BACKOFF

    def on_probe_unsent(self) -> None:
        """The probe never went: the next request is it."""
        self._probing = False
