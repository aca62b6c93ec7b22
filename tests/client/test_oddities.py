"""An oddity of one export is one outcome: readable parts are used, other segments exported."""

from __future__ import annotations

import gzip
import json
import logging
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from client.vendor import connected, is_whole
from segments_async import (
    ConfigurationError,
    DecodeError,
    DownloadError,
    Exported,
    ExportTimeoutError,
    NotExported,
    Segment,
    SegmentsClient,
    SubmitUnknownError,
)
from segments_async._sansio.api.wire import STATUS_CAP
from segments_async.sandbox import (
    API_ORIGIN,
    PAGE_ACCESS_TOKEN,
    PAGE_API_KEY,
    PAGE_EXPORT_ID,
    PAGE_SEGMENT_ID,
    Durations,
    Fault,
    Sandbox,
    SandboxTransport,
    TokenBucket,
)

pytestmark = pytest.mark.alternating

POST: dict[str, Any] = {"method": "POST"}
POLL: dict[str, Any] = {"method": "GET", "path": "export/"}


def wrapped(body: bytes) -> bytes:
    return json.dumps({"data": json.loads(body)}).encode()


def respelt(body: bytes, **changes: Callable[[str], str]) -> bytes:
    answer = json.loads(body)
    return json.dumps(
        answer | {key: change(answer[key]) for key, change in changes.items()}
    ).encode()


def beside_another(body: bytes) -> bytes:
    """A list of two answers. The answer to a POST stays alone, since its export has no known id."""
    answer = json.loads(body)
    if answer["status"] == "PENDING":
        return body
    return json.dumps([answer | {"exportId": "another"}, answer]).encode()


def without_segment(body: bytes) -> bytes:
    answer = json.loads(body)
    del answer["segment"]
    return json.dumps(answer).encode()


#: What a vendor may answer to a POST that it has acted on, or to a poll.
ODD_ANSWERS = {
    "startTime null": Fault.fields(startTime=None),
    "startTime a number": Fault.fields(startTime=1554821107000),
    "startTime empty": Fault.fields(startTime=""),
    "startTime a leap second": Fault.fields(startTime="2026-01-01T23:59:60Z"),
    "endTime empty": Fault.fields(endTime=""),
    "lastRun empty": Fault.fields(segment={"lastRun": ""}),
    "a segment without a name": Fault.fields(segment={"name": None}),
    "a segment's project a number": Fault.fields(segment={"projectId": 7}),
    "segment null": Fault.fields(segment=None),
    "no segment": Fault.changed(without_segment),
    "a list of one": Fault.changed(lambda body: b"[" + body + b"]"),
    "an envelope": Fault.changed(wrapped),
    "an envelope with a status": Fault.changed(
        lambda body: b'{"status": "success", "data": ' + body + b', "errors": []}'
    ),
    "envelopes": Fault.changed(lambda body: b'{"data": {"exports": [' + body + b"]}}"),
    "one of two": Fault.changed(beside_another),
    "white space around the id": Fault.changed(
        lambda body: respelt(body, exportId=lambda told: f" {told}\n")
    ),
    "the id in upper case": Fault.changed(
        lambda body: body if b"PENDING" in body else respelt(body, exportId=str.upper)
    ),
    "a name in Latin-1": Fault.changed(
        lambda body: body.replace(b'"name": "', b'"name": "M\xfcnchen ')
    ),
    "a bare newline in a name": Fault.changed(
        lambda body: body.replace(b'"name": "', b'"name": "\n')
    ),
    "a number of 5 000 digits": Fault.changed(
        lambda body: b'{"users": ' + b"9" * 5000 + b"," + body[1:]
    ),
    "something after it": Fault.changed(lambda body: body + b"\n<!-- served by web7 -->"),
    "encoded twice": Fault.changed(lambda body: json.dumps(body.decode()).encode()),
    "gzip without a header": Fault.changed(gzip.compress),
    "a byte order mark": Fault.changed(lambda body: b"\xef\xbb\xbf" + body),
}


@pytest.mark.parametrize("way", [POST, POLL], ids=["POST", "poll"])
@pytest.mark.parametrize("fault", ODD_ANSWERS.values(), ids=ODD_ANSWERS)
async def test_an_odd_field_costs_nothing(
    fault: Fault, way: dict[str, Any], tmp_path: Path
) -> None:
    """An id or a link beside an odd field is used: the export is polled and fetched."""
    sandbox = Sandbox(segments=3, rows=5)
    sandbox.inject(fault, **way, times=1000)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, tmp_path, timeout=300)
    assert report.ok, [str(o.error) for o in report.not_exported]
    assert all(is_whole(sandbox, o.file.path, o.segment_id) for o in report.exported)
    assert len(sandbox.record.submits()) == 3


class Endless(SandboxTransport):
    """Answers whose body comes whole, and whose end never comes."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        if request.url.host != httpx.URL(API_ORIGIN).host:
            return response
        body = await response.aread()
        headers = {k: v for k, v in response.headers.items() if k != "content-length"}

        async def parts() -> AsyncIterator[bytes]:
            yield body[:20]
            yield body[20:]
            await anyio.sleep_forever()

        return httpx.Response(response.status_code, headers=headers, content=parts())


@pytest.mark.parametrize("way", [POST, POLL], ids=["POST", "poll"])
async def test_an_answer_that_lacks_nothing_but_its_end_is_used(
    way: dict[str, Any], tmp_path: Path
) -> None:
    """A connection that breaks behind the JSON loses no export's id, and no link.

    Servers leave out the last chunk, or announce more bytes than they send.
    """
    sandbox = Sandbox(segments=3, rows=5)
    sandbox.inject(Fault.content_length(5000), **way, times=1000)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, tmp_path, timeout=300)
    assert report.ok, [str(o.error) for o in report.not_exported]
    assert len(sandbox.record.submits()) == 3


async def test_an_answer_whose_end_never_comes_is_used_when_its_time_is_over() -> None:
    """After `request_timeout` the JSON that came counts, and the POST isn't called unknown."""
    async with (
        httpx.AsyncClient(transport=Endless(sandbox := Sandbox(segments=3))) as http,
        connected(sandbox, http_client=http, request_timeout=5.0) as client,
    ):
        assert (await client.bulk_export(sandbox.segment_ids, None)).ok
    assert len(sandbox.record.submits()) == 3


async def test_half_an_id_is_none() -> None:
    """An answer that breaks within its JSON is unknown, as one that never came."""
    sandbox = Sandbox()
    sandbox.inject(Fault.cut(60), **POST)
    async with connected(sandbox) as client:
        with pytest.raises(SubmitUnknownError):
            await client.request_export(PAGE_SEGMENT_ID)


@pytest.mark.parametrize("fault", ODD_ANSWERS.values(), ids=ODD_ANSWERS)
async def test_single_calls_keep_what_came(fault: Fault, tmp_path: Path) -> None:
    """`request_export` returns the id, and `wait_for_export` the link, beside odd fields."""
    sandbox = Sandbox(rows=5)
    sandbox.inject(fault, times=1000)
    async with connected(sandbox) as client:
        requested = await client.request_export(sandbox.segment_ids[0])
        complete = await client.wait_for_export(requested.export_id, timeout=300)
        file = await client.download_export(complete, tmp_path / "a.csv")
    assert requested.export_id == sandbox.export_id(sandbox.segment_ids[0])
    assert is_whole(sandbox, file.path, sandbox.segment_ids[0])


@pytest.mark.parametrize(
    "status", ["Complete", "complete", "COMPLETED", "DONE", " COMPLETE ", None]
)
async def test_a_status_with_a_link_is_complete(status: str | None, tmp_path: Path) -> None:
    """Any status with a link is complete: only finished exports have a link."""
    sandbox = Sandbox(segments=2, rows=5, durations=Durations(median=1, sigma=0))

    def change(body: bytes) -> bytes:
        answer = json.loads(body)
        return json.dumps(answer | ({"status": status} if answer["filename"] else {})).encode()

    sandbox.inject(Fault.changed(change), **POLL, times=10**6)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, tmp_path, timeout=60)
    assert report.ok


@pytest.mark.parametrize("export_id", ["a.b", "../list", "a b", "é", "https://x.s3/k?sig=5ec4e7"])
async def test_an_id_that_cant_be_asked_about_is_told(export_id: str, tmp_path: Path) -> None:
    """An id that can't go into a URL is in the outcome and the manifest; no second POST."""
    sandbox = Sandbox(segments=3, rows=5)
    odd = sandbox.segment_ids[1]
    sandbox.inject(Fault.fields(exportId=export_id), **POST, segment_id=odd)
    for _ in range(2):
        async with connected(sandbox) as client:
            report = await client.bulk_export(
                sandbox.segment_ids, tmp_path / "out", journal=tmp_path / "runs.db", run="night"
            )
        assert len(report.exported) == 2
        (outcome,) = report.not_exported
        assert isinstance(outcome.error, SubmitUnknownError)
        assert (outcome.submitted, outcome.resumable) == ("yes", False)
        assert outcome.export is not None
        if "sig" not in export_id:
            assert outcome.export.export_id == export_id
    assert len(sandbox.record.submits(odd)) == 1
    assert "5ec4e7" not in (tmp_path / "out" / "manifest.jsonl").read_text()


async def test_ids_that_cant_be_asked_about_hold_submits(tmp_path: Path) -> None:
    """Where no export can be asked about, few are requested: submits wait behind a probe."""
    sandbox = Sandbox(segments=60, rows=5)
    sandbox.inject(Fault.fields(exportId="a.b"), **POST, times=1000, until=600)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, tmp_path)
    assert len(report.exported) >= 45
    assert all(outcome.submitted == "yes" for outcome in report.not_exported)
    assert sandbox.record.duplicates() == {}


@pytest.mark.parametrize("status", [202, 204])
async def test_a_poll_without_a_body_is_not_yet_over(status: int, tmp_path: Path) -> None:
    """202 and 204 to a poll delay that export alone: no other request waits."""
    sandbox = Sandbox(segments=30, rows=5, durations=Durations(median=1, sigma=0))
    sandbox.inject(Fault.status(status, body=b""), **POLL, times=1000, until=60)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, tmp_path, timeout=300)
    assert report.ok
    assert max(entry.at for entry in sandbox.record.submits()) < 10


async def test_polls_without_a_body_make_no_outage_longer(tmp_path: Path) -> None:
    """A list, not another poll, shows that the vendor is back where polls are answered 204."""
    sandbox = Sandbox(segments=200, rows=5, limit=TokenBucket(5, 5))
    sandbox.inject(Fault.status(503, body=b"<html>"), since=5, until=40)
    sandbox.inject(Fault.status(204, body=b""), **POLL, times=10**6, until=1200)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, tmp_path)
    assert len(report.exported) >= 198
    assert max(entry.at for entry in sandbox.record.submits()) < 300
    assert sandbox.record.duplicates() == {}


async def test_a_reason_that_polls_had_is_in_the_timeout(caplog: pytest.LogCaptureFixture) -> None:
    """The timeout of an export whose polls were never readable has the reason, as a warning has."""
    sandbox = Sandbox(segments=1, durations=Durations(median=1, sigma=0))
    sandbox.inject(Fault.fields(status=7, filename=None), **POLL, times=10**6)
    async with connected(sandbox) as client:
        with caplog.at_level(logging.WARNING, logger="segments_async"):
            report = await client.bulk_export(sandbox.segment_ids, None, timeout=600)
            with pytest.raises(ExportTimeoutError, match=r"\$\.status"):
                await client.wait_for_export(sandbox.export_id(sandbox.segment_ids[0]), timeout=60)
    (outcome,) = report.not_exported
    assert isinstance(outcome.error, ExportTimeoutError)
    assert "expected a string, found int at $.status" in str(outcome.error)
    assert outcome.error.__cause__ is not None
    told = [r for r in caplog.records if "$.status" in r.getMessage()]
    assert 1 <= len(told) <= 2


# --------------------------------------------------------------------- links


def relinked(change: Any) -> Fault:
    def changed(body: bytes) -> bytes:
        answer = json.loads(body)
        if answer["filename"]:
            answer["filename"] = change(answer["filename"])
        return json.dumps(answer).encode()

    return Fault.changed(changed)


MALFORMED = {
    "no URL": lambda link: "somewhere",
    "a bracket": lambda link: "https://[bad/",
    "a port": lambda link: "https://x.s3.amazonaws.com:99999/a",
    "a newline": lambda link: link[:30] + "\n" + link[30:],
    "a user": lambda link: link.replace("://", "://user:pw@"),
    "no host": lambda link: "https:///a",
    "a host with a space": lambda link: "https://a b.s3.amazonaws.com/a",
    "a backslash": lambda link: "https://x.s3.amazonaws.com\\@evil.example/",
    "an s3 bucket": lambda link: "s3://A_B/key",
    "an s3 key": lambda link: "s3://upload-bucket/",
}


@pytest.mark.parametrize("change", MALFORMED.values(), ids=MALFORMED)
async def test_a_malformed_link_is_one_outcome(change: Any, tmp_path: Path) -> None:
    """A malformed link is that export's outcome: all others are submitted and exported."""
    sandbox = Sandbox(segments=30, rows=2, latency=0.05)
    odd = sandbox.segment_ids[0]
    sandbox.inject(relinked(change), **POLL, segment_id=odd, times=10**6)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, tmp_path)
    assert len(report.exported) == 29
    (outcome,) = report.not_exported
    assert outcome.segment_id == odd
    assert isinstance(outcome.error, DownloadError)
    assert (outcome.error.reason, outcome.error.by_policy) == ("link_refused", False)


async def test_the_first_link_alone_stops_nobody(tmp_path: Path) -> None:
    """A foreign host in the first link of a run is the outcome of that export alone."""
    sandbox = Sandbox(
        segments=40, rows=2, durations=Durations(median=1, sigma=0), limit=TokenBucket(2, 1)
    )
    odd = sandbox.segment_ids[0]
    foreign = relinked(lambda link: link.replace("amazonaws.com", "example.org"))
    sandbox.inject(foreign, **POLL, segment_id=odd, times=10**6)
    async with connected(sandbox, poll_share=1.0) as client:
        report = await client.bulk_export(
            sandbox.segment_ids, tmp_path, expected_seconds={odd: 100.0}
        )
    assert [o.segment_id for o in report.not_exported] == [odd]


async def test_a_refused_link_among_admitted_ones_is_one_outcome(tmp_path: Path) -> None:
    """After a file was fetched, a foreign host in another link affects its own export alone."""
    sandbox = Sandbox(segments=30, rows=2, latency=0.05)
    odd = sandbox.segment_ids[0]
    foreign = relinked(lambda link: link.replace("amazonaws.com", "example.org"))
    sandbox.inject(foreign, **POLL, segment_id=odd, times=10**6)
    async with connected(sandbox, poll_share=1.0) as client:
        await client.bulk_export(sandbox.segment_ids[1:5], tmp_path / "first")
        async with client.open_bulk_export(
            sandbox.segment_ids[5:], tmp_path, expected_seconds={odd: 0.1}
        ) as run:
            assert (await run.report()).ok
        report = await client.bulk_export(
            [*sandbox.segment_ids[1:5], odd], tmp_path / "second", expected_seconds={odd: 0.1}
        )
    assert [o.segment_id for o in report.not_exported] == [odd]
    assert isinstance(report.not_exported[0].error, DownloadError)


QUOTABLE = {
    "a space": ("My Segment.csv", "My%20Segment.csv"),
    "an umlaut": ("Müller.csv", "M%C3%BCller.csv"),
    "quotes": ('"a" <b>.csv', "%22a%22%20%3Cb%3E.csv"),
    "what is quoted already": ("a%20b.csv", "a%20b.csv"),
    "white space around it": (" \n", ""),
}


@pytest.mark.parametrize(("text", "sent"), QUOTABLE.values(), ids=QUOTABLE)
async def test_a_link_is_quoted_as_browsers_do(text: str, sent: str, tmp_path: Path) -> None:
    """Characters that a URL can't hold are quoted, and white space around a link is dropped."""
    asked: list[bytes] = []

    def storage(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.raw_path)
        return httpx.Response(200, content=b"user_id\n1\n")

    sandbox = Sandbox()
    link = f"https://x.s3.amazonaws.com/path/{text}"
    sandbox.inject(relinked(lambda _: link), **POLL, times=10**6)
    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(storage)) as files,
        connected(sandbox, file_http_client=files) as client,
    ):
        await client.export(sandbox.segment_ids[0], tmp_path / "a.csv")
    assert asked == [f"/path/{sent}".encode()]


# --------------------------------------------------------------------- the vendor's own ids


@pytest.mark.parametrize(
    "segment_id", ["a.b", "a:b", "../x", "a b", "", "x" * 200, "nul\x00", "é\ud800"]
)
async def test_a_segments_odd_id_is_its_outcome(segment_id: str, tmp_path: Path) -> None:
    """An id of the vendor's list that can't be sent is that segment's outcome."""
    sandbox = Sandbox(segments=3, rows=2)
    for session in range(2):
        async with connected(sandbox) as client:
            segments = [*await client.list_segments(), Segment(segment_id, "odd")]
            async with client.open_bulk_export(
                segments, tmp_path / "out", journal=tmp_path / "runs.db", run="night"
            ) as run:
                outcomes = [outcome async for outcome in run]
        assert sum(isinstance(o, Exported) for o in outcomes) == 3, session
        (odd,) = [o for o in outcomes if isinstance(o, NotExported)]
        assert isinstance(odd.error, ConfigurationError)
        assert (odd.submitted, odd.resumable) == ("no", False)
    assert len(sandbox.record.submits()) == 3


async def test_a_callers_odd_id_is_a_mistake() -> None:
    """A caller's string that can't be an id is refused before anything is sent."""
    sandbox = Sandbox(segments=3)
    async with connected(sandbox) as client:
        with pytest.raises(ConfigurationError):
            client.open_bulk_export([*sandbox.segment_ids, "a.b"], None)
    assert len(sandbox.record) == 0


def coded(header: str, encode: Callable[[bytes], bytes]) -> httpx.MockTransport:
    """A vendor whose every answer has this Content-Encoding, and a body in it."""
    sandbox = Sandbox()

    def vendor(request: httpx.Request) -> httpx.Response:
        answer = sandbox.answer(
            request.method, request.url.path, request.headers, request.content, 0.0
        )
        assert isinstance(answer.body, bytes)
        headers = {"content-encoding": header}
        stream = httpx.ByteStream(encode(answer.body))
        return httpx.Response(answer.status, headers=headers, stream=stream)

    return httpx.MockTransport(vendor)


CODED = {
    **{name: (name, bytes) for name in ("utf-8", "none", "", "binary", "aws-chunked", "identity")},
    "gzip": ("gzip", gzip.compress),
    "x-gzip, aws-chunked": ("x-gzip, aws-chunked", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "gzip, decoded on the way": ("gzip", bytes),
    "br, decoded on the way": ("br", bytes),
    "deflate, decoded on the way": ("deflate", bytes),
    "gzip without its end": ("gzip", lambda body: gzip.compress(body)[:-8]),
}


@pytest.mark.parametrize(("header", "encode"), CODED.values(), ids=CODED)
async def test_an_answer_is_read_in_what_coding_it_comes(
    header: str, encode: Callable[[bytes], bytes]
) -> None:
    """The id is read from a compressed answer, and from one with an unknown coding."""
    async with (
        httpx.AsyncClient(transport=coded(header, encode)) as http,
        SegmentsClient(
            PAGE_API_KEY, PAGE_ACCESS_TOKEN, base_url=API_ORIGIN, http_client=http
        ) as client,
    ):
        export = await client.request_export(PAGE_SEGMENT_ID)
    assert export.export_id == Sandbox().export_id(PAGE_SEGMENT_ID)


async def test_a_bomb_is_refused() -> None:
    """A compressed answer larger than any real one is refused."""
    bomb = gzip.compress(b" " * (STATUS_CAP + 1))
    async with (
        httpx.AsyncClient(transport=coded("gzip", lambda _: bomb)) as http,
        SegmentsClient(
            PAGE_API_KEY, PAGE_ACCESS_TOKEN, base_url=API_ORIGIN, http_client=http
        ) as client,
    ):
        with pytest.raises(DecodeError):
            await client.get_export(PAGE_EXPORT_ID)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda told: {"segments": told, "errors": [], "links": [{"rel": "self"}]},
        lambda told: {"segments": told, "next": None, "hasMore": "false", "last": True},
        lambda told: {"segments": told, "_links": {"next": {"href": None}}},
        lambda told: {"segments": told, "nextUpdate": "2026-11-28", "next_run": 1},
        lambda told: {"data": {"segments": told}},
        lambda told: {"status": "success", "data": {"segments": told, "next": None}},
    ],
    ids=["beside others", "last page", "empty link", "times", "deeper", "beside a status"],
)
async def test_a_list_is_found_in_its_envelope(
    wrap: Callable[[object], object], caplog: pytest.LogCaptureFixture
) -> None:
    """The list of segments is found beside other lists, or one level deeper. It is whole."""
    sandbox = Sandbox(segments=3)
    change = Fault.changed(lambda body: json.dumps(wrap(json.loads(body))).encode())
    sandbox.inject(change, path="list")
    async with connected(sandbox) as client:
        listed = await client.list_segments()
    assert [segment.segment_id for segment in listed] == sandbox.segment_ids
    assert caplog.records == []


@pytest.mark.parametrize(
    "beside",
    [
        {"next": "https://example.com/list?page=2"},
        {"paging": {"nextPageToken": "x"}},
        {"hasMore": True},
        {"last": False, "totalPages": 2},
        {"links": {"@odata.nextLink": "x"}},
    ],
    ids=lambda beside: next(iter(beside)),
)
async def test_a_list_that_is_a_page_of_several_is_told_of(
    beside: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    """A list that goes on elsewhere costs one warning: a run of all segments would miss some."""
    sandbox = Sandbox(segments=3)
    change = Fault.changed(
        lambda body: json.dumps({"segments": json.loads(body), **beside}).encode()
    )
    sandbox.inject(change, path="list")
    async with connected(sandbox) as client:
        listed = await client.list_segments()
    assert [segment.segment_id for segment in listed] == sandbox.segment_ids
    (record,) = caplog.records
    assert "only the first 3 segments are listed" in record.getMessage()


async def test_an_id_beside_another_segment_is_told() -> None:
    """An id beside another segment's isn't used, and is in the error for a person to ask about."""
    sandbox = Sandbox(segments=2)
    sandbox.inject(Fault.fields(segment={"segmentId": "another"}), **POST)
    async with connected(sandbox) as client:
        with pytest.raises(SubmitUnknownError) as caught:
            await client.request_export(sandbox.segment_ids[0])
    assert sandbox.export_id(sandbox.segment_ids[0]) in str(caught.value)


async def test_unknown_statuses_are_told_of_without_secrets_and_not_for_ever(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Warnings of unknown statuses are redacted, and limited in number."""
    polls = iter(range(10**6))

    def change(body: bytes) -> bytes:
        status = f"{next(polls)} % https://x.s3.amazonaws.com/a?X-Amz-Signature=s3cret"
        return json.dumps(json.loads(body) | {"status": status, "filename": None}).encode()

    sandbox = Sandbox(segments=1, durations=Durations(median=1000, sigma=0))
    sandbox.inject(Fault.changed(change), **POLL, until=600.0)
    async with connected(sandbox) as client:
        await client.bulk_export(sandbox.segment_ids, None)
    told = [r.getMessage() for r in caplog.records if "unknown export status" in r.getMessage()]
    assert 1 <= len(told) <= 20
    assert not any("s3cret" in text for text in told)
