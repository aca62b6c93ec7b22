"""The pause that an answer asks for."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime

#: The longest pause that a Retry-After can order, in seconds. Other APIs of this vendor ask for
#: seconds or minutes, and an hour is longer than any known window. A day, or a typing error, would
#: silently stop all requests of the account.
LONGEST_RETRY_AFTER = 3600.0

#: Numbers from here on, 31 years of seconds, are times: servers send the seconds since 1970, or the
#: milliseconds, at which their window ends. Taken as a pause each would be the longest.
_FIRST_TIME = 1e9
_FIRST_TIME_IN_MS = 1e12

#: Python's float() would also take "inf", "1_000" and "1e9".
_NUMBER = re.compile(r"[0-9]{1,16}(\.[0-9]{1,16})?")


def retry_after_seconds(status: int, headers: Mapping[str, str]) -> float | None:
    """The pause that an answer asks for, in seconds; None where it asks for none that makes sense.

    RFC 9110 section 10.2.3: seconds (servers send fractions, too) or a date. The date, or a time as
    a number, is read against the answer's own ``Date``, since neither clock need be right. Only 429
    and 503 count: a 401 with a Retry-After is still a 401. Past, negative, NaN and garbage are
    None, and the client's own backoff holds. Of several numbers the first counts.
    """
    value = headers.get("retry-after")
    if value is None or status not in (429, 503):
        return None
    seconds = _seconds(value.strip(), headers.get("date"))
    if math.isnan(seconds) or seconds <= 0:
        return None
    return min(seconds, LONGEST_RETRY_AFTER)


def _seconds(value: str, date: str | None) -> float:
    # "30,120" is two pauses, or one with a decimal comma. A pause that is too short costs one 429.
    first = value.partition(",")[0].strip()
    number = float(first) if _NUMBER.fullmatch(first) else math.nan
    if number < _FIRST_TIME:
        return number
    until = _timestamp(value) if math.isnan(number) else number
    if until >= _FIRST_TIME_IN_MS:
        until /= 1000
    return until - _timestamp(date)


def _timestamp(value: str | None) -> float:
    """Seconds since 1970 of an HTTP date; NaN for anything else."""
    moment = _moment(value)
    return math.nan if moment is None else moment.timestamp()


def _moment(value: str | None) -> datetime | None:
    """An HTTP date with its zone, or None."""
    if value is None or len(value) > 64:
        return None
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return moment if moment.tzinfo else None
