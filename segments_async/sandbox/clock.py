"""The wall time that the vendor prints, from the sandbox's seconds."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime


def stamp(moment: datetime) -> str:
    """A DateTime as the page prints it: `2019-04-09T12:25:06.000Z`. `moment` is in UTC."""
    return moment.isoformat(timespec="milliseconds")[:23] + "Z"


def http_date(moment: datetime) -> str:
    """A time as HTTP headers print it: `Thu, 01 Jan 2026 00:00:00 GMT`. `moment` is in UTC."""
    return format_datetime(moment, usegmt=True)


def amz_date(moment: datetime) -> str:
    """A time as S3's signatures print it: `20260101T000000Z`."""
    return f"{moment:%Y%m%dT%H%M%SZ}"


class Clock:
    """The wall time at the sandbox's `now`, which counts seconds from `epoch`."""

    def __init__(self, epoch: datetime) -> None:
        if epoch.tzinfo is None:
            raise ValueError("epoch must be an aware datetime")
        self.epoch: datetime = epoch.astimezone(UTC)
        self._printed = (-1, "", "")

    def moment(self, now: float) -> datetime:
        """The wall time."""
        return self.epoch + timedelta(seconds=now)

    def second_after(self, now: float) -> datetime:
        """The first whole second that isn't before `now`."""
        moment = self.moment(now)
        return moment + timedelta(microseconds=-moment.microsecond % 1_000_000)

    def stamp(self, now: float) -> str:
        """`now` as the page prints it."""
        return stamp(self.moment(now))

    def http_date(self, now: float) -> str:
        """`now` for a Date header, its fraction dropped."""
        return self._by_second(now)[1]

    def amz_date(self, now: float) -> str:
        """`now` for a signature, its fraction dropped."""
        return self._by_second(now)[2]

    def _by_second(self, now: float) -> tuple[int, str, str]:
        moment = self.moment(now)
        second = math.floor(moment.timestamp())
        if self._printed[0] != second:  # thousands of answers share a second
            self._printed = second, http_date(moment), amz_date(moment)
        return self._printed


class Timeline:
    """The sandbox's seconds. Each event loop goes on where the last one ended."""

    def __init__(self) -> None:
        self._loop: object = None
        self._start = 0.0
        self._last = 0.0

    @property
    def last(self) -> float:
        """The latest `now` that a caller gave, in seconds."""
        return self._last

    def now(self, loop: object, time: float) -> float:
        """The sandbox's time when it is `time` in `loop`."""
        if loop != self._loop:
            self._loop, self._start = loop, time - self._last
        self._last = time - self._start
        return self._last
