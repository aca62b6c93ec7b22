"""A change of the pace as a log line: a sentence for people, and its facts as values."""

from __future__ import annotations

from enum import IntEnum, StrEnum

import attrs


class PaceEvent(StrEnum):
    """The cause of a notice."""

    THROTTLED = "throttled"  # an answer of 429
    GRANTED = "granted"  # the first request that is granted after a 429
    JOB_CAP = "job_cap"  # an answer of 429 that is taken for a cap on running exports
    SHARED = "shared"  # this process has another part of the account's limit
    VENDOR_AWAY = "vendor_away"  # no answer, or a gateway's
    VENDOR_BACK = "vendor_back"
    TICKET_RAISED = "ticket_raised"  # an answer of 500
    GUARD_PASSED = "guard_passed"  # the first other answer after a 500


class Level(IntEnum):
    """The importance of a log line; the values are those of `logging`."""

    DEBUG = 10
    INFO = 20
    WARNING = 30


@attrs.frozen
class Notice:
    """A change of the pace.

    Attributes:
        text: of the log line, with places for the arguments.
        arguments: texts and numbers.
        pause: seconds for which nothing is sent; the line says until when. None: it says nothing.
        delay: seconds until the next request may go, where that is known.
        rate: requests/s from now on at most; None where the event doesn't tell, or nothing limits.
    """

    event: PaceEvent
    level: Level
    text: str
    arguments: tuple[str | float, ...] = ()
    pause: float | None = None
    delay: float | None = None
    rate: float | None = None


#: The log lines of changes of the pace. Their arguments: the request's method and path, what the
#: vendor asked, and requests/s.
TICKET_RAISED = "500 on %s %s: the vendor has opened a ticket with its support by itself."
GUARD_PASSED = "The vendor answers without a 500 again: requests go on."
VENDOR_BACK = "The vendor answers again: requests go on."
THROTTLED = "429 on %s %s%s: requests wait, and single ones show when the vendor grants them again."
GRANTED = "The vendor grants requests again: now at most %s requests/s."
JOB_CAP_FOUND = "429 on submits alone%s: taken as a cap of %g on running exports."
NO_ROUTE = (
    "%s %s: answered %d, as if its path took no submits: no submit is sent for %.0f s, and a "
    "single one then"
)

#: The log lines of what other processes were answered, by the names of the outages.
TOLD_AWAY = {
    "requests": "Another process was answered by a gateway in the vendor's place: requests wait.",
    "submits": "Another process's last submits were in vain, or lost: submits wait.",
}
TOLD_BACK = {
    "requests": "The vendor answers another process again: requests go on.",
    "submits": "A submit of another process was answered by the vendor: submits go on.",
}
TOLD_GUARD = "Another process was answered 500: the vendor has opened a ticket with its support."


def on_unrouted(method: str, path: str, status: int, pause: float) -> Notice:
    """A submit was answered that its path takes none; submits are held for `pause` seconds."""
    arguments = (method, path, status, pause)
    return Notice(PaceEvent.VENDOR_AWAY, Level.WARNING, NO_ROUTE, arguments, delay=pause)


def on_told(what: str, *, back: bool) -> Notice:
    """Another process was answered in the vendor's place, or by the vendor again."""
    if back:
        return Notice(PaceEvent.VENDOR_BACK, Level.INFO, TOLD_BACK[what])
    return Notice(PaceEvent.VENDOR_AWAY, Level.WARNING, TOLD_AWAY[what])


def on_told_guard(pause: float) -> Notice:
    """Another process received a 500; nothing is sent for `pause` seconds."""
    return Notice(PaceEvent.TICKET_RAISED, Level.WARNING, TOLD_GUARD, pause=pause)


def on_new_share(rate: float | None, *, divided: bool) -> Notice:
    """This process has another part of the account's limit.

    Args:
        rate: requests/s from now on.
        divided: whether other processes have parts, too.
    """
    text = (
        "Other processes share the account's limit: this one sends at most %s requests/s now."
        if divided
        else "No other process uses the account's limit: this one sends at most %s requests/s now."
    )
    shown = "any number of" if rate is None else f"{rate:.3g}"
    return Notice(PaceEvent.SHARED, Level.INFO, text, (shown,), rate=rate)
