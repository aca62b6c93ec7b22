"""The file host: contents, ranges, conditions, links."""

from __future__ import annotations

import csv
import hashlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.asking import EXPORT, fetch, finished, get, headers, post, read
from segments_async.sandbox import PAGE_SEGMENT_ID, Answer, Durations, Fault, Sandbox
from segments_async.sandbox.content import Content

HOUR = 3600.0
_CONTENT = Content.of(0, "any", 0, rows=2345)
_WHOLE = b"".join(_CONTENT.read())


def body(answer: Answer) -> bytes:
    return b"".join(answer.pieces())


@pytest.mark.parametrize("rows", [0, 1, 999, 1000, 1001, 2345])
def test_size_is_told_before_the_bytes_are_made(rows: int) -> None:
    """The size is right at the edges of blocks of rows, too; 0 rows is the header alone."""
    content = Content.of(0, "any", 0, rows)
    data = b"".join(content.read())
    assert len(data) == content.size
    assert data.count(b"\n") == rows + 1


@given(st.integers(0, len(_WHOLE)), st.integers(0, len(_WHOLE)))
def test_any_part_is_that_part_of_the_whole(start: int, stop: int) -> None:
    """Reading from the middle needs no bytes before it, and gives the same."""
    assert b"".join(_CONTENT.read(start, stop)) == _WHOLE[start:stop]


def test_file_is_csv_with_the_cases_that_readers_get_wrong() -> None:
    """The file has commas and quotes inside quotes, and UTF-8."""
    rows = list(csv.DictReader(io.StringIO(_WHOLE.decode())))
    assert len(rows) == 2345
    assert len({row["user_id"] for row in rows}) == 2345
    assert {len(row) for row in rows} == {4}
    assert rows[0]["note"].startswith("Pro plan, billed")
    assert '"great"' in rows[1]["note"]


def test_whole_file_is_what_the_sandbox_says_it_is() -> None:
    """Bytes, length, ETag and SHA-256 agree."""
    sandbox = Sandbox()
    answer = fetch(sandbox, finished(sandbox)[1])
    data = body(answer)
    assert answer.status == 200
    assert data == sandbox.content(PAGE_SEGMENT_ID)
    assert answer.headers["content-length"] == str(len(data))
    assert answer.headers["etag"] == f'"{hashlib.md5(data).hexdigest()}"'
    assert hashlib.sha256(data).hexdigest() == sandbox.sha256(PAGE_SEGMENT_ID)


def test_each_attempt_has_its_own_file() -> None:
    """A second export of a segment isn't the same bytes: a mix of both would be seen."""
    sandbox = Sandbox()
    finished(sandbox)
    _, path = finished(sandbox, now=200.0)
    assert body(fetch(sandbox, path, 200.0)) == sandbox.content(PAGE_SEGMENT_ID, attempt=1)
    assert sandbox.content(PAGE_SEGMENT_ID, 1) != sandbox.content(PAGE_SEGMENT_ID, 0)


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [("bytes=0-0", 0, 1), ("bytes=100-199", 100, 200), ("bytes=5000-", 5000, None),
     ("bytes=-7", -7, None), ("bytes=10-99999999", 10, None)],
)  # fmt: skip
def test_ranges(asked: str, start: int, stop: int | None) -> None:
    """A range gets 206 with the exact Content-Range."""
    sandbox = Sandbox()
    whole = sandbox.content(PAGE_SEGMENT_ID)
    answer = fetch(sandbox, finished(sandbox)[1], range=asked)
    data = body(answer)
    first = start % len(whole)
    assert answer.status == 206
    assert data == whole[start:stop]
    assert answer.headers["content-length"] == str(len(data))
    assert answer.headers["content-range"] == f"bytes {first}-{first + len(data) - 1}/{len(whole)}"


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "lines=1-2", "bytes=9-3", "bytes=-", "bytes="])
def test_what_is_no_single_range_gets_the_whole(asked: str) -> None:
    """Several ranges, or a malformed one, get the whole file, as at S3."""
    sandbox = Sandbox()
    assert fetch(sandbox, finished(sandbox)[1], range=asked).status == 200


@pytest.mark.parametrize("asked", ["bytes=999999999-", "bytes=-0"])
def test_range_beyond_the_end_is_416(asked: str) -> None:
    """416 has the size in its Content-Range."""
    sandbox = Sandbox()
    answer = fetch(sandbox, finished(sandbox)[1], range=asked)
    assert answer.status == 416
    assert answer.headers["content-range"] == f"bytes */{len(sandbox.content(PAGE_SEGMENT_ID))}"


def test_if_match_guards_a_range() -> None:
    """If-Match with another ETag gets 412."""
    sandbox = Sandbox()
    path = finished(sandbox)[1]
    etag = fetch(sandbox, path).headers["etag"]
    assert fetch(sandbox, path, range="bytes=5-", if_match=etag).status == 206
    assert fetch(sandbox, path, range="bytes=5-", if_match='"other"').status == 412


def test_if_range_falls_back_to_the_whole() -> None:
    """If-Range gets a part of the same file, or all of a new one."""
    sandbox = Sandbox()
    path = finished(sandbox)[1]
    etag = fetch(sandbox, path).headers["etag"]
    assert fetch(sandbox, path, range="bytes=5-", if_range=etag).status == 206
    assert fetch(sandbox, path, range="bytes=5-", if_range='"other"').status == 200


def test_unsigned_and_tampered_links_are_refused() -> None:
    """Such links get 403 with S3's XML."""
    sandbox = Sandbox()
    path = finished(sandbox)[1]
    unsigned, tampered = path.partition("?")[0], path[:-1] + ("0" if path[-1] != "0" else "1")
    assert b"AccessDenied" in body(fetch(sandbox, unsigned))
    assert b"SignatureDoesNotMatch" in body(fetch(sandbox, tampered))
    assert fetch(sandbox, tampered).status == 403


def test_link_expires() -> None:
    """403 "Request has expired" once its X-Amz-Expires have passed."""
    sandbox = Sandbox(link_lifetime=60)
    path = finished(sandbox, now=100.0)[1]
    assert fetch(sandbox, path, 159.0).status == 200
    expired = fetch(sandbox, path, 160.0)
    assert expired.status == 403
    assert b"Request has expired" in body(expired)


def test_file_is_gone_after_48_hours() -> None:
    """It "will remain in Amazon for no more than 48 hours"; a fresh link doesn't help."""
    sandbox = Sandbox(durations=Durations(median=10.0, sigma=0))
    late = finished(sandbox, now=47 * HOUR)[1]
    assert fetch(sandbox, late, 48 * HOUR + 9).status == 200
    gone = fetch(sandbox, late, 48 * HOUR + 10)
    assert gone.status == 404
    assert b"NoSuchKey" in body(gone)


def test_head_with_a_link_for_get_is_refused() -> None:
    """The method is part of what is signed."""
    sandbox = Sandbox()
    answer = sandbox.answer_file("HEAD", finished(sandbox)[1], {}, 100.0)
    assert (answer.status, body(answer)) == (403, b"")


def test_leaked_credentials_are_refused_and_remembered() -> None:
    """S3 refuses a second auth mechanism; the record names the request."""
    sandbox = Sandbox()
    path = finished(sandbox)[1]
    assert sandbox.answer_file("GET", path, headers(), 100.0).status == 400
    assert len(sandbox.record.credentials_seen_by_files()) == 1
    fetch(sandbox, path)
    assert len(sandbox.record.credentials_seen_by_files()) == 1


def test_faults_of_the_file_host() -> None:
    """Cuts, false lengths and refusals of downloads are scripted like the API's faults."""
    sandbox = Sandbox()
    path = finished(sandbox)[1]
    sandbox.inject(Fault.cut(1000), origin="files")
    sandbox.inject(Fault.content_length(None), origin="files", segment_id=PAGE_SEGMENT_ID)
    sandbox.inject(Fault.status(503, body="<Error/>"), origin="files")
    with pytest.raises(ConnectionError, match="1000 of"):
        body(fetch(sandbox, path))
    assert "content-length" not in fetch(sandbox, path).headers
    assert fetch(sandbox, path).status == 503
    assert fetch(sandbox, path).status == 200
    assert not sandbox.faults_left()


def test_pending_export_has_no_file() -> None:
    """A link to a pending export's file opens nothing."""
    sandbox = Sandbox()
    export_id = read(post(sandbox))["exportId"]
    assert read(get(sandbox, EXPORT + export_id))["filename"] is None
    path = sandbox.link(export_id, 0.0).removeprefix(sandbox.files_origin)
    assert fetch(sandbox, path, 0.0).status == 404
