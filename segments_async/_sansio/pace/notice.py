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
        event: what happened.
        level: of the log line.
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
