"""Whether a download makes progress: fast enough, and with more bytes after each attempt."""

from __future__ import annotations

import math

#: A download ends after this many attempts in a row that brought no more bytes.
ATTEMPTS = 5

#: A connection is given up when fewer than `MIN_BYTES` bytes arrive in `MIN_BYTES_WINDOW` seconds.
#: A read timeout does not catch such a server: one byte a minute restarts it each time.
MIN_BYTES = 64 * 1024
MIN_BYTES_WINDOW = 60.0

#: The message where a connection is given up for this.
TOO_SLOW = f"fewer than {MIN_BYTES} bytes came in {MIN_BYTES_WINDOW:g} s"

#: Bytes/s of one connection above which a second one brings nothing. S3 gives each connection 50 to
#: 100 MB/s; above this rate the network or this process is the limit.
FAST = 200_000_000.0

#: Seconds within which a fresh link is used, outside of an outage. A link that has expired by then
#: was not fresh.
LINK_USED_WITHIN = 60.0

#: Seconds before a connection's speed means anything.
_WARM_UP = 0.1


class ProgressLimit:
    """Counts the attempts in a row that brought no more bytes than the best one before."""

    def __init__(self) -> None:
        self._best = 0
        self.without_progress: int = 0

    def on_break(self, kept: int) -> bool:
        """An attempt failed; `kept` bytes are in the part. Returns whether to try again."""
        if kept > self._best:
            self._best, self.without_progress = kept, 0
            return True
        self.without_progress += 1
        return self.without_progress < ATTEMPTS


class LinkRenewals:
    """Decides whether an expired link is replaced: not if the last fresh link brought nothing."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._kept = -1

    def may_renew(self, kept: int, now: float) -> bool:
        """A link has expired; `kept` bytes are in the part. Returns whether to ask for another.

        False only if the last fresh link was expired from the beginning: it was given less than
        `LINK_USED_WITHIN` ago, and brought no bytes. The vendor gives the same expired link again
        then. An older link may have been valid during an outage of storage.
        """
        if self._at is not None and kept <= self._kept and now - self._at < LINK_USED_WITHIN:
            return False
        self._at, self._kept = now, kept
        return True


class SpeedMeter:
    """The speed of one connection since its request was sent."""

    def __init__(self, now: float) -> None:
        self._window_began = now
        self._in_window = 0
        self._body_began = math.inf
        self._received = 0

    @property
    def deadline(self) -> float:
        """When the connection is given up, unless enough bytes arrive before."""
        return self._window_began + MIN_BYTES_WINDOW

    def on_bytes(self, count: int, now: float) -> None:
        """`count` bytes arrived."""
        self._received += count
        self._body_began = min(self._body_began, now)
        self._in_window += count
        # Not for every chunk: each new deadline costs a timer.
        if self._in_window >= MIN_BYTES and now >= self._window_began + 1.0:
            self._window_began, self._in_window = now, 0

    def skip(self, seconds: float) -> None:
        """For `seconds`, the connection was not read."""
        self._window_began += seconds

    def worth_another(self, now: float) -> bool:
        """Whether a second connection would make the download faster."""
        seconds = now - self._body_began
        return seconds >= _WARM_UP and self._received < FAST * seconds
