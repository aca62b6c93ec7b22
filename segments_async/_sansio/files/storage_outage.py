"""An outage of storage: the downloads of a client wait together, and no file's attempts count.

In an outage, requests get no answer, a gateway's (502, 503, 504 and the like), or a web page in the
file's place. That concerns all downloads of the client, not one file. So one backoff holds all of
them; then one request is sent as a probe. The first answer of any other kind ends the outage. See
`outage` for the API's.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Literal

from segments_async._sansio.pace.backoff import full_jitter
from segments_async._sansio.pace.hold import Hold
from segments_async.results import HeldReason

#: Seconds after which waiting downloads are given up. Files stay for 48 hours, and the same command
#: continues their parts.
LONGEST_STORAGE_OUTAGE = 6 * 3600.0

#: Failures in a row, with no other answer between them, that make an outage. Fewer may be accidents
#: of single connections.
FAILED_IN_A_ROW = 3

#: How often a file's requests fail while those of other files are answered, before further failures
#: count as the file's own: its bucket or host is another one.
BLAMED = 2

#: Seconds without a failure after which the next failure begins another outage.
_FORGOTTEN_AFTER = 900.0

#: What came instead of a file: no answer, a gateway's answer, or an error of storage itself or a
#: web page. The last may concern one file alone, and makes an outage once it has met two files.
StorageFailure = Literal["unreachable", "away", "fault"]

_FAULT = frozenset({500})
_AWAY = frozenset({408, 425, 429, 502, 503, 504, 509, *range(520, 528), 529, 530})


def failure_of(status: int) -> StorageFailure | None:
    """The failure that an answer's status means; None if storage answered the request."""
    return "away" if status in _AWAY else "fault" if status in _FAULT else None


class StorageOutage:
    """Consecutive failures of storage, for all files together.

    Attributes:
        armed: whether an outage lasts: the next request is sent alone.
    """

    def __init__(self) -> None:
        self.armed: bool = False
        self._probing = False
        self._until = -math.inf
        self._since = self._last = -math.inf
        self._first_sent = math.inf
        self._failures = 0
        self._in_a_row = 0
        self._files: set[str] = set()
        self._blamed: Counter[str] = Counter()
        self._faults_alone = True

    def next_at(self) -> float:
        """When the next request may be sent; infinity while the probe has no answer."""
        return math.inf if self._probing else self._until

    def gives_up(self, now: float) -> bool:
        """Whether the outage has lasted so long that downloads end."""
        return self.armed and now - self._since > LONGEST_STORAGE_OUTAGE

    def hold(self, now: float, *, unsigned: bool) -> Hold | None:
        """What delays the downloads; None where nothing does.

        `unsigned`: the last link could not be signed, for a reason that may pass.
        """
        if self.armed and (at := self.next_at()) > now:
            return Hold(HeldReason.STORAGE_AWAY, at)
        return Hold(HeldReason.STORAGE_CREDENTIALS, math.inf) if unsigned else None

    def on_sent(self) -> None:
        """A request is sent."""
        self._probing = self.armed

    def on_inconclusive(self) -> None:
        """A request failed for a reason that says nothing of storage."""
        self._probing = False

    def on_answer(self, file: str, sent_at: float) -> bool:
        """Storage answered, with success or a refusal. Returns whether that ended an outage."""
        self._blamed.pop(file, None)
        if sent_at < self._first_sent and self._in_a_row:
            return False  # the answer is older than the outage
        self._blamed.update(self._files - {file})
        ended = self.armed
        self.armed = self._probing = False
        self._until, self._first_sent = -math.inf, math.inf
        self._failures = self._in_a_row = 0
        self._files.clear()
        self._faults_alone = True
        return ended

    def on_failed(
        self,
        failure: StorageFailure,
        file: str,
        *,
        now: float,
        sent_at: float,
        chance: float,
        retry_after: float | None,
    ) -> bool:
        """A request failed. Returns whether the reason is an outage of storage, not the file.

        Args:
            now: seconds.
            sent_at: when the request was sent.
            chance: a random number from [0, 1), so that clients don't return at the same time.
            retry_after: seconds that the answer asks to wait. One such answer makes an outage.
        """
        if self._blamed[file] >= BLAMED:
            self._probing = False
            return False
        if now - self._last > _FORGOTTEN_AFTER:
            self._since = now
        self._last = now
        if not self._in_a_row:
            self._since, self._first_sent = now, sent_at
        self._in_a_row += 1
        self._files.add(file)
        self._faults_alone &= failure == "fault"
        self._probing = False
        if self.armed and now < self._until:
            # The request was sent before the outage began.
            self._until = max(self._until, now + (retry_after or 0.0))
            return True
        if not self.armed and not self._is_enough(retry_after):
            return False
        # At least half of the backoff: several small random numbers in a row would be a busy loop.
        pause = full_jitter(self._failures, 0.5 + chance / 2)
        self._until = now + max(pause, retry_after or 0.0)
        self._failures += 1
        self.armed = True
        return True

    def _is_enough(self, retry_after: float | None) -> bool:
        if self._faults_alone and len(self._files) < 2:
            return False
        return retry_after is not None or self._in_a_row >= FAILED_IN_A_ROW
