"""Every public error, walked frame by frame: no signed link, no credential, no answer's header."""

from __future__ import annotations

import errno
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from frames import BASIC, LINK, SIGNATURE, an_export, client_of, given_away

import segments_async.errors as errors
from segments_async import (
    BulkExportError,
    ConfigurationError,
    Export,
    SegmentsClient,
    SegmentsError,
)
from segments_async._http.clients import OwnClients
from segments_async._sansio.api.decoding import read_status
from segments_async._sansio.api.wire import ApiAnswer, ApiRequest
from segments_async.sandbox import (
    PAGE_ACCESS_TOKEN,
    PAGE_API_KEY,
    PAGE_EXPORT_ID,
    PAGE_SEGMENT_ID,
)

COOKIE = "a-session-of-a-load-balancer"
HEADERS = {"location": LINK, "set-cookie": f"lb={COOKIE}"}
SECRETS = (PAGE_ACCESS_TOKEN, BASIC, SIGNATURE, "X-Amz-Signature", COOKIE)

abandoned_body = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")


def shown_by(error: BaseException) -> list[str]:
    text = given_away(error)
    return [line for line in text.splitlines() if any(secret in line for secret in SECRETS)]


def status(code: int, **more: Any) -> Callable[[httpx.Request], httpx.Response]:
    return lambda _: httpx.Response(
        code, headers=HEADERS | more.get("headers", {}), text=f"Basic {BASIC} {LINK} {COOKIE[:3]}"
    )


def says(**changed: Any) -> Callable[[httpx.Request], httpx.Response]:
    return lambda _: httpx.Response(
        200, headers=HEADERS, json=an_export(**{"filename": LINK} | changed)
    )


def broken(_: httpx.Request) -> httpx.Response:
    raise httpx.ReadError("broken", request=httpx.Request("GET", LINK))


def unreadable_header(_: httpx.Request) -> httpx.Response:
    line = f"illegal header line: bytearray(b'Set-Cookie: {COOKIE}')"
    raise httpx.RemoteProtocolError(line, request=httpx.Request("GET", LINK))


def pending(request: httpx.Request) -> httpx.Response:
    return says(status="PENDING", filename=None)(request)


COMPLETE = says()

Act = Callable[[SegmentsClient, Path], Awaitable[Any]]


async def get(client: SegmentsClient, _: Path) -> Any:
    await client.get_export(PAGE_EXPORT_ID)


async def wait(client: SegmentsClient, _: Path) -> Any:
    await client.wait_for_export(PAGE_EXPORT_ID, timeout=3600)


async def ask(client: SegmentsClient, _: Path) -> Any:
    await client.request_export(PAGE_SEGMENT_ID)


async def export(client: SegmentsClient, path: Path) -> Any:
    await client.export(PAGE_SEGMENT_ID, path / "a.csv", timeout=30)


async def download(client: SegmentsClient, path: Path) -> Any:
    await client.download_export(await client.get_export(PAGE_EXPORT_ID), path / "a.csv")


async def stream(client: SegmentsClient, _: Path) -> Any:
    found = await client.get_export(PAGE_EXPORT_ID)
    async with client.open_export(found) as body:
        async for _row in body.rows():
            pass


async def hurry(client: SegmentsClient, path: Path) -> Any:
    await client.get_export(PAGE_EXPORT_ID, timeout=5)


async def bulk(client: SegmentsClient, path: Path) -> Any:
    report = await client.bulk_export([PAGE_SEGMENT_ID], path / "out", timeout=600)
    report.raise_for_errors()


async def stored(client: SegmentsClient, _: Path) -> Any:
    # A port of this machine at which nothing listens any more.
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": SIGNATURE,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        await client.bulk_export([PAGE_SEGMENT_ID], "s3://bucket/out")


async def journaled(client: SegmentsClient, path: Path) -> Any:
    (path / "j.db").write_bytes(b"no database at all" * 100)
    await client.bulk_export([PAGE_SEGMENT_ID], path / "out", journal=path / "j.db")


async def closed(client: SegmentsClient, path: Path) -> Any:
    found = await client.get_export(PAGE_EXPORT_ID)
    await client.aclose()
    await client.download_export(found, path / "a.csv")


def refused(*then: Any) -> Callable[[httpx.Request], httpx.Response]:
    """An answer of storage with a signed link in every place that can have one."""
    code, text = then
    return lambda _: httpx.Response(code, headers=HEADERS, text=text)


def coded(
    code: int, coding: str, body: bytes = LINK.encode()
) -> Callable[[httpx.Request], httpx.Response]:
    return lambda _: httpx.Response(
        code, headers=HEADERS | {"content-encoding": coding}, stream=httpx.ByteStream(body)
    )


OLD = says(startTime="2016-04-09T14:45:07.000Z")
EXPIRED = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
GONE = "<Error><Code>NoSuchKey</Code><Message>none</Message></Error>"

CASES: dict[str, tuple[str, Any, Any, Act]] = {
    "connection": ("APIConnectionError", broken, broken, get),
    "a header": ("APIConnectionError", unreadable_header, broken, get),
    "no time": ("APITimeoutError", status(429, headers={"retry-after": "60"}), broken, hurry),
    "redirect": ("APIStatusError", status(302), broken, get),
    "401": ("AuthenticationError", status(401), broken, get),
    "403": ("PermissionDeniedError", status(403), broken, ask),
    "404": ("NotFoundError", status(404), broken, wait),
    "429": ("RateLimitedError", status(429, headers={"retry-after": "1"}), broken, get),
    "500": ("ServerError", status(500), broken, get),
    "decode": ("DecodeError", says(exportId=[LINK]), broken, get),
    "compressed": ("DecodeError", coded(200, "br"), broken, get),
    "compressed redirect": ("APIStatusError", coded(302, "br"), broken, get),
    "failed": ("ExportFailedError", says(status="FAILED"), broken, export),
    "timeout": ("ExportTimeoutError", pending, broken, export),
    "unknown": ("SubmitUnknownError", coded(200, "br"), broken, ask),
    "lost": ("SubmitUnknownError", broken, broken, ask),
    "not submitted": (
        "NotSubmittedError",
        status(429, headers={"retry-after": "3600"}),
        broken,
        export,
    ),
    "expired": (
        "ExportExpiredError",
        OLD,
        lambda _: httpx.Response(
            404, headers=HEADERS | {"date": "Wed, 25 Nov 2026 10:00:00 GMT"}, text=GONE
        ),
        download,
    ),
    "expired link": ("DownloadError", COMPLETE, refused(403, EXPIRED), download),
    "denied": ("DownloadError", COMPLETE, refused(403, f"<Error>{LINK}</Error>"), download),
    "away": ("DownloadError", COMPLETE, refused(503, LINK), download),
    "broken file": ("DownloadError", COMPLETE, broken, download),
    "broken stream": ("DownloadError", COMPLETE, broken, stream),
    "unreadable": ("DownloadError", COMPLETE, unreadable_header, stream),
    "coding": ("DownloadError", COMPLETE, coded(200, "zstd"), stream),
    "gzip": ("DownloadError", COMPLETE, coded(200, "gzip", b"none"), download),
    "refused": ("DownloadError", says(filename=LINK.replace("s3.", "evil.")), broken, download),
    "malformed": ("DownloadError", says(filename=LINK.replace("b.", "u:p@b.")), broken, stream),
    "not a URL": ("DownloadError", says(filename=LINK.replace("b.", "[")), broken, download),
    "s3": ("DownloadError", says(filename=f"s3://B_/{LINK}"), broken, download),
    "loop": (
        "DownloadError",
        COMPLETE,
        lambda _: httpx.Response(302, headers=HEADERS),
        download,
    ),
    "elsewhere": (
        "DownloadError",
        COMPLETE,
        lambda _: httpx.Response(302, headers={"location": f"//[{LINK}"}),
        stream,
    ),
    "bulk": ("BulkExportError", COMPLETE, refused(403, LINK), bulk),
    "bulk unknown": ("BulkExportError", coded(200, "br"), broken, bulk),
    "journal": ("JournalError", COMPLETE, broken, journaled),
    "destination": ("DestinationError", COMPLETE, broken, stored),
    "closed": ("ConfigurationError", COMPLETE, broken, closed),
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@abandoned_body
@pytest.mark.alternating
@pytest.mark.parametrize("name", CASES)
async def test_no_frame_shows_a_secret(name: str, tmp_path: Path) -> None:
    """No frame, text or attribute of an error or of its causes has a secret."""
    expected, api, files, act = CASES[name]
    async with client_of(api, files) as client:
        with pytest.raises(SegmentsError) as caught:
            await act(client, tmp_path)
    assert type(caught.value).__name__ == expected
    assert shown_by(caught.value) == []
    if isinstance(caught.value, BulkExportError):
        for outcome in caught.value.report.not_exported:
            assert shown_by(outcome.error) == []


def test_every_public_error_is_walked() -> None:
    """Each public error has a case here.

    Left out are the roots, which nothing raises, and the one that knows no link: it is raised
    before there is any.
    """
    public = {
        name
        for name, found in vars(errors).items()
        if isinstance(found, type) and issubclass(found, SegmentsError)
    }
    walked = {expected for expected, *_ in CASES.values()}
    assert public - walked == {"SegmentsError", "APIError", "ExportError", "TargetExistsError"}


# --------------------------------------------------------------------- configuration

BAD: dict[str, dict[str, Any]] = {
    "no URL": {"base_url": "ftp://x"},
    "in the clear": {"base_url": "http://proxy.internal"},
    "timeout": {"request_timeout": 0},
    "downloads": {"downloads": 0},
    "hosts": {"file_hosts": "one.example"},
    "context": {"ssl_context": False},
    "pacing": {"poll_share": 2.0},
    "pending": {"max_pending": 0},
    "key": {"api_key": "a:b"},
    "newline": {"access_token": PAGE_ACCESS_TOKEN + "\n"},
    "not a text": {"access_token": PAGE_ACCESS_TOKEN.encode()},
}


@pytest.mark.parametrize("bad", BAD.values(), ids=list(BAD))
def test_no_frame_of_the_constructor_shows_the_token(bad: dict[str, Any]) -> None:
    """With any malformed argument, the credentials included, no frame has the token."""
    given: dict[str, Any] = {"api_key": PAGE_API_KEY, "access_token": PAGE_ACCESS_TOKEN}
    with pytest.raises((ConfigurationError, ValueError)) as caught:
        SegmentsClient(**given | bad)
    assert shown_by(caught.value) == []


@pytest.mark.parametrize(
    "changed",
    [
        {"SEGMENTS_BASE_URL": "http://proxy.internal"},
        {"SEGMENTS_BASE_URL": "https://x/?y"},
        {"SEGMENTS_ACCESS_TOKEN": PAGE_ACCESS_TOKEN + "\n"},
        {"SEGMENTS_API_KEY": "a:b"},
        {"SEGMENTS_API_KEY": ""},
    ],
    ids=["in the clear", "no URL", "newline", "colon", "missing"],
)
def test_no_frame_of_from_env_shows_the_token(
    changed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of `from_env`, not even the calling frame has the token."""
    environment = {"SEGMENTS_API_KEY": PAGE_API_KEY, "SEGMENTS_ACCESS_TOKEN": PAGE_ACCESS_TOKEN}
    for name, value in (environment | changed).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        SegmentsClient.from_env()
    assert shown_by(caught.value) == []


def an_export_of(link: str) -> Export:
    return read_status(
        ApiRequest("GET", "/x"),
        ApiAnswer(200, {}, json.dumps(an_export(link)).encode()),
        export_id=PAGE_EXPORT_ID,
    )


def no_certificates(patch: pytest.MonkeyPatch) -> None:
    patch.setenv("SSL_CERT_FILE", "/nowhere.pem")


def no_proxy(patch: pytest.MonkeyPatch) -> None:
    patch.setenv("HTTPS_PROXY", "socks9://x")


def no_descriptor(patch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    patch.setattr(OwnClients, "borrow", fail)


def no_name(patch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    patch.setattr(anyio, "getaddrinfo", fail)


@pytest.mark.parametrize("how", [no_certificates, no_proxy, no_descriptor, no_name, None])
@pytest.mark.parametrize("act", ["download_export", "open_export"])
async def test_no_frame_shows_a_link_where_there_is_no_client_for_storage(
    how: Callable[[pytest.MonkeyPatch], None] | None,
    act: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """No frame has a link if the library's own client is closed, or can't be made."""
    found = an_export_of(LINK)
    client = SegmentsClient(PAGE_API_KEY, PAGE_ACCESS_TOKEN)
    if how is None:
        await client.aclose()
    else:
        how(monkeypatch)
    with pytest.raises((SegmentsError, OSError)) as caught:  # noqa: PT012 (one of the two)
        if act == "download_export":
            await client.download_export(found, tmp_path / "a.csv")
        async with client.open_export(found):
            pass
    assert shown_by(caught.value) == []
    await client.aclose()


# --------------------------------------------------------------------- timeouts of the caller's

#: As httpcore and h11 hold a request's head, in a file that is not the tests'.
SILENT = """
async def answer(self, request):
    head = [*request.headers.raw, str(request.url)]
    await self.sleep(float("inf"))
"""


class Silent(httpx.AsyncBaseTransport):
    """Has the request's head in a frame, and never answers."""

    sleep = staticmethod(anyio.sleep)

    def __init__(self) -> None:
        names: dict[str, Any] = {}
        exec(compile(SILENT, "h11.py", "exec"), {}, names)
        self.answer = names["answer"]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        found: httpx.Response = await self.answer(self, request)
        return found


class SilentBody(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"a\n"
        await Silent().answer(Silent(), httpx.Request("GET", LINK))


@pytest.mark.parametrize("which", ["api", "head", "body"])
async def test_no_frame_of_a_timeout_shows_a_secret(which: str, tmp_path: Path) -> None:
    """A caller's own timeout shows the frames that it cancelled: they have no secret."""

    def body(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-length": "10"}, stream=SilentBody())

    files = httpx.MockTransport(body) if which == "body" else Silent()
    api = Silent() if which == "api" else httpx.MockTransport(COMPLETE)
    async with (
        httpx.AsyncClient(transport=api) as api_http,
        httpx.AsyncClient(transport=files) as files_http,
        SegmentsClient(
            PAGE_API_KEY, PAGE_ACCESS_TOKEN, http_client=api_http, file_http_client=files_http
        ) as client,
    ):
        cancelled: list[BaseException] = []
        with anyio.move_on_after(0.5):
            try:
                await client.download_export(PAGE_EXPORT_ID, tmp_path / "a.csv")
            except BaseException as exc:
                cancelled.append(exc)
                raise
        assert "client.py" in given_away(cancelled[0])
        assert shown_by(cancelled[0]) == []
