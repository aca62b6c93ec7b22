"""How long a file waits for its destination, and when it is given up."""

from __future__ import annotations

from segments_async._sansio.files.storage_outage import LONGEST_STORAGE_OUTAGE
from segments_async._sansio.pace.backoff import full_jitter
from segments_async.errors import DestinationReason

#: How often a file is begun again after an error that isn't an outage of the destination.
_MOST_FAULTS = 3

#: Seconds without an error after which the next one begins another outage.
_FORGOTTEN_AFTER = 900.0


class DestinationOutage:
    """The errors that the destination had for one file."""

    def __init__(self) -> None:
        self._since = self._last = 0.0
        self._errors = 0
        self._faults = 0

    def pause(self, reason: DestinationReason, now: float, chance: float) -> float | None:
        """Seconds to wait before the file is begun again; None: it is given up.

        An absent right, bucket or room won't come by waiting: such a file is given up at once, and
        the next run fetches it.
        """
        if reason not in ("away", "broken"):
            return None
        if not self._errors or now - self._last > _FORGOTTEN_AFTER:
            self._since, self._errors = now, 0
        self._last = now
        self._errors += 1
        self._faults += reason == "broken"
        if self._faults > _MOST_FAULTS or now - self._since > LONGEST_STORAGE_OUTAGE:
            return None
        return full_jitter(self._errors, chance)
