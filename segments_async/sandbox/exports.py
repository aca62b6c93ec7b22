"""Exports: how long one takes, its status, and its JSON as the page prints it."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Final, Literal, Protocol

from attrs import define, field, frozen, validators

from . import chance, page
from .clock import Clock
from .record import Entry
from .request import Request, kind_of
from .segments import PAGE_SEGMENT, Segment

Status = Literal["PENDING", "COMPLETE", "FAILED"]


class DurationLaw(Protocol):
    """How long exports take."""

    def seconds(self, u: float) -> float:
        """The seconds within which the part `u` of all exports ends; `u` is in [0, 1)."""
        ...


@frozen
class Durations:
    """A lognormal law. With ``sigma=0`` all exports take `median` seconds.

    Exports "typically complete within a matter of seconds, but can potentially take up to several
    hours".

    Attributes:
        median: seconds within which half of the exports end.
        sigma: how far durations spread, as of a lognormal law.
        longest: seconds at which longer durations are cut.
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
    aged: float = 0.0  # seconds by which its stamps, and its file, are older

    def status(self, now: float) -> Status:
        """The status at `now`."""
        if now < self.ends_at:
            return "PENDING"
        return "FAILED" if self.fails else "COMPLETE"

    def has_file(self, now: float, lifetime: float) -> bool:
        """Whether a file is stored at `now`, where files are stored for `lifetime` seconds."""
        return self.status(now) == "COMPLETE" and now < self.ends_at - self.aged + lifetime

    def json(self, now: float, clock: Clock, link: Callable[[str, float], str]) -> bytes:
        """The answer to a status request at `now`; `link` signs the link of an export's id."""
        status = self.status(now)
        # "This field will remain null until the export is completed."
        ended = None if status == "PENDING" else clock.stamp(self.ends_at - self.aged)
        filename = link(self.export_id, now) if status == "COMPLETE" else None
        return export_json(self.export_id, self.segment, status, self.started, ended, filename)


class Exports:
    """The exports of an account.

    Attributes:
        failing: segments and attempts whose exports end FAILED.
        expiring: segments and attempts whose files are gone when the export is complete.
    """

    def __init__(self) -> None:
        self._by_id: dict[str, Export] = {}
        self._attempts: dict[str, int] = {}
        self._ends: list[float] = []  # of running exports, a heap
        self.failing: set[tuple[str, int]] = set()
        self.expiring: set[tuple[str, int]] = set()

    def get(self, export_id: str) -> Export | None:
        """The export with this id; None where there is none."""
        return self._by_id.get(export_id)

    def next_of(self, segment_id: str) -> tuple[str, int]:
        """The segment, and the attempt that its next export will be."""
        return segment_id, self._attempts.get(segment_id, 0)

    def add(self, export: Export, *, counted: bool) -> None:
        """An export begins. `counted`: `running` will be asked for."""
        self._by_id[export.export_id] = export
        self._attempts[export.segment.segment_id] = export.attempt + 1
        if counted:
            heapq.heappush(self._ends, export.ends_at)

    def running(self, now: float) -> tuple[int, float]:
        """The number of running exports, and when the next of them ends."""
        while self._ends and self._ends[0] <= now:
            heapq.heappop(self._ends)
        return len(self._ends), self._ends[0] if self._ends else now + 1.0


def entry_of(request: Request, exports: Exports) -> Entry:
    """The record's entry of a request to the API."""
    method, path, now = request.method, request.path, request.now
    kind = kind_of(method, path)
    if kind == "poll":
        export_id = path[len(page.EXPORT_PATH) :]
        export = exports.get(export_id)
        if export is None:
            return Entry(now, "api", method, path, kind, None, export_id)
        known = export.segment.segment_id, export.export_id
        return Entry(now, "api", "GET", export.path, kind, *known)  # shares its strings
    segment_id = request.segment_id if kind == "submit" else None
    return Entry(now, "api", method, path, kind, segment_id)


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
