"""The vendor's side, from the vendor's page. It has no clock and no I/O: time is an argument.

*Assumed* marks all that the page doesn't say, here and in docs/sandbox.md.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final, Literal

from attrs import evolve

from . import chance, page
from .answer import Answer, Reply
from .clock import Clock, Timeline
from .content import Content
from .description import openapi_json
from .exports import PAGE_EXPORT, DurationLaw, Durations, Export, Exports, entry_of, export_json
from .faults import Fault, Rule, Script, Shares
from .limits import ContendedLimit, FixedWindow, TokenBucket
from .links import Signer, s3_error
from .record import Entry, Origin, Record
from .request import JSON, Request, error, has_access, misdirected, throttled
from .segments import Segment, list_json, make_segments
from .storage import FileHost, serve

_LATENCY_SIGMA: Final = 0.35
_DURATIONS: Final = Durations()
_LIKE_S3: Final = FileHost()
_EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)


class Sandbox:
    """An account at the vendor, and the files of its exports.

    Answers depend on the options, on `seed` and on the order of the calls. `now` is in seconds
    since `epoch`, and never goes back.

    Args:
        segments: number of segments, the page's first; 0 for none.
        rows: of each file; 0 for the header alone.
        seed: of all that is drawn.
        durations: how long exports take.
        limit: of the account's requests; None for no limit.
        retry_after: the form of Retry-After with each 429; None for no Retry-After.
        max_pending: exports running at once; None for any number.
        failed: share of exports that end FAILED.
        internal_errors: share of API requests answered 500.
        gateway_errors: share answered 502, 503 or 504.
        lost_before: share whose answer is lost before the vendor acted.
        lost_after: share whose answer is lost after the vendor acted.
        latency: median seconds of an API request.
        file_lifetime: seconds for which a file is stored.
        link_lifetime: seconds for which a link opens.
        file_host: abilities of the file host.
        epoch: the wall time at `now` 0.
        api_origin: of the in-process transport.
        files_origin: of the in-process transport.

    Attributes:
        record: every request that arrived.

    Raises:
        ValueError: an option that can't be.
    """

    def __init__(
        self,
        *,
        segments: int = 1,
        rows: int = 1000,
        seed: int = 0,
        durations: DurationLaw = _DURATIONS,
        limit: TokenBucket | FixedWindow | ContendedLimit | None = None,
        retry_after: Literal["seconds", "date"] | None = None,
        max_pending: int | None = None,
        failed: float = 0.0,
        internal_errors: float = 0.0,
        gateway_errors: float = 0.0,
        lost_before: float = 0.0,
        lost_after: float = 0.0,
        latency: float = 0.0,
        file_lifetime: float = 48 * 3600.0,
        link_lifetime: int = 48 * 3600,
        file_host: FileHost = _LIKE_S3,
        epoch: datetime = _EPOCH,
        api_origin: str = page.API_ORIGIN,
        files_origin: str = page.FILES_ORIGIN,
    ) -> None:
        if min(segments, rows, latency, file_lifetime, link_lifetime, max_pending or 0) < 0:
            raise ValueError("counts and seconds are not negative")
        if not 0 <= failed <= 1:
            raise ValueError("failed is a share, from 0 to 1")
        self.rows = rows
        self.seed = seed
        self.durations = durations
        self.limit = limit
        self.retry_after: Literal["seconds", "date"] | None = retry_after
        self.max_pending = max_pending
        self.failed = failed
        self.latency = latency
        self.file_lifetime = file_lifetime
        self.link_lifetime = link_lifetime
        self.file_host = file_host
        self.api_origin = api_origin
        self.files_origin = files_origin
        self.clock: Clock = Clock(epoch)
        self.timeline: Timeline = Timeline()
        self.record: Record = Record()
        self._segments = {s.segment_id: s for s in make_segments(segments, seed)}
        self._list: bytes | None = None
        self._exports = Exports()
        self._replaced: dict[tuple[str, int], tuple[int, float]] = {}  # how often, and when
        self._counter = limit.counter() if limit is not None else None
        shares = Shares(internal_errors, gateway_errors, lost_before, lost_after)
        self._shares = None if shares == Shares(0, 0, 0, 0) else shares
        self._fault_chance = random.Random(f"{seed} faults")
        self._latency_chance = random.Random(f"{seed} latency")
        self._script = Script()
        self._signer = Signer.of(seed)

    # For tests: a client can't see or change these

    @property
    def epoch(self) -> datetime:
        """The wall time at `now` 0."""
        return self.clock.epoch

    @property
    def segments(self) -> list[Segment]:
        """The account's segments, in the order of the list."""
        return list(self._segments.values())

    @property
    def segment_ids(self) -> list[str]:
        """The ids of the account's segments, in the order of the list."""
        return list(self._segments)

    def content(self, segment_id: str, attempt: int = 0) -> bytes:
        """The whole file of a segment's export; `attempt` 0 is the segment's first."""
        return b"".join(self._content(segment_id, attempt).read())

    def sha256(self, segment_id: str, attempt: int = 0) -> str:
        """The SHA-256 of that file, in hexadecimal."""
        return self._content(segment_id, attempt).sha256()

    def duration(self, segment_id: str, attempt: int = 0) -> float:
        """The seconds that an export of the segment takes."""
        return self.durations.seconds(chance.uniform(self.seed, "seconds", segment_id, attempt))

    def fails(self, segment_id: str, attempt: int = 0) -> bool:
        """Whether an export of the segment ends FAILED."""
        if (segment_id, attempt) in self._exports.failing:
            return True
        share = self.failed
        return share > 0 and chance.uniform(self.seed, "failed", segment_id, attempt) < share

    def export_id(self, segment_id: str, attempt: int = 0) -> str:
        """The id of an export of the segment."""
        return chance.uuid(self.seed, "export", segment_id, attempt)

    def link(self, export_id: str, now: float) -> str:
        """A link to an export's file, signed at `now`."""
        path = f"{page.FILES_FOLDER}{export_id}.csv"
        query = self._signer.query(path, self.clock.amz_date(now), self.link_lifetime)
        return f"{self.files_origin}{path}?{query}"

    def refresh(self, segment_id: str, now: float) -> None:
        """Refresh the segment, as a Dynamic one is daily: its `lastRun` becomes `now`."""
        stamp = self.clock.stamp(now)
        self._segments[segment_id] = evolve(self._segments[segment_id], last_run=stamp)
        self._list = None

    def replace_file(self, segment_id: str, now: float, attempt: int = 0) -> None:
        """Put another file, of the same length, in the place of an export's file."""
        times, _ = self._replaced.get((segment_id, attempt), (0, 0.0))
        self._replaced[segment_id, attempt] = times + 1, now

    def fail_next(self, segment_id: str) -> None:
        """The segment's next export ends FAILED."""
        self._exports.failing.add(self._exports.next_of(segment_id))

    def expire_next(self, segment_id: str) -> None:
        """The segment's next export is so old when it is complete that its file is gone."""
        self._exports.expiring.add(self._exports.next_of(segment_id))

    def set_limit(self, limit: TokenBucket | FixedWindow | ContendedLimit | None) -> None:
        """From now on the account has this limit; None: none."""
        self.limit = limit
        self._counter = limit.counter() if limit is not None else None

    def inject(
        self,
        fault: Fault,
        *,
        method: str | None = None,
        path: str | None = None,
        segment_id: str | None = None,
        origin: Origin = "api",
        times: float | None = None,
        skip: int = 0,
        since: float = -math.inf,
        until: float = math.inf,
    ) -> None:
        """Script a fault for the next `times` matching requests, after the first `skip` of them.

        None matches any `method`, `path` or `segment_id`. `path` is a regular expression that is
        looked for anywhere in a request's path. Only requests that arrive at `since` or later and
        before `until` match, in the sandbox's seconds. Without `times`, one request gets the fault,
        or with an `until` all of them.

        A request that gets 401, 403 or the limiter's 429 uses up no fault but `Fault.UNREACHABLE`.
        """
        pattern = re.compile(path) if path is not None else None
        if times is None:
            times = 1 if until == math.inf else math.inf
        self._script.add(
            Rule(fault, origin, method, pattern, segment_id, times, skip, since, until)
        )

    def clear_faults(self) -> None:
        """Forget the scripted faults that are left."""
        self._script.clear()

    def faults_left(self) -> int:
        """The number of scripted faults that are not used up."""
        return len(self._script)

    def draw_latency(self) -> float:
        """Draw the seconds that the next request to the API takes, there and back."""
        if not self.latency:
            return 0.0
        return self.latency * math.exp(_LATENCY_SIGMA * self._latency_chance.gauss(0.0, 1.0))

    # The API

    def answer(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, now: float
    ) -> Answer:
        """The API's answer to a request that arrives at `now`."""
        request = Request(method, path, headers, body, now)
        entry = entry_of(request, self._exports)
        rule = self._script.rule_for(entry) if self._script else None
        if rule is not None and rule.fault.unreachable:
            if self._script.take(rule) is not None:
                return Answer(0, {}, b"", entry, unreachable=True)
            rule = None
        self.record.begin(entry)
        if entry.kind == "openapi":  # not the vendor's: no account, no limit, no fault
            entry.acted = True
            return self._sent(entry, Reply(200, openapi_json(self.api_origin), JSON))
        refused = self._refusal(entry, request)
        if refused is not None:
            return self._sent(entry, refused)
        fault = self._script.take(rule) if rule is not None else self._drawn_fault()
        return self._with_fault(fault, entry, lambda: self._acted(entry, request))

    def _with_fault(self, fault: Fault | None, entry: Entry, act: Callable[[], Reply]) -> Answer:
        """The answer, with the fault if there is one. `act` carries the request out."""
        if fault is None:
            return self._sent(entry, act())
        reply = fault.alter(act() if fault.acts else Reply(0))
        return fault.spoil(self._sent(entry, reply))

    def _refusal(self, entry: Entry, request: Request) -> Reply | None:
        """401, 403 or 429, in this order: an unknown sender uses nothing of the budget."""
        pro = has_access(request.headers)
        if pro is None:
            challenge = {"www-authenticate": 'Basic realm="Analytics"'}  # RFC 9110, 11.6.1
            return error(401, "Unauthorized: could not validate your credentials", challenge)
        entry.authorized = True
        if not pro:
            return error(403, "Forbidden: the project does not have access to the Export API")
        if self._counter is None:
            return None
        wait = self._counter.admit(request.now)
        return None if wait is None else self._throttled(wait, request.now)

    def _throttled(self, wait: float, now: float) -> Reply:
        return throttled(self.retry_after, wait, self.clock.second_after(now + wait))

    def _drawn_fault(self) -> Fault | None:
        return None if self._shares is None else self._shares.draw(self._fault_chance)

    def _acted(self, entry: Entry, request: Request) -> Reply:
        """Carry the request out."""
        match entry.kind:
            case "poll":
                return self._polled(entry, request.now)
            case "submit":
                return self._submitted(entry, request)
            case "list":
                return self._listed(entry)
            case "root":  # the page's first curl: "should have a 200 OK status"
                entry.acted = True
                return Reply(200, b"{}", JSON)
            case _:
                return misdirected(entry.path)

    def _listed(self, entry: Entry) -> Reply:
        entry.acted = True
        if self._list is None:
            self._list = list_json(self.segments)
        return Reply(200, self._list, JSON)

    def _polled(self, entry: Entry, now: float) -> Reply:
        if entry.export_id == page.PAGE_EXPORT_ID:
            entry.acted, entry.segment_id = True, page.PAGE_SEGMENT_ID
            return Reply(200, PAGE_EXPORT, JSON)
        export = self._exports.get(entry.export_id or "")
        if export is None:
            return error(404, "No such export")  # assumed
        entry.acted = True
        return Reply(200, export.json(now, self.clock, self.link), JSON)

    def _submitted(self, entry: Entry, request: Request) -> Reply:
        malformed = request.malformed()
        if malformed is not None:
            return malformed
        segment = self._segments.get(entry.segment_id or "")
        if segment is None:
            return error(404, "No such segment")  # assumed
        if self.max_pending is not None:
            running, room_at = self._exports.running(request.now)
            if running >= self.max_pending:  # assumed
                return self._throttled(room_at - request.now, request.now)
        export = self._new_export(segment, request.now)
        entry.acted, entry.export_id = True, export.export_id
        # PENDING even of an export that takes no time: the page answers "the newly created export".
        body = export_json(export.export_id, segment, "PENDING", export.started, None, None)
        return Reply(200, body, JSON)

    def _new_export(self, segment: Segment, now: float) -> Export:
        key = segment_id, attempt = self._exports.next_of(segment.segment_id)
        export_id = self.export_id(segment_id, attempt)
        aged = self.file_lifetime + 3600.0 if key in self._exports.expiring else 0.0
        export = Export(
            export_id,
            path=page.EXPORT_PATH + export_id,
            segment=segment,
            attempt=attempt,
            started=self.clock.stamp(now - aged),
            ends_at=now + self.duration(segment_id, attempt),
            fails=self.fails(segment_id, attempt),
            aged=aged,
        )
        self._exports.add(export, counted=self.max_pending is not None)
        return export

    # The file host

    def answer_file(self, method: str, path: str, headers: Mapping[str, str], now: float) -> Answer:
        """The file host's answer to a request that arrives at `now`; `path` has its query."""
        entry = Entry(now, "files", method, path, "file")
        entry.headers = {name.lower(): value for name, value in headers.items()}
        key = path.partition("?")[0]
        export = self._exports.get(key.removeprefix(page.FILES_FOLDER).removesuffix(".csv"))
        if export is not None:
            entry.segment_id, entry.export_id = export.segment.segment_id, export.export_id
        rule = self._script.rule_for(entry)
        fault = self._script.take(rule) if rule is not None else None
        if fault is not None and fault.unreachable:
            return Answer(0, {}, b"", entry, unreachable=True)
        self.record.begin(entry)
        return self._with_fault(fault, entry, lambda: self._fetched(entry, export, now))

    def _fetched(self, entry: Entry, export: Export | None, now: float) -> Reply:
        reply = self._file_refusal(entry, now) or self._stored(entry, export, now)
        entry.acted = reply.status < 300
        return evolve(reply, body=b"") if entry.method == "HEAD" else reply

    def _file_refusal(self, entry: Entry, now: float) -> Reply | None:
        if "authorization" in (entry.headers or ()):  # S3's own words
            return s3_error(400, "InvalidArgument", "Only one auth mechanism allowed")
        key, _, query = entry.path.partition("?")
        refused = self._signer.refusal(entry.method, key, query, self.clock.moment(now))
        entry.authorized = refused is None
        return refused

    def _stored(self, entry: Entry, export: Export | None, now: float) -> Reply:
        """The file, as long as it "will remain in Amazon"."""
        if export is None or not export.has_file(now, self.file_lifetime):
            return s3_error(404, "NoSuchKey", "The specified key does not exist.")
        key = export.segment.segment_id, export.attempt
        _, stored_at = self._replaced.get(key, (0, export.ends_at))
        stored = self.clock.moment(stored_at)
        return serve(self._content(*key), stored, entry.headers or {}, self.file_host)

    def _content(self, segment_id: str, attempt: int) -> Content:
        version, _ = self._replaced.get((segment_id, attempt), (0, 0.0))
        return Content.of(self.seed, segment_id, attempt, self.rows, version)

    def _sent(self, entry: Entry, reply: Reply) -> Answer:
        rate = self.file_host.rate if entry.origin == "files" else None
        return Answer.whole(entry, reply, self.clock.http_date(entry.at), rate)
