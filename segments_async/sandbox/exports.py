"""Exports: how long one takes, its status, and its JSON as the page prints it."""

from __future__ import annotations

import math
from typing import Final, Literal, Protocol

from attrs import define, field, frozen, validators

from . import chance, page
from .segments import PAGE_SEGMENT, Segment

Status = Literal["PENDING", "COMPLETE", "FAILED"]


class DurationLaw(Protocol):
    """How long exports take."""

    def seconds(self, u: float) -> float:
        """The seconds within which the part `u` of all exports ends; `u` is in [0, 1)."""
        ...


@frozen
class Durations:
    """A lognormal law, cut at `longest` seconds. With `sigma=0` all exports take `median` seconds.

    Exports "typically complete within a matter of seconds, but can potentially take up to several
    hours".
    """

    median: float = field(default=4.0, validator=validators.ge(0))
    sigma: float = field(default=0.6, validator=validators.ge(0))
    longest: float = field(default=60.0, validator=validators.ge(0))

    def seconds(self, u: float) -> float:
        """The seconds within which the part `u` of all exports ends; `u` is in [0, 1)."""
        return min(self.longest, self.median * math.exp(self.sigma * chance.normal(u)))


@define(eq=False, weakref_slot=False)
class Export:
    """One export. Its file depends on the segment and on `attempt` (0 for the first)."""

    export_id: str
    path: str  # of the status request; the record's entries share this string
    segment: Segment
    attempt: int
    started: str  # as printed
    ends_at: float
    fails: bool

    def status(self, now: float) -> Status:
        """The status at `now`."""
        if now < self.ends_at:
            return "PENDING"
        return "FAILED" if self.fails else "COMPLETE"


def export_json(
    export_id: str,
    segment: Segment,
    status: Status,
    started: str,
    ended: str | None,
    filename: str | None,
) -> bytes:
    """An export answer: the page's keys in the page's order, so without a projectId."""
    return (
        f'{{\n  "exportId": "{export_id}",\n'
        f'  "segment": {segment.text},\n'
        f'  "status": "{status}",\n'
        f'  "startTime": "{started}",\n'
        f'  "endTime": {_printable(ended)},\n'
        f'  "filename": {_printable(filename)}\n}}'
    ).encode()


def _printable(text: str | None) -> str:
    """JSON of a text in which nothing needs an escape."""
    return "null" if text is None else f'"{text}"'


#: The page's own finished export, whose link is no https link.
PAGE_EXPORT: Final = export_json(
    page.PAGE_EXPORT_ID,
    PAGE_SEGMENT,
    "COMPLETE",
    page.PAGE_STARTED,
    page.PAGE_ENDED,
    page.PAGE_FILENAME,
)
