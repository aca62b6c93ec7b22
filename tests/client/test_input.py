"""Bad input, from the caller and from the vendor."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from client.vendor import EXPORT, STEADY, connected, names_in
from segments_async import (
    ConfigurationError,
    DecodeError,
    Exported,
    NotExported,
    NotFoundError,
    OutputFormat,
    Pacer,
    SegmentsClient,
    SubmitUnknownError,
)
from segments_async._sansio.api.wire import STATUS_CAP
from segments_async.sandbox import (
    PAGE_ACCESS_TOKEN,
    PAGE_API_KEY,
    PAGE_EXPORT_ID,
    PAGE_SEGMENT_ID,
    Fault,
    Sandbox,
)

pytestmark = pytest.mark.alternating

BAD_IDS = ["", ".", "..", "a/b", "a?b", "a#b", "a b", "a%2fb", "é", "a\n", "a" * 129, None, 7]
#: httpx's generators of a body that isn't read to its end can't be closed from outside.
abandoned_body = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
BAD_SECONDS = [math.nan, 0, -1.0, -math.inf]


@pytest.mark.parametrize("bad", BAD_IDS)
async def test_ids_that_could_leave_their_place_are_refused(bad: Any, tmp_path: Path) -> None:
    """Every operation refuses a malformed id before anything is sent."""
    sandbox = Sandbox()
    async with connected(sandbox) as client:
        for call in (
            client.request_export,
            client.get_export,
            client.wait_for_export,
            lambda i: client.export(i, tmp_path / "a.csv"),
            lambda i: client.download_export(i, tmp_path / "a.csv"),
            lambda i: client.bulk_export([PAGE_SEGMENT_ID, i], tmp_path / "out"),
            lambda i: client.open_export(i).__aenter__(),
        ):
            with pytest.raises(ConfigurationError, match="not the id of"):
                await call(bad)
    assert len(sandbox.record) == 0
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("seconds", BAD_SECONDS)
async def test_senseless_seconds_are_refused(seconds: float, tmp_path: Path) -> None:
    """NaN, zero and negative times are refused before anything is sent."""
    sandbox = Sandbox()
    one = [PAGE_SEGMENT_ID]
    async with connected(sandbox) as client:
        for call in (
            lambda: client.wait_for_export(PAGE_EXPORT_ID, timeout=seconds),
            lambda: client.export(PAGE_SEGMENT_ID, tmp_path / "a.csv", timeout=seconds),
            lambda: client.bulk_export(one, None, timeout=seconds),
            lambda: client.bulk_export(one, None, export_timeout=seconds),
            lambda: client.bulk_export(one, None, expected_seconds={PAGE_SEGMENT_ID: seconds}),
        ):
            with pytest.raises(ConfigurationError):
                await call()
    assert len(sandbox.record) == 0


@pytest.mark.parametrize(
    "options",
    [{"request_timeout": seconds} for seconds in BAD_SECONDS]
    + [{"poll_share": share} for share in (math.nan, -0.1, 1.1)]
    + [{"max_pending": 0}, {"downloads": 0}, {"file_hosts": "*.example.com"}],
)
def test_senseless_options_are_refused(options: dict[str, Any]) -> None:
    """The constructor refuses impossible numbers, and a string in place of a list of hosts."""
    with pytest.raises(ConfigurationError):
        SegmentsClient("key", "token", **options)


@pytest.mark.parametrize("option", ["http_client", "file_http_client"])
def test_a_synchronous_client_is_refused(option: str) -> None:
    """The constructor refuses clients that can't be awaited, and those of other packages."""
    with httpx.Client() as synchronous:
        for client in (synchronous, object()):
            options: dict[str, Any] = {option: client}
            with pytest.raises(ConfigurationError, match=rf"^{option}: an httpx.AsyncClient, not "):
                SegmentsClient("key", "token", **options)


@pytest.mark.parametrize("name", [20261127, date(2026, 11, 27), b"night"])
async def test_a_runs_name_is_a_string(name: Any, tmp_path: Path) -> None:
    """A date isn't made a name by itself: it is refused, and nothing is sent."""
    sandbox = Sandbox()
    async with connected(sandbox) as client:
        for shared in (False, True):
            with pytest.raises(ConfigurationError, match="a run's name is a string, not"):
                await client.bulk_export(
                    sandbox.segment_ids, None, journal=tmp_path / "j.db", run=name, shared=shared
                )
    assert len(sandbox.record) == 0


@pytest.mark.parametrize("rate", BAD_SECONDS)
def test_senseless_rates_are_refused(rate: float) -> None:
    """A pacer needs a rate above zero."""
    with pytest.raises(ConfigurationError):
        Pacer(rate=rate)


async def test_a_segment_given_twice_is_exported_once(tmp_path: Path) -> None:
    """A segment given as a segment and as an id has one POST, one outcome, and its name."""
    sandbox = Sandbox(segments=2, rows=5)
    async with connected(sandbox) as client:
        first, second = await client.list_segments()
        given = [first.segment_id, first, second, first, second.segment_id]
        report = await client.bulk_export(given, tmp_path)
    assert sorted(o.segment_id for o in report.exported) == sorted(sandbox.segment_ids)
    assert len(sandbox.record.submits()) == 2
    assert all(
        "-" in o.file.path.stem and o.file.path.stem != o.segment_id for o in report.exported
    )


async def test_a_generator_of_segments_will_do(tmp_path: Path) -> None:
    """Segments may come from any iterable, once."""
    sandbox = Sandbox(segments=4, rows=5)
    async with connected(sandbox) as client:
        report = await client.bulk_export((s for s in sandbox.segment_ids), tmp_path)
    assert len(report.exported) == 4


async def test_a_generator_that_fails_sends_nothing() -> None:
    """A generator's exception comes out of `open_bulk_export` as it is."""

    def broken() -> Iterator[str]:
        yield PAGE_SEGMENT_ID
        raise LookupError("the caller's own")

    sandbox = Sandbox()
    async with connected(sandbox) as client:
        with pytest.raises(LookupError):
            client.open_bulk_export(broken(), None)
        with pytest.raises(LookupError):
            await client.bulk_export(broken(), None)
    assert len(sandbox.record) == 0


async def test_an_empty_run_is_fine(tmp_path: Path) -> None:
    """No segments: no requests, a report that is ok, and an iteration without outcomes."""
    sandbox = Sandbox(segments=0)
    async with connected(sandbox) as client:
        assert await client.list_segments() == []
        report = await client.bulk_export([], tmp_path / "out")
        async with client.open_bulk_export(iter(()), None) as run:
            outcomes = [outcome async for outcome in run]
    assert report.ok
    assert (report.exported, report.not_exported, report.progress.total) == ((), (), 0)
    assert report.progress.eta_seconds == 0
    report.raise_for_errors()
    assert outcomes == []
    assert len(sandbox.record) == 1


async def test_an_unknown_segment_harms_nobody_else(tmp_path: Path) -> None:
    """An unknown segment's outcome is a NotFoundError, and the others are exported."""
    sandbox = Sandbox(segments=3, rows=5)
    async with connected(sandbox) as client:
        report = await client.bulk_export(["no-such-segment", *sandbox.segment_ids], tmp_path)
    (missing,) = report.not_exported
    assert type(missing.error) is NotFoundError
    assert (missing.segment_id, missing.submitted, missing.resumable) == (
        "no-such-segment",
        "no",
        False,
    )
    assert len(report.exported) == 3
    assert len(sandbox.record.submits("no-such-segment")) == 1


# --------------------------------------------------------------------- what the vendor answers


def other(**fields: Any) -> Callable[[bytes], bytes]:
    """The true answer with some fields changed; a dict goes one level down."""

    def change(body: bytes) -> bytes:
        document = json.loads(body)
        for name, value in fields.items():
            if isinstance(value, dict):
                document[name] |= value
            else:
                document[name] = value
        return json.dumps(document).encode()

    return change


def listed(index: int, **fields: Any) -> Fault:
    def change(body: bytes) -> bytes:
        document = json.loads(body)
        document[index] |= fields
        return json.dumps(document).encode()

    return Fault.changed(change)


def without(index: int, name: str) -> Fault:
    def change(body: bytes) -> bytes:
        document = json.loads(body)
        del document[index][name]
        return json.dumps(document).encode()

    return Fault.changed(change)


HTML = Fault.status(200, headers={"content-type": "text/html"}, body="<html>log in</html>")
BAD_LISTS: dict[str, tuple[Fault, str]] = {
    "html": (HTML, "$"),
    "empty": (Fault.status(200), "$"),
    "truncated": (Fault.changed(lambda body: body[: len(body) // 2]), "$"),
    "not UTF-8": (Fault.status(200, body=b'["\xff"]'), "$[0]"),
    "deep": (Fault.status(200, body=b"[" * 100_000), "$"),
    "an object": (Fault.status(200, body=b'{"segments": {}}'), "$"),
    "null": (Fault.status(200, body=b"null"), "$"),
    "a number in it": (Fault.status(200, body=b"[7]"), "$[0]"),
}


@pytest.mark.parametrize(("fault", "where"), BAD_LISTS.values(), ids=BAD_LISTS)
async def test_an_unreadable_list_says_where(fault: Fault, where: str) -> None:
    """A list without a readable segment is a DecodeError with the path, never an empty list."""
    sandbox = Sandbox(segments=3)
    sandbox.inject(fault)
    async with connected(sandbox) as client:
        with pytest.raises(DecodeError) as caught:
            await client.list_segments()
    assert caught.value.where == where
    assert (caught.value.method, caught.value.path) == ("GET", "/service/v1/segments/list")


ODD_RECORDS = {
    "a list for an id": listed(1, segmentId=[7]),
    "null for an id": listed(1, segmentId=None),
    "no id": without(1, "segmentId"),
}


@pytest.mark.parametrize("fault", ODD_RECORDS.values(), ids=ODD_RECORDS)
async def test_a_record_without_an_id_costs_itself_and_one_warning(
    fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    """A record without an id is left out, with one warning; the list has the others."""
    sandbox = Sandbox(segments=3)
    sandbox.inject(fault)
    async with connected(sandbox) as client:
        found = await client.list_segments()
    first, _, third = sandbox.segment_ids
    assert [segment.segment_id for segment in found] == [first, third]
    (record,) = caplog.records
    assert "1 of the list's records can't be read" in record.getMessage()
    assert "$[1].segmentId" in record.getMessage()


@pytest.mark.parametrize("field", ["name", "projectId", "type", "lastRun", "category"])
@pytest.mark.parametrize("value", [None, "", 7, ["x"]], ids=repr)
async def test_an_odd_field_of_a_list_costs_that_field(field: str, value: object) -> None:
    """An odd descriptive field is left out: every segment is there, and can be exported."""
    sandbox = Sandbox(segments=3)
    sandbox.inject(listed(1, **{field: value}))
    async with connected(sandbox) as client:
        report = await client.bulk_export(await client.list_segments(), None)
    assert sorted(o.segment_id for o in report.exported) == sorted(sandbox.segment_ids)


BAD_EXPORTS: dict[str, tuple[Fault, str]] = {
    "html": (HTML, "$"),
    "a list": (Fault.status(200, body=b"[]"), "$"),
    "another export": (Fault.changed(other(exportId="another")), "$.exportId"),
    "an id that is a list": (Fault.changed(other(exportId=[])), "$.exportId"),
    "a status that is a number": (Fault.changed(other(status=1, filename=None)), "$.status"),
}


@pytest.mark.parametrize(("fault", "where"), BAD_EXPORTS.values(), ids=BAD_EXPORTS)
async def test_an_unreadable_status_says_where(fault: Fault, where: str) -> None:
    """An unreadable status, or one of another export, is a DecodeError with the path."""
    sandbox = Sandbox()
    sandbox.inject(fault)
    async with connected(sandbox) as client:
        with pytest.raises(DecodeError) as caught:
            await client.get_export(PAGE_EXPORT_ID)
    assert caught.value.where == where
    assert caught.value.path == EXPORT + PAGE_EXPORT_ID


BAD_SUBMITS: dict[str, tuple[Fault, str]] = {
    "html": (HTML, "$"),
    "truncated": (Fault.changed(lambda body: body[:20]), "$"),
    "an id that could leave its place": (Fault.changed(other(exportId="../list")), "$.exportId"),
    "another segment": (
        Fault.changed(other(segment={"segmentId": "another"})),
        "$.segment.segmentId",
    ),
}


@pytest.mark.parametrize(("fault", "where"), BAD_SUBMITS.values(), ids=BAD_SUBMITS)
async def test_an_unreadable_answer_to_a_post_is_unknown(fault: Fault, where: str) -> None:
    """The vendor may have acted: SubmitUnknownError from a DecodeError, and no second POST."""
    sandbox = Sandbox()
    sandbox.inject(fault)
    async with connected(sandbox) as client:
        with pytest.raises(SubmitUnknownError) as caught:
            await client.request_export(PAGE_SEGMENT_ID)
    assert isinstance(caught.value.__cause__, DecodeError)
    assert caught.value.__cause__.where == where
    assert len(sandbox.record.submits()) == 1


async def test_in_a_run_an_unreadable_answer_is_that_segments_alone(tmp_path: Path) -> None:
    """The others are exported, and no export is requested twice."""
    sandbox = Sandbox(segments=4, rows=5, durations=STEADY)
    bad = sandbox.segment_ids[1]
    sandbox.inject(Fault.changed(other(segment={"segmentId": "x"})), method="POST", segment_id=bad)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, tmp_path)
    (missing,) = report.not_exported
    assert isinstance(missing.error, SubmitUnknownError)
    assert (missing.segment_id, missing.submitted, missing.resumable) == (bad, "maybe", False)
    assert sandbox.record.duplicates() == {}
    assert len(sandbox.record.submits()) == 4


@abandoned_body
async def test_a_huge_answer_is_not_read_to_its_end() -> None:
    """An answer beyond the cap of a status is a DecodeError."""
    sandbox = Sandbox()
    sandbox.inject(Fault.status(200, body=b" " * (STATUS_CAP + 1)))
    async with connected(sandbox) as client:
        with pytest.raises(DecodeError, match="more than"):
            await client.get_export(PAGE_EXPORT_ID)


async def test_a_huge_error_page_is_an_excerpt() -> None:
    """Errors keep 2 KiB of the vendor's answer."""
    sandbox = Sandbox()
    sandbox.inject(Fault.status(404, body=b"x" * 500_000))
    async with connected(sandbox) as client:
        with pytest.raises(NotFoundError) as caught:
            await client.get_export(PAGE_EXPORT_ID)
    assert len(caught.value.body) == 2048


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate, gzip"])
async def test_a_compressed_answer_is_refused(coding: str) -> None:
    """A compressed answer is refused: a bomb isn't recognized before its end."""
    sandbox = Sandbox()
    sandbox.inject(Fault.status(200, headers={"content-encoding": coding}, body=b"\x1f\x8b"))
    async with connected(sandbox) as client:
        with pytest.raises(DecodeError, match="coding that was not asked for"):
            await client.list_segments()


async def test_a_large_list_is_read_whole() -> None:
    """A list that is decoded in a thread is read like others."""
    sandbox = Sandbox(segments=3000)
    async with connected(sandbox) as client:
        segments = await client.list_segments()
    assert [s.segment_id for s in segments] == sandbox.segment_ids


async def test_the_pages_examples_are_read() -> None:
    """The page's segment and export, with nulls, without a projectId, and with an s3:// link."""
    async with connected(Sandbox()) as client:
        (segment,) = await client.list_segments()
        export = await client.get_export(PAGE_EXPORT_ID)
        assert await client.wait_for_export(PAGE_EXPORT_ID) == export
    assert segment.segment_id == PAGE_SEGMENT_ID
    assert export.segment == segment
    assert export.project_id is None
    assert export.filename == f"s3://upload-bucket/path/to/{PAGE_EXPORT_ID}.csv"
    assert OutputFormat.CSV == "csv"


async def test_errors_of_single_calls_and_of_runs_are_alike(tmp_path: Path) -> None:
    """An unknown segment is a NotFoundError from `export` and `request_export` too."""
    sandbox = Sandbox()
    async with connected(sandbox) as client:
        with pytest.raises(NotFoundError):
            await client.request_export("unknown")
        with pytest.raises(NotFoundError):
            await client.export("unknown", tmp_path / "a.csv")
        report = await client.bulk_export(["unknown"], None)
    assert isinstance(report.not_exported[0], NotExported)
    assert not any(isinstance(o, Exported) for o in report.exported)
    assert names_in(tmp_path) == []


async def test_a_transport_may_have_read_the_body_already() -> None:
    """Answers of httpx.MockTransport, made from a whole body, are read like any other."""
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=[]))
    async with (
        httpx.AsyncClient(transport=transport) as http,
        SegmentsClient(PAGE_API_KEY, PAGE_ACCESS_TOKEN, http_client=http) as client,
    ):
        assert await client.list_segments() == []


async def test_one_string_is_not_many_segments(tmp_path: Path) -> None:
    """A string given for the segments is refused: each of its characters would be a POST."""
    sandbox = Sandbox()
    async with connected(sandbox) as client:
        with pytest.raises(ConfigurationError, match="not one string"):
            await client.bulk_export(PAGE_SEGMENT_ID, tmp_path)
    assert sandbox.record.submits() == []


@pytest.mark.parametrize(
    "to",
    ["s3://me:s3cret@bucket/x", Path("gs://bucket/x"), "file:///tmp/x", "s3:bucket/x", "gs:bucket"],
)
async def test_a_url_is_no_destination(to: str | Path) -> None:
    """A URL is refused before any request, and no local directory is made of it."""
    sandbox = Sandbox()
    async with connected(sandbox) as client:
        for operation in (
            partial(client.bulk_export, [PAGE_SEGMENT_ID], to),
            partial(client.export, PAGE_SEGMENT_ID, to),
            partial(client.download_export, PAGE_EXPORT_ID, to),
        ):
            with pytest.raises(
                ConfigurationError, match=r"^(s3|gs|file)://...: (files can't|a user)"
            ) as it:
                await operation()
            assert "s3cret" not in str(it.value)
    assert len(sandbox.record) == 0
    assert not {"s3:", "gs:", "file:"} & set(names_in(Path()))
