"""Whether a run's database can be written or read, and how long a run waits for it."""

from __future__ import annotations

import math
from typing import Literal

from segments_async.errors import JournalError

#: Seconds for which a database may be away before the run ends as `JournalError`. A restart takes
#: seconds, a failover a minute or two, another process's long transaction some minutes.
LONGEST_OUTAGE = 600.0

#: Seconds that another process's transaction may take before the database counts as away.
BUSY_SECONDS = 2.0

#: Seconds between two attempts: while the database is busy; and while it is away, the first pause,
#: which doubles up to the last.
BUSY_PAUSE = 0.05
_FIRST_PAUSE = 0.1
_LAST_PAUSE = 2.0


def is_away(error: JournalError) -> bool:
    """Whether the journal is unharmed, and may be back soon: the same call can be tried again."""
    return error.reason in ("locked", "unavailable")


class JournalLooks:
    """The looks of a session at the run that processes share, while the journal may be away."""

    def __init__(self) -> None:
        self._away_since: float | None = None

    @property
    def away(self) -> bool:
        """Whether the last look failed."""
        return self._away_since is not None

    def on_look(self) -> None:
        """A look succeeded."""
        self._away_since = None

    def on_error(self, error: JournalError, now: float) -> None:
        """A look failed. Raises the error where waiting doesn't help, or has taken too long."""
        self._away_since = now if self._away_since is None else self._away_since
        if not is_away(error) or now - self._away_since > LONGEST_OUTAGE:
            raise error


class JournalOutage:
    """The database as the attempts to write it show it: there, busy, or away."""

    def __init__(self) -> None:
        self._busy_since: float | None = None
        self._away_since: float | None = None
        self._pause = _FIRST_PAUSE
        self._last_write = -math.inf

    @property
    def away(self) -> bool:
        """Whether the database can't be written for now."""
        return self._away_since is not None

    def idle(self, now: float) -> float:
        """Seconds since the last attempt that the database took."""
        return now - self._last_write

    def next_pause(self) -> float:
        """Seconds to wait before the next attempt."""
        if self.away:
            pause, self._pause = self._pause, min(2 * self._pause, _LAST_PAUSE)
            return pause
        return 0.0 if self._busy_since is None else BUSY_PAUSE

    def on_written(self, now: float) -> float | None:
        """A write succeeded. Returns the seconds that the database was away; None if it was not."""
        self._last_write = now
        since, self._busy_since, self._away_since = self._away_since, None, None
        return None if since is None else now - since

    def on_busy(self, now: float) -> bool:
        """Another transaction holds the database. Returns whether that counts as being away."""
        if self._busy_since is None:
            self._busy_since = now
        return now - self._busy_since >= BUSY_SECONDS

    def on_away(self, now: float) -> Literal["begins", "lasts", "over"]:
        """The database doesn't answer. ``"over"``: it is waited for no longer."""
        if self._away_since is None:
            self._away_since, self._pause = now, _FIRST_PAUSE
            return "begins"
        if now - self._away_since > LONGEST_OUTAGE:
            self._away_since = None
            return "over"
        return "lasts"
