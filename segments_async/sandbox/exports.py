"""Export jobs: how long one takes, how it stands, and its JSON as the page prints it."""

from __future__ import annotations

import math
from typing import Literal, Protocol

from attrs import define, field, frozen, validators

from . import chance
from .segments import Segment

Status = Literal["PENDING", "COMPLETE", "FAILED"]


class DurationLaw(Protocol):
    """How long exports take: the seconds below which the share `u` of them ends."""

    def seconds(self, u: float) -> float:
        """The duration below which the share `u` lies."""
        ...


@frozen
class Durations:
    """Lognormal, at most `longest` seconds; `sigma=0`: all take `median`.

    Exports "typically complete within a matter of seconds, but can potentially take up to several
    hours".
    """

    median: float = field(default=4.0, validator=validators.ge(0))
    sigma: float = field(default=0.6, validator=validators.ge(0))
    longest: float = field(default=60.0, validator=validators.ge(0))

    def seconds(self, u: float) -> float:
        """The duration below which the share `u` lies."""
        return min(self.longest, self.median * math.exp(self.sigma * chance.normal(u)))


@define(eq=False, weakref_slot=False)
class Export:
    """One export job. Its file depends on the segment and on `attempt` (0 for the first)."""

    export_id: str
    path: str  # of the status request; the record's entries share this string
    segment: Segment
    attempt: int
    started: str  # as printed
    ends_at: float
    fails: bool

    def status(self, now: float) -> Status:
        """How it stands."""
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
        f'  "endTime": {_plain(ended)},\n'
        f'  "filename": {_plain(filename)}\n}}'
    ).encode()


def _plain(text: str | None) -> str:
    """JSON of a text in which nothing needs an escape."""
    return "null" if text is None else f'"{text}"'
