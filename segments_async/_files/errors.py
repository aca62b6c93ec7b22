"""The errors that end one attempt to download a file, although another attempt may succeed."""

from __future__ import annotations


class AttemptFailed(Exception):
    """The attempt failed for a reason that may pass, such as a broken connection.

    Attributes:
        pause: seconds to wait, as the server asked; None if it did not ask.
        away: whether storage as a whole is unavailable, so that this file is not the cause.
    """

    def __init__(self, what: str, pause: float | None = None, *, away: bool = False) -> None:
        super().__init__(what)
        self.pause = pause
        self.away = away


class CannotResume(AttemptFailed):
    """The bytes in the part can't be continued."""


class LengthMismatch(CannotResume):
    """The body was not as long as announced, although the connection did not break."""


class WrongRangeReceived(AttemptFailed):
    """Storage sent another range than requested. The bytes in the part can still be continued."""
