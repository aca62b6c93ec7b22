"""Every request that the vendor's side saw, for a test to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Literal

from attrs import define

Kind = Literal["list", "submit", "poll", "root", "openapi", "file", "other"]
Lost = Literal["no", "before", "after"]
Origin = Literal["api", "files"]


@define(eq=False, weakref_slot=False)
class Entry:
    """One request that reached the vendor.

    Times are in the sandbox's seconds. A benchmark has a million entries: so they have slots, share
    their strings with the export, and keep headers for the file origin only.

    Attributes:
        at: when the request arrived.
        origin: ``"api"`` or ``"files"``.
        method: of HTTP.
        path: with its query on the file origin.
        kind: the request's purpose, such as ``"submit"``.
        segment_id: of the request or of its export; None where neither is known.
        export_id: of the request, or of the export that it began; None where there is none.
        ended_at: when the answer had gone out, or its connection broke; None until then.
        status: of the answer; None where there was none.
        acted: whether the vendor did what was asked (of a POST: began an export).
        lost: whether the answer was lost, before or after the vendor acted.
        authorized: whether the request had an Authorization header.
        headers: of a request to the file host; None for the API's.
        sent: bytes of the answer's body that went out.
        number: from 1, in the order of arrival; 0 where the request never arrived.
    """

    at: float
    origin: Origin
    method: str
    path: str
    kind: Kind
    segment_id: str | None = None
    export_id: str | None = None
    ended_at: float | None = None
    status: int | None = None
    acted: bool = False
    lost: Lost = "no"
    authorized: bool = False
    headers: Mapping[str, str] | None = None
    sent: int = 0
    number: int = 0


class Record:
    """Every request, in the order of arrival.

    Reading is safe while a server's thread writes: each method looks at a snapshot.
    """

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._under_way = 0
        self._most_at_once = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.copy())

    def begin(self, entry: Entry) -> None:
        """A request has arrived; `Sandbox` says so."""
        self._entries.append(entry)
        entry.number = len(self._entries)
        if entry.origin == "api":
            self._under_way += 1
            if self._under_way > self._most_at_once:
                self._most_at_once = self._under_way

    def end(self, entry: Entry, now: float) -> None:
        """A request's answer has gone out, or its connection broke; transport or server says so."""
        if entry.ended_at is None:
            entry.ended_at = now
            if entry.origin == "api" and entry.number:
                self._under_way -= 1

    def api(self) -> list[Entry]:
        """Requests to the API."""
        return [e for e in self if e.origin == "api"]

    def files(self) -> list[Entry]:
        """Requests to the file host."""
        return [e for e in self if e.origin == "files"]

    def lists(self) -> list[Entry]:
        """Requests for the list of segments."""
        return [e for e in self if e.kind == "list"]

    def submits(self, segment_id: str | None = None) -> list[Entry]:
        """POSTs for an export, with any result; of one segment, or of all."""
        return [e for e in self if e.kind == "submit" and segment_id in (None, e.segment_id)]

    def polls(self, export_id: str | None = None) -> list[Entry]:
        """Requests for an export's status; of one export, or of all."""
        return [e for e in self if e.kind == "poll" and export_id in (None, e.export_id)]

    def throttled(self) -> list[Entry]:
        """Requests answered 429."""
        return [e for e in self if e.status == 429]

    def exports_per_segment(self) -> Counter[str]:
        """The number of exports of each segment."""
        return Counter(e.segment_id for e in self.submits() if e.acted and e.segment_id)

    def duplicates(self) -> dict[str, int]:
        """Segments with more than one export, and the number of their exports."""
        return {s: made for s, made in self.exports_per_segment().items() if made > 1}

    def under_way(self) -> int:
        """The number of API requests whose answer has not gone out yet."""
        return self._under_way

    def most_at_once(self) -> int:
        """The most API requests without an answer at once."""
        return self._most_at_once

    def highest_rate(self, seconds: float = 1.0) -> int:
        """The most API requests that arrived within any `seconds`."""
        times = sorted(e.at for e in self.api())
        most = first = 0
        for last, at in enumerate(times):
            while times[first] <= at - seconds:
                first += 1
            most = max(most, last - first + 1)
        return most

    def credentials_seen_by_files(self) -> list[Entry]:
        """File requests with an Authorization header or a cookie, which belong to the API alone."""
        secret = {"authorization", "cookie"}
        return [e for e in self.files() if secret.intersection(e.headers or ())]
