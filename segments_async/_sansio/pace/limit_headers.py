"""The hints that an answer's headers give about the rate limit. They are used, never relied on.

The vendor's page names no such header. Its other APIs document ``X-mp-rate-limit-percentage-used``
on good answers; common elsewhere are ``RateLimit-Remaining`` with ``RateLimit-Reset`` (also with
``X-``), and the ``RateLimit`` field of draft-ietf-httpapi-ratelimit-headers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import attrs

#: A Reset above this many seconds is a time since 1970 at some vendors. It isn't used: it would
#: have to be read against a clock that need not be right.
_LONGEST_RESET = 3600.0

#: The longest wait that a hint orders, in seconds. Some vendors count in milliseconds, and some say
#: when the whole budget is refilled. A wait that is too short costs one 429; a wait that is too
#: long stops the account.
_LONGEST_WAIT = 120.0

#: Waits up to this many seconds cost little, even where each answer orders one: a bucket without a
#: burst does that.
_SHORT_WAIT = 2.0

#: From this percentage of the budget on, the rate doesn't grow.
_NEARLY_USED = 95.0

_REMAINING = ("ratelimit-remaining", "x-ratelimit-remaining", "x-rate-limit-remaining")
_RESET = ("ratelimit-reset", "x-ratelimit-reset", "x-rate-limit-reset")
_PARAMETER = re.compile(r";\s*([rt])\s*=\s*(\d{1,10})\b")


@attrs.frozen
class Hint:
    """The advice of a good answer's headers.

    Attributes:
        wait: seconds until the budget is refilled, where the budget is used up; else 0.
        steady: the budget is nearly used up: the rate shouldn't grow now.
    """

    wait: float = 0.0
    steady: bool = False


@attrs.define
class HintedWaits:
    """The waits that hints order, and whether they are of use.

    Some servers say at each answer that the budget is used up, and grant the next request all the
    same. An account that believed them would send one request in each wait. So where the first
    answer after a long wait says the same again, the next long wait is half as long at most. An
    answer that says otherwise, and a 429, restore the belief.
    """

    _longest: float = _LONGEST_WAIT
    _until: float = -math.inf

    def on_granted(self, now: float, hint: Hint | None) -> float:
        """A request was granted. Returns the time until which the hint holds the next one."""
        over = now >= self._until
        if hint is None or hint.wait <= _SHORT_WAIT:
            if over:
                self._longest = _LONGEST_WAIT
            return -math.inf if hint is None else now + hint.wait
        if over and self._until > -math.inf:
            self._longest /= 2
        until = now + min(hint.wait, self._longest)
        self._until = max(self._until, until)
        return until

    def on_throttled(self) -> None:
        """A request was refused: there is a limit."""
        self._longest, self._until = _LONGEST_WAIT, -math.inf


def read_hint(headers: Mapping[str, str]) -> Hint | None:
    """The hint in the headers of a good answer; None where none is there, or none makes sense."""
    if "rate" not in " ".join(headers):
        return None  # almost always, and six look-ups cheaper
    remaining, reset = _structured(headers.get("ratelimit"))
    if remaining is None:
        remaining, reset = _first(headers, _REMAINING), _first(headers, _RESET)
    if remaining is not None and remaining < 1 and reset is not None:
        wait = min(reset, _LONGEST_WAIT)
        return Hint(wait=wait, steady=True) if 0 < reset <= _LONGEST_RESET else None
    used = _number(headers.get("x-mp-rate-limit-percentage-used"))
    if used is not None and used >= _NEARLY_USED:
        return Hint(steady=True)
    return None


def _structured(value: str | None) -> tuple[float | None, float | None]:
    """``"default";r=0;t=12``: what remains, and the seconds until it is refilled."""
    found = {name: float(number) for name, number in _PARAMETER.findall(value or "")}
    return found.get("r"), found.get("t")


def _first(headers: Mapping[str, str], names: tuple[str, ...]) -> float | None:
    return next((n for name in names if (n := _number(headers.get(name))) is not None), None)


def _number(value: str | None) -> float | None:
    try:
        number = float(value) if value is not None and len(value) <= 32 else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
