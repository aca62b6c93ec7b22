"""An account of the vendor's for one test, which answers every client in the process."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, TypedDict, Unpack

import anyio
import httpx

from segments_async._http.client_options import ClientOptions
from segments_async._http.clients import StandIn, requests_go_to
from segments_async._sansio.api.credentials import authorization
from segments_async.client import ACCESS_TOKEN, API_KEY, SegmentsClient
from segments_async.sandbox import (
    API_ORIGIN,
    FREE_ACCESS_TOKEN,
    FREE_API_KEY,
    PAGE_ACCESS_TOKEN,
    PAGE_API_KEY,
    ContendedLimit,
    DurationLaw,
    Durations,
    Fault,
    FileHost,
    FixedWindow,
    Record,
    Sandbox,
    SandboxTransport,
    TokenBucket,
)
from segments_async.testing.checks import CHECKS, Check

#: The purpose of a request: the list of segments, an export (the POST), its status, or its file.
RequestKind = Literal["list", "submit", "poll", "file"]

#: How long exports take, unless a test says otherwise: short, for tests in real time.
QUICK = Durations(median=0.3, sigma=0.5, longest=2.0)

_REQUESTS: dict[RequestKind, dict[str, Any]] = {
    "list": {"method": "GET", "path": "/segments/list"},
    "submit": {"method": "POST"},
    "poll": {"method": "GET", "path": "/segments/export/"},
    "file": {"origin": "files"},
}


#: The variables that `SegmentsClient.from_env` reads.
ENVIRONMENT = {API_KEY: PAGE_API_KEY, ACCESS_TOKEN: PAGE_ACCESS_TOKEN}

_OWN = authorization(PAGE_API_KEY, PAGE_ACCESS_TOKEN).reveal()
#: An account without the Export API: its requests are answered 403.
_FREE = authorization(FREE_API_KEY, FREE_ACCESS_TOKEN).reveal()


class SandboxOptions(TypedDict, total=False):
    """The options of `segments_async.sandbox.Sandbox`, which says what they mean."""

    segments: int
    rows: int
    seed: int
    durations: DurationLaw
    limit: TokenBucket | FixedWindow | ContendedLimit | None
    retry_after: Literal["seconds", "date"] | None
    max_pending: int | None
    failed: float
    internal_errors: float
    gateway_errors: float
    lost_before: float
    lost_after: float
    latency: float
    file_lifetime: float
    link_lifetime: int
    file_host: FileHost
    epoch: datetime


class HasSegmentId(Protocol):
    """A segment, the client's or the sandbox's."""

    @property
    def segment_id(self) -> str:
        """The vendor's id."""
        ...


class SegmentsSandbox:
    """An account of the vendor's, for one test; the fixture `segments_sandbox`.

    While the test runs, the account answers every request that any `SegmentsClient` of the process
    sends with its own HTTP clients. Nothing is sent over the network. A client may have any address
    and any credentials: those of the fixture are in the environment for ``from_env()``. A client
    that the test's code made with an `http_client` of its own uses that one.

    Args:
        **options: of :class:`segments_async.sandbox.Sandbox`, such as ``segments=20``.

    Attributes:
        sandbox: the account and its files, for what this class has no method for.
    """

    def __init__(self, **options: Unpack[SandboxOptions]) -> None:
        defaults: SandboxOptions = {"rows": 10, "durations": QUICK, "epoch": datetime.now(UTC)}
        defaults.update(options)
        self.sandbox: Sandbox = Sandbox(**defaults)
        self._transport = SandboxTransport(self.sandbox)
        self._api = _AnyAddress(self._transport)
        self._allowed: set[str] = set()

    def __repr__(self) -> str:
        count = len(self.sandbox.segment_ids)
        return f"<SegmentsSandbox: {count} segments, {len(self.record)} requests>"

    @property
    def record(self) -> Record:
        """Every request that the vendor saw."""
        return self.sandbox.record

    @property
    def segment_ids(self) -> list[str]:
        """The ids of the account's segments, in the order of the list."""
        return self.sandbox.segment_ids

    def client(self, **keywords: Unpack[ClientOptions]) -> SegmentsClient:
        """A client of the account; the keywords are the constructor's."""
        return SegmentsClient(PAGE_API_KEY, PAGE_ACCESS_TOKEN, **keywords)

    def content(self, segment: HasSegmentId | str, attempt: int = 0) -> bytes:
        """The whole file of a segment's export; `attempt` 0 is the segment's first."""
        return self.sandbox.content(_known(self.sandbox, segment), attempt)

    # ----------------------------------------------------------------- what goes wrong

    def throttle(self, times: int = 1, *, retry_after: int | None = None) -> None:
        """Answer the next `times` API requests with 429.

        Args:
            times: number of requests.
            retry_after: whole seconds for the answers' Retry-After; None: they have none.
        """
        headers = {} if retry_after is None else {"retry-after": str(retry_after)}
        self.sandbox.inject(Fault.status(429, headers=headers), times=times)

    def limit(self, rate: float, *, burst: float = 10) -> None:
        """From now on the account grants `rate` requests/s, after a burst of `burst`."""
        self.sandbox.set_limit(TokenBucket(rate, burst))

    def lose_answer(
        self,
        of: RequestKind = "submit",
        *,
        segment: HasSegmentId | str | None = None,
        times: int = 1,
        acted: bool = True,
    ) -> None:
        """Break the connection before a byte of the next answers has come.

        Args:
            of: the requests whose answers are lost.
            segment: the one segment that is concerned; None: the next requests of any.
            times: number of answers.
            acted: whether the vendor has done what was asked: of a submit, an export runs.
        """
        fault = Fault.LOST_AFTER if acted else Fault.LOST_BEFORE
        self._inject(fault, of, segment=segment, times=times)

    def internal_error(
        self,
        of: RequestKind = "submit",
        *,
        segment: HasSegmentId | str | None = None,
        times: int = 1,
    ) -> None:
        """Answer the next requests of a kind with 500, for which the vendor opens a ticket."""
        self._inject(Fault.status(500), of, segment=segment, times=times)

    def fail(self, *segments: HasSegmentId | str) -> None:
        """End the next export of each of these segments as FAILED."""
        for segment in segments:
            self.sandbox.fail_next(_known(self.sandbox, segment))

    def expire(self, *segments: HasSegmentId | str) -> None:
        """Let the file of the next export of each segment be gone, as after 48 hours."""
        for segment in segments:
            self.sandbox.expire_next(_known(self.sandbox, segment))

    def away(self, seconds: float, *, status: int | None = 503) -> None:
        """For `seconds`, a gateway answers in the vendor's place.

        Args:
            seconds: from now on, in the time of the test's event loop.
            status: of the gateway's answers; None: no connection can be made.
        """
        self._away(seconds, status, origin="api")

    def storage_away(self, seconds: float, *, status: int | None = 503) -> None:
        """For `seconds`, a gateway answers in the place of storage; see `away`."""
        self._away(seconds, status, origin="files")

    def accept_only(self, api_key: str, access_token: str) -> None:
        """From now on answer other credentials than these with 401."""
        self._api.accepted = authorization(api_key, access_token).reveal()

    # ----------------------------------------------------------------- what is checked

    def allow(self, *checks: Check) -> None:
        """Switch off a check of the test's end, by its name (`checks.CHECKS`)."""
        unknown = sorted(set(checks) - set(CHECKS))
        if unknown:
            raise ValueError(f"no such check: {', '.join(unknown)}; there are: {', '.join(CHECKS)}")
        self._allowed.update(checks)

    def problems(self) -> list[str]:
        """What the vendor saw and shouldn't have, each in a sentence that names its check."""
        return [
            f"{name}: {problem}"
            for name, check in CHECKS.items()
            if name not in self._allowed
            for problem in check(self.sandbox)
        ]

    # ----------------------------------------------------------------- the stand-in for the network

    @contextlib.contextmanager
    def answering(self) -> Generator[SegmentsSandbox]:
        """During the block, the account answers every client in the process."""
        api = httpx.AsyncClient(transport=self._api)
        files = httpx.AsyncClient(transport=self._transport)
        with requests_go_to(StandIn(api=api, files=files)):
            yield self

    def _inject(
        self, fault: Fault, of: RequestKind, *, segment: HasSegmentId | str | None, times: int
    ) -> None:
        if of not in _REQUESTS:
            raise ValueError(f"no such request: {of!r}; there are: {', '.join(_REQUESTS)}")
        segment_id = None if segment is None else _known(self.sandbox, segment)
        self.sandbox.inject(fault, segment_id=segment_id, times=times, **_REQUESTS[of])

    def _away(self, seconds: float, status: int | None, *, origin: Literal["api", "files"]) -> None:
        fault = Fault.UNREACHABLE if status is None else Fault.status(status)
        now = _now(self._transport)
        self.sandbox.inject(fault, origin=origin, since=now, until=now + seconds)


class _AnyAddress(httpx.AsyncBaseTransport):
    """Sends every request to the account's API, whichever address its client was given."""

    def __init__(self, account: SandboxTransport) -> None:
        self._account = account
        #: The one Authorization header that is accepted; None: every one.
        self.accepted: str | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode("ascii")
        headers = request.headers.copy()
        headers["authorization"] = self._authorized(headers.get("authorization", ""))
        headers["host"] = httpx.URL(API_ORIGIN).host
        redirected = httpx.Request(
            request.method,
            API_ORIGIN + path[max(0, path.find("/service/v1/")) :],
            headers=headers,
            content=await request.aread(),
            extensions=request.extensions,
        )
        return await self._account.handle_async_request(redirected)

    def _authorized(self, given: str) -> str:
        """The Authorization header that the sandbox gets for the one that a client sent."""
        accepted = given == self.accepted or (self.accepted is None and given != _FREE)
        return _OWN if accepted else given if given == _FREE else "Basic"


def _known(account: Sandbox, segment: HasSegmentId | str) -> str:
    """The segment's id, if the account has the segment."""
    segment_id = segment if isinstance(segment, str) else segment.segment_id
    if segment_id not in account.segment_ids:
        raise ValueError(f"the account has no segment {segment_id!r}")
    return segment_id


def _now(transport: SandboxTransport) -> float:
    """The account's time; outside of an event loop, the latest one that a request brought."""
    try:
        return transport.now()
    except anyio.NoEventLoopError:  # a test that isn't async, or a fixture
        return transport.sandbox.timeline.last
