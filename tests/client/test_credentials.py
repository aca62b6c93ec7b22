"""Credentials and signed links: where they are sent, and where they never show."""

from __future__ import annotations

import base64
import html
import io
import json
import logging
import math
import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from frames import an_export, client_of, given_away

from client.vendor import connected, names_in, told
from segments_async import (
    APIStatusError,
    AuthenticationError,
    BulkExportError,
    ConfigurationError,
    DownloadError,
    NotExported,
    Pacer,
    PermissionDeniedError,
    SegmentsClient,
    SegmentsError,
)
from segments_async._http.redaction import redact_logs
from segments_async._sansio.files import storage_outage
from segments_async.sandbox import (
    API_ORIGIN,
    FREE_ACCESS_TOKEN,
    FREE_API_KEY,
    PAGE_ACCESS_TOKEN,
    PAGE_API_KEY,
    PAGE_EXPORT_ID,
    PAGE_SEGMENT_ID,
    Durations,
    Fault,
    Sandbox,
    SandboxTransport,
)
from segments_async.sandbox.server import SandboxServer

BASIC = base64.b64encode(f"{PAGE_API_KEY}:{PAGE_ACCESS_TOKEN}".encode()).decode()
SECRETS = (PAGE_ACCESS_TOKEN, BASIC, "X-Amz-Signature", "X-Amz-Credential")
FREE: dict[str, Any] = {"api_key": FREE_API_KEY, "access_token": FREE_ACCESS_TOKEN}

Call = Callable[[SegmentsClient, Path], Any]
CALLS: dict[str, Call] = {
    "list": lambda client, _: client.list_segments(),
    "request": lambda client, _: client.request_export(PAGE_SEGMENT_ID),
    "get": lambda client, _: client.get_export("an-export"),
    "wait": lambda client, _: client.wait_for_export("an-export"),
    "export": lambda client, to: client.export(PAGE_SEGMENT_ID, to / "a.csv"),
    "bulk": lambda client, to: client.bulk_export([PAGE_SEGMENT_ID], to / "out"),
    "links": lambda client, _: client.bulk_export([PAGE_SEGMENT_ID], None),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@pytest.mark.alternating
@every_call
async def test_refused_credentials_are_tried_once(call: Call, tmp_path: Path) -> None:
    """A 401 to any call is an AuthenticationError, raised bare after one request."""
    sandbox = Sandbox()
    async with connected(sandbox, access_token="wrong") as client:
        with pytest.raises(AuthenticationError) as caught:
            await call(client, tmp_path)
    assert type(caught.value) is AuthenticationError
    assert [e.status for e in sandbox.record] == [401]


@pytest.mark.alternating
@every_call
async def test_retry_after_on_a_401_is_no_invitation(call: Call, tmp_path: Path) -> None:
    """A request that got a 401 with a Retry-After isn't sent again."""
    sandbox = Sandbox()
    sandbox.inject(Fault.status(401, headers={"retry-after": "1"}))
    async with connected(sandbox) as client:
        with pytest.raises(AuthenticationError) as caught:
            await call(client, tmp_path)
    assert caught.value.retry_after is None
    assert len(sandbox.record) == 1


@pytest.mark.alternating
@every_call
async def test_a_403_says_what_the_page_says(call: Call, tmp_path: Path) -> None:
    """A plan without the Export API is a PermissionDeniedError with the page's advice."""
    sandbox = Sandbox()
    async with connected(sandbox, **FREE) as client:
        with pytest.raises(PermissionDeniedError, match=r"upgrade the account.*support"):
            await call(client, tmp_path)
    assert [e.status for e in sandbox.record] == [403]


@pytest.mark.alternating
async def test_a_refused_run_ends_its_iteration_bare() -> None:
    """The iteration yields the segment that met the 401, and then ends with the error itself."""
    sandbox = Sandbox(segments=5)
    outcomes: list[NotExported] = []
    async with (
        connected(sandbox, access_token="wrong") as client,
        client.open_bulk_export(sandbox.segment_ids, None) as run,
    ):
        with pytest.raises(AuthenticationError) as caught:  # noqa: PT012 (the loop raises)
            async for outcome in run:
                assert isinstance(outcome, NotExported)
                outcomes.append(outcome)
    assert type(caught.value) is AuthenticationError
    assert [o.submitted for o in outcomes] == ["no"]


@pytest.mark.alternating
@pytest.mark.parametrize("segments", [5, 64, 200])
async def test_a_refused_run_sends_nothing_after_the_refusal(segments: int) -> None:
    """After the first 401, no request is sent besides those on the wire: 64 at most."""
    sandbox = Sandbox(segments=segments, latency=1.0)
    async with connected(sandbox, access_token="wrong", pacer=Pacer(rate=math.inf)) as client:
        with pytest.raises(AuthenticationError):
            await client.bulk_export(sandbox.segment_ids, None)
    assert len(sandbox.record) == min(segments, 64)


@pytest.mark.parametrize(
    "pair",
    [
        ("", "token"),
        ("key", ""),
        ("key\n", "token"),
        ("key", "token\n"),
        ("k:y", "token"),
        ("kéy", "token"),
        ("key", "tok\x07en"),
        ("key", " token"),
        (None, "token"),
    ],
)
def test_malformed_credentials_are_refused_unsent(pair: tuple[Any, Any]) -> None:
    """Keys that can't be sent are refused in the constructor, and aren't in the error."""
    with pytest.raises(ConfigurationError) as caught:
        SegmentsClient(*pair)
    assert not any(str(part) in str(caught.value) for part in pair if part and len(part) > 3)


@pytest.mark.parametrize("missing", ["SEGMENTS_API_KEY", "SEGMENTS_ACCESS_TOKEN"])
def test_the_environment_has_to_have_both(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`from_env` names the variable that isn't set."""
    monkeypatch.setenv("SEGMENTS_API_KEY", PAGE_API_KEY)
    monkeypatch.setenv("SEGMENTS_ACCESS_TOKEN", PAGE_ACCESS_TOKEN)
    monkeypatch.delenv(missing)
    with pytest.raises(ConfigurationError, match=missing):
        SegmentsClient.from_env()


@pytest.mark.alternating
async def test_the_environment_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """`from_env` reads credentials and base URL; the vendor accepts such a client."""
    sandbox = Sandbox(api_origin="https://vendor.example")
    monkeypatch.setenv("SEGMENTS_API_KEY", PAGE_API_KEY)
    monkeypatch.setenv("SEGMENTS_ACCESS_TOKEN", PAGE_ACCESS_TOKEN)
    monkeypatch.setenv("SEGMENTS_BASE_URL", "https://vendor.example/")
    async with (
        httpx.AsyncClient(transport=SandboxTransport(sandbox)) as http,
        SegmentsClient.from_env(http_client=http) as client,
    ):
        assert len(await client.list_segments()) == 1
    assert [e.authorized for e in sandbox.record] == [True]


@pytest.mark.parametrize(
    "url",
    [
        "http://vendor.example",
        "http://10.0.0.1",
        "ftp://vendor.example",
        "vendor.example",
        "",
        "https://user:pass@vendor.example",
        "https://vendor.example/?a=b",
        "https://[::1",
        7,
    ],
)
def test_bad_places_are_refused(url: Any) -> None:
    """Plain http beyond loopback, and malformed URLs, are refused in the constructor."""
    with pytest.raises(ConfigurationError):
        SegmentsClient("key", "token", base_url=url)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "[::1]"])
def test_plain_http_on_loopback_needs_nothing(host: str) -> None:
    """A vendor on this machine (the sandbox) is admitted without a warning."""
    client = SegmentsClient("key", "token", base_url=f"http://{host}:8420")
    assert f"http://{host}:8420" in repr(client)


def test_insecure_is_admitted_aloud() -> None:
    """`allow_insecure` admits plain http, and warns at the caller's own line."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        SegmentsClient("key", "token", base_url="http://vendor.example", allow_insecure=True)
    assert [(w.filename, "clear" in str(w.message)) for w in seen] == [(__file__, True)]


class _Recorded(httpx.AsyncBaseTransport):
    """Records where each request went, and whether it had credentials."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self.inner = inner
        self.seen: list[tuple[str, bool]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.seen.append((request.url.host, "authorization" in request.headers))
        return await self.inner.handle_async_request(request)


@pytest.mark.alternating
async def test_credentials_stay_at_the_vendor(tmp_path: Path) -> None:
    """Every request to the API has credentials, and none to the file host has."""
    sandbox = Sandbox(segments=8, rows=5)
    both = _Recorded(SandboxTransport(sandbox))
    async with (
        httpx.AsyncClient(transport=both) as http,
        connected(sandbox, http_client=http, file_http_client=http) as client,
    ):
        report = await client.bulk_export(await client.list_segments(), tmp_path)
    assert len(report.exported) == 8
    assert sandbox.record.credentials_seen_by_files() == []
    assert set(both.seen) == {
        ("query.indicative-prod.mparticle.com", True),
        ("s3.us-east-1.amazonaws.com", False),
    }


@pytest.mark.alternating
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_of_the_api_is_not_followed(status: int) -> None:
    """A redirect isn't followed, even by a caller's client that follows redirects."""
    sandbox = Sandbox()
    sandbox.inject(Fault.status(status, headers={"location": "https://elsewhere.example/x"}))
    seen = _Recorded(SandboxTransport(sandbox))
    async with (
        httpx.AsyncClient(transport=seen, follow_redirects=True) as http,
        connected(sandbox, http_client=http) as client,
    ):
        with pytest.raises(APIStatusError) as caught:
            await client.list_segments()
    assert caught.value.status_code == status
    assert [host for host, _ in seen.seen] == [API_ORIGIN.removeprefix("https://")]


@pytest.mark.alternating
async def test_a_callers_own_authorization_stays_off_the_file_host(tmp_path: Path) -> None:
    """A file client with credentials and cookies of its own sends neither to storage."""
    sandbox = Sandbox(rows=5)
    async with (
        httpx.AsyncClient(
            transport=SandboxTransport(sandbox), auth=("user", "secret"), cookies={"session": "1"}
        ) as http,
        connected(sandbox, file_http_client=http) as client,
    ):
        await client.export(PAGE_SEGMENT_ID, tmp_path / "a.csv")
    assert sandbox.record.credentials_seen_by_files() == []


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[io.StringIO]:
    """All log lines of all levels, formatted, with tracebacks."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(logging.Formatter("%(name)s %(message)s %(args)s"))
    root = logging.getLogger()
    caplog.set_level(logging.DEBUG)
    for name in ("segments_async", "httpx", "httpcore"):
        caplog.set_level(logging.DEBUG, logger=name)
    root.addHandler(handler)
    yield text
    root.removeHandler(handler)


def _troubled(sandbox: Sandbox) -> Sandbox:
    """Exercise a client with refusals, lost answers, broken and refused files."""
    ids = sandbox.segment_ids
    sandbox.inject(Fault.status(429, headers={"retry-after": "1"}))
    sandbox.inject(Fault.status(502, body="<html>bad gateway</html>"), method="GET")
    sandbox.inject(Fault.LOST_AFTER, method="POST", segment_id=ids[1])
    sandbox.inject(Fault.LOST_BEFORE, method="GET", path="export/")
    sandbox.inject(Fault.status(200, body="<html>portal</html>"), method="GET", path="export/")
    sandbox.inject(Fault.cut(100), origin="files")
    sandbox.inject(Fault.status(503), origin="files", segment_id=ids[2])
    sandbox.inject(Fault.status(403, body="Request has expired"), origin="files", skip=3)
    elsewhere = f"{sandbox.files_origin}/moved?X-Amz-Signature=0badc0de"
    sandbox.inject(Fault.status(307, headers={"location": elsewhere}), origin="files", skip=1)
    return sandbox


@pytest.mark.alternating
async def test_no_log_line_has_a_secret(log: io.StringIO, tmp_path: Path) -> None:
    """At DEBUG level a troubled bulk run logs neither credentials nor signed links."""
    sandbox = _troubled(Sandbox(segments=10, rows=5))
    async with connected(sandbox) as client:
        await client.bulk_export(await client.list_segments(), tmp_path)
    assert sandbox.faults_left() == 0
    assert "429 on" in log.getvalue()
    assert [secret for secret in SECRETS if secret in log.getvalue()] == []


@pytest.mark.real_time
async def test_no_log_line_has_a_secret_over_sockets(log: io.StringIO, tmp_path: Path) -> None:
    """The loggers of httpx and httpcore have none either, with redirects of signed links."""
    sandbox = Sandbox(segments=10, rows=5, durations=Durations(median=0.5))
    with SandboxServer(sandbox) as server:
        _troubled(sandbox)
        async with SegmentsClient(
            PAGE_API_KEY, PAGE_ACCESS_TOKEN, base_url=server.base_url
        ) as client:
            await client.bulk_export(await client.list_segments(), tmp_path)
    assert sandbox.faults_left() == 0
    assert "httpcore" in log.getvalue()
    assert [secret for secret in SECRETS if secret in log.getvalue()] == []


LINES = {
    "receive_response_headers.complete return_value=(b'HTTP/1.1', 307, b'x', [(b'L', b'S')])": (
        "receive_response_headers.complete 307"
    ),
    "receive_response_headers.complete return_value=(307, [(b'set-cookie', b'S')])": (
        "receive_response_headers.complete 307"
    ),
    "receive_response_headers.failed exception=RemoteProtocolError(\"illegal line: b'S'\")": (
        "receive_response_headers.failed RemoteProtocolError"
    ),
    "setup_socks5_connection.started stream=x host='h' port=1 auth=(b'u', b'S')": (
        "setup_socks5_connection.started"
    ),
    "connect_tcp.started host='files.example' port=443": (
        "connect_tcp.started host='files.example' port=443"
    ),
}


@pytest.mark.parametrize("package", ["httpcore", "httpcore2"])
@pytest.mark.parametrize("layer", ["connection", "http11", "http2", "proxy", "socks"])
def test_each_layer_of_a_client_tells_no_header(log: io.StringIO, package: str, layer: str) -> None:
    """Log lines have an event's name, its status, and the error's class; of httpx2 too."""
    for line in LINES:
        with redact_logs("https://files.example/..."):
            logging.getLogger(f"{package}.{layer}").debug(line)
    assert log.getvalue().splitlines() == [
        f"{package}.{layer} {line} None" for line in LINES.values()
    ]


@pytest.mark.parametrize("name", ["httpx", "httpx2"])
def test_the_line_of_a_request_is_made_anew(log: io.StringIO, name: str) -> None:
    """Log lines of requests are made anew, without the URL and without the server's reason."""
    with redact_logs("https://files.example/..."):
        logging.getLogger(name).info(
            'HTTP Request: %s %s "%s %d %s"', "GET", httpx.URL(LINK), "HTTP/1.1", 200, "S"
        )
        logging.getLogger(name).info("something new about %s", httpx.URL(LINK))
    assert log.getvalue().splitlines() == [
        f'{name} HTTP Request: GET https://files.example/... "HTTP/1.1 200" None',
        f"{name} HTTP Request: https://files.example/... None",
    ]


LINK = "https://files.example/dl/5ec4e7/a.csv;p=5ec4e7?n='x'&token=5ec4e7#5ec4e7"


@pytest.mark.alternating
async def test_no_part_of_a_link_is_logged(log: io.StringIO, tmp_path: Path) -> None:
    """No path, parameter, query or fragment of a link is logged, of a redirect neither."""

    def storage(request: httpx.Request) -> httpx.Response:
        if "moved" in str(request.url):
            return httpx.Response(200, content=b"a\n", headers={"set-cookie": "5ec4e7"})
        moved = LINK.replace("/dl", "/moved")
        return httpx.Response(
            302, headers={"location": moved}, extensions={"reason_phrase": b"5ec4e7"}
        )

    async with client_of(
        lambda _: httpx.Response(200, json=an_export(LINK)),
        storage,
        file_hosts=["files.example"],
    ) as client:
        await client.download_export(PAGE_EXPORT_ID, tmp_path / "a.csv")
    assert "https://files.example/..." in log.getvalue()
    assert "5ec4e7" not in log.getvalue()


ODD = "ab/cd+ef==&gh?ij<k>"

REPEATED = {
    "as it stands": ODD.encode(),
    "in a URL": quote(ODD).encode(),
    "in a URL, all of it": quote(ODD, safe="").lower().encode(),
    "in HTML": html.escape(ODD).encode(),
    "in JSON": json.dumps(ODD).replace("/", "\\/").encode(),
    "in UTF-16": ODD.encode("utf-16-le"),
    "its pair, as base64url": base64.urlsafe_b64encode(f"key:{ODD}".encode()).rstrip(b"="),
}


@pytest.mark.alternating
@pytest.mark.parametrize("body", REPEATED.values(), ids=list(REPEATED))
async def test_a_page_that_repeats_the_token(body: bytes, log: io.StringIO) -> None:
    """A token in an answer is redacted, however quoted, in bodies and headers."""
    for code in (403, 200, 302):
        headers = {"content-type": f"x/{ODD}", "location": f"https://{ODD}", "x-token": ODD}

        def answer(_: httpx.Request, code: int = code, headers: Any = headers) -> httpx.Response:
            return httpx.Response(code, content=body, headers=headers)

        async with (
            httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http,
            SegmentsClient("key", ODD, http_client=http) as client,
        ):
            with pytest.raises(SegmentsError) as caught:
                await client.get_export(PAGE_EXPORT_ID)
        shown = given_away(caught.value) + log.getvalue()
        assert [form for form in REPEATED.values() if form.decode() in shown] == []
        assert "cd+ef" not in shown.replace("\0", "")


FAULTS = {
    "401": Fault.status(401, body=f"no such user: Basic {BASIC}"),
    "echo": Fault.status(400, body=f"you sent Authorization: Basic {BASIC} to https://a/b?c=d"),
    "pair": Fault.status(400, body=f"can't use {BASIC}"),
    "token": Fault.status(400, body=f"no such token: {PAGE_ACCESS_TOKEN}"),
    "lost": Fault.LOST_AFTER,
    "unreachable": Fault.UNREACHABLE,
    "html": Fault.status(200, body="<html>"),
    "cut": Fault.cut(7),
}


@pytest.mark.alternating
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_no_error_shows_credentials(fault: Fault) -> None:
    """Errors have no credentials in text, facts, causes or pickles, though the answer has."""
    sandbox = Sandbox()
    sandbox.inject(fault, times=5)
    async with connected(sandbox) as client:
        with pytest.raises(SegmentsError) as caught:
            await client.list_segments()
        shown = told(caught.value) + repr(client) + repr(vars(client))
    shown += repr(pickle.dumps(caught.value)) + repr(vars(caught.value.__cause__ or caught.value))
    assert [secret for secret in SECRETS if secret in shown] == []
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), vars(again), again.args) == (
        type(caught.value),
        vars(caught.value),
        caught.value.args,
    )


FILE_FAULTS = {
    "cut": Fault.cut(0),
    "lost": Fault.LOST_AFTER,
    "unreachable": Fault.UNREACHABLE,
    "denied": Fault.status(403, body="<Error>AccessDenied</Error>"),
    "redirect": Fault.status(302, headers={"location": "https://evil.example/?X-Amz-Signature=1"}),
}


@pytest.mark.alternating
@pytest.mark.parametrize("fault", FILE_FAULTS.values(), ids=FILE_FAULTS)
async def test_no_error_shows_a_signed_link(
    fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download that fails says so without the link's query, its causes included."""
    monkeypatch.setattr(storage_outage, "LONGEST_STORAGE_OUTAGE", 1.0)
    sandbox = Sandbox(rows=50)
    sandbox.inject(fault, origin="files", times=99)
    async with connected(sandbox) as client:
        with pytest.raises(DownloadError) as caught:
            await client.export(PAGE_SEGMENT_ID, tmp_path / "a.csv")
    shown = told(caught.value)
    assert [secret for secret in SECRETS if secret in shown] == []
    assert names_in(tmp_path) == []


@pytest.mark.alternating
async def test_no_part_holds_a_signed_link(tmp_path: Path) -> None:
    """The part and sidecar of a download have no link."""
    sandbox = Sandbox(rows=50)
    sandbox.inject(Fault.cut(1000), origin="files")
    sandbox.inject(Fault.status(500), origin="files", times=5)
    async with connected(sandbox) as client:
        with pytest.raises(DownloadError):
            await client.export(PAGE_SEGMENT_ID, tmp_path / "a.csv")
    assert names_in(tmp_path) == ["a.csv.part", "a.csv.part.json"]
    left = "".join((tmp_path / name).read_text() for name in names_in(tmp_path))
    assert [secret for secret in [*SECRETS, "amazonaws"] if secret in left] == []


@pytest.mark.alternating
async def test_a_run_shows_no_secret(tmp_path: Path) -> None:
    """Reprs of outcomes and reports, the manifest, and BulkExportError have none."""
    sandbox = Sandbox(segments=6, rows=5, failed=0.3)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, tmp_path)
        links = await client.bulk_export(sandbox.segment_ids[:1], None)
        with pytest.raises(BulkExportError) as caught:
            report.raise_for_errors()
    shown = repr(report) + repr(links) + told(caught.value)
    shown += (tmp_path / "manifest.jsonl").read_text()
    assert [secret for secret in SECRETS if secret in shown] == []
