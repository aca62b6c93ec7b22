"""What the vendor's side saw: every request, and answers to a test's questions about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Literal

from attrs import define

Kind = Literal["list", "submit", "poll", "root", "file", "other"]
Lost = Literal["no", "before", "after"]
Origin = Literal["api", "files"]


@define(eq=False, weakref_slot=False)
class Entry:
    """One request that reached the vendor.

    Times are the sandbox's seconds. A benchmark keeps a million of these: slots, strings shared
    with the export they are about, and headers for the file origin only.
    """

    at: float  # when it reached the vendor
    origin: Origin
    method: str
    path: str  # with its query on the file origin
    kind: Kind
    segment_id: str | None = None  # asked for, or the export's; None where neither is known
    export_id: str | None = None  # asked for, or made
    ended_at: float | None = None  # when the answer had gone out, or broke
    status: int | None = None  # what the vendor answered; None: it never came to that
    acted: bool = False  # the vendor did what was asked (POST: made an export)
    lost: Lost = "no"  # before or after acting
    authorized: bool = False
    headers: Mapping[str, str] | None = None
    sent: int = 0  # bytes of the answer's body that went out
    number: int = 0  # from 1, in order of arrival; 0: it never arrived


class Record:
    """Every request in order of arrival.

    Reading is safe while a server's thread writes: each question looks at a snapshot.
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
        """A request arrived (the model's)."""
        self._entries.append(entry)
        entry.number = len(self._entries)
        if entry.origin == "api":
            self._under_way += 1
            if self._under_way > self._most_at_once:
                self._most_at_once = self._under_way

    def end(self, entry: Entry, now: float) -> None:
        """Its answer has gone out, or broke (the transport's and the server's); once is enough."""
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
        """POSTs for an export, whatever came of them; of one segment, or of all."""
        return [e for e in self if e.kind == "submit" and segment_id in (None, e.segment_id)]

    def polls(self, export_id: str | None = None) -> list[Entry]:
        """Requests for an export's status; of one export, or of all."""
        return [e for e in self if e.kind == "poll" and export_id in (None, e.export_id)]

    def throttled(self) -> list[Entry]:
        """Requests answered 429."""
        return [e for e in self if e.status == 429]

    def exports_per_segment(self) -> Counter[str]:
        """How many exports were made of each segment."""
        return Counter(e.segment_id for e in self.submits() if e.acted and e.segment_id)

    def duplicates(self) -> dict[str, int]:
        """Segments of which more than one export was made, and how many."""
        return {s: made for s, made in self.exports_per_segment().items() if made > 1}

    def under_way(self) -> int:
        """API requests that arrived and whose answer has not gone out."""
        return self._under_way

    def most_at_once(self) -> int:
        """The most API requests under way at once."""
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
        """File requests that carried what belongs to the API: Authorization, or a cookie."""
        secret = {"authorization", "cookie"}
        return [e for e in self.files() if secret.intersection(e.headers or ())]
