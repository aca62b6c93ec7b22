"""The meaning of storage's answers for the bytes of a part. In doubt the download starts over."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segments_async._sansio.files.ranges import (
    ObjectVersion,
    PartialContent,
    Range,
    Refused,
    Restart,
    WrongRange,
    content_length,
    content_range,
    describe,
    read_answer,
)

MD5 = "0" * 31 + "a"
TAGGED = ObjectVersion(total=100, etag='"abc"', ranges=True)
DATED = ObjectVersion(total=100, modified="Thu, 01 Jan 2026 00:00:00 GMT", ranges=True)
ASKED = Range(TAGGED, 40, 100)
EXACT = {"content-range": "bytes 40-99/100", "content-length": "60", "etag": '"abc"'}
S3 = {"x-amz-request-id": "1", "etag": f'"{MD5}"'}


# What starts over, and what is refused.


@pytest.mark.parametrize(
    "changed",
    [
        {"content-range": None},
        {"content-range": "bytes 41-99/100"},
        {"content-range": "bytes 39-99/100"},
        {"content-range": "bytes 40-98/100"},
        {"content-range": "bytes 40-100/100"},
        {"content-range": "bytes 40-99/101"},
        {"content-range": "bytes 40-99/*"},
        {"content-range": "bytes */100"},
        {"content-range": "bytes 99-40/100"},
        {"content-range": "items 40-99/100"},
        {"content-range": "bytes 40-99/100, bytes 0-1/100"},
        {"content-range": "bytes ٤٠-99/100"},
        {"content-range": "bytes -40-99/100"},
        {"content-range": "bytes 40-" + "9" * 5000 + "/100"},
        {"content-length": "59"},
        {"content-encoding": "gzip"},
    ],
)
def test_a_range_that_isnt_exact_is_not_taken(changed: dict[str, str | None]) -> None:
    """A 206 with another start, end or total isn't used; the part can still be continued."""
    headers = {k: v for k, v in (EXACT | changed).items() if v is not None}
    assert isinstance(read_answer(206, headers, ASKED), WrongRange)


@pytest.mark.parametrize("etag", ['"abd"', 'W/"abc"', None])
def test_a_range_of_another_version_starts_over(etag: str | None) -> None:
    """A range of another or an unknown version starts over."""
    headers = {k: v for k, v in (EXACT | {"etag": etag}).items() if v is not None}
    assert isinstance(read_answer(206, headers, ASKED), Restart)


@pytest.mark.parametrize("status", [412, 416])
def test_a_changed_file_starts_over(status: int) -> None:
    """The download starts over if If-Match fails, or if the file is shorter than the part."""
    assert isinstance(read_answer(status, {}, ASKED), Restart)


def test_without_range_support_the_body_is_everything() -> None:
    """A 200 to a range is the whole file, from its beginning."""
    headers = {"content-length": "100", "etag": '"abc"'}
    assert read_answer(200, headers, ASKED) == ObjectVersion(total=100, etag='"abc"')


def test_a_range_may_come_with_a_200() -> None:
    """Some servers send the range that was asked for, and the status of a whole file."""
    assert read_answer(200, EXACT, ASKED) == PartialContent()
    assert isinstance(read_answer(200, EXACT | {"etag": '"other"'}, ASKED), Restart)
    assert isinstance(read_answer(200, EXACT, Range(TAGGED, 50, 100)), WrongRange)
    assert isinstance(read_answer(200, EXACT, None), WrongRange)
    for other in ("bytes 0-99/100", "bytes */100", "nonsense"):
        whole = {"content-range": other, "content-length": "100"}
        assert read_answer(200, whole, None) == ObjectVersion(total=100)


@pytest.mark.parametrize("version", [TAGGED, DATED], ids=["by ETag", "by date"])
def test_one_version_has_one_length(version: ObjectVersion) -> None:
    """A 200 with the validators of the part's version, and another length, is no whole file."""
    named = {"etag": version.etag, "last-modified": version.modified}
    headers = {name: text for name, text in named.items() if text is not None}
    asked = Range(version, 40, 100)
    assert isinstance(read_answer(200, headers | {"content-length": "60"}, asked), WrongRange)
    unbounded = read_answer(200, headers, asked)
    assert isinstance(unbounded, ObjectVersion)
    assert unbounded.total == 100


def test_a_range_of_all_bytes_that_nobody_asked_for_is_the_file() -> None:
    """A 206 whose range and length are those of the whole file is a whole file; others aren't."""
    headers = {"content-range": "bytes 0-99/100", "content-length": "100", "etag": '"abc"'}
    found = read_answer(206, headers, None)
    assert isinstance(found, ObjectVersion)
    assert (found.total, found.etag) == (100, '"abc"')
    for wrong in ("bytes 0-98/100", "bytes 1-99/100", "bytes 0-99/*", "bytes 0-59/60"):
        assert read_answer(206, headers | {"content-range": wrong}, None) == Refused()
    assert read_answer(206, {"content-range": "bytes 0-99/100"}, None) == Refused()
    part = {"content-range": "bytes 0-3/100", "content-length": "4"}
    assert read_answer(206, part, None) == Refused()


@pytest.mark.parametrize("status", [204, 206, 304, 400, 403, 404, 412, 416, 500, 503])
def test_an_answer_without_the_file_is_refused(status: int) -> None:
    """An unrequested part counts as an answer without the file, too."""
    assert read_answer(status, EXACT, None) == Refused()


@pytest.mark.parametrize("encoding", ["", "identity", "UTF-8", "none", "aws-chunked,", "\x00"])
def test_a_word_that_names_no_coding_is_none(encoding: str) -> None:
    """Uploaders store words there that name no coding; the bytes are the file's own."""
    found = read_answer(200, {"content-encoding": encoding, "content-length": "9"}, None)
    assert found == ObjectVersion(total=9)


@pytest.mark.parametrize("encoding", ["gzip,", "gzip,aws-chunked", "aws-chunked, x-gzip"])
def test_a_coding_beside_such_words_counts(encoding: str) -> None:
    """AWS's own tools have stored both words."""
    found = read_answer(200, {"content-encoding": encoding}, None)
    assert found == ObjectVersion(total=None, gzip=True)


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "gzip, gzip", "compress"])
def test_an_encoding_that_isnt_known_is_refused(encoding: str) -> None:
    """The bytes of an encoded range aren't the file's."""
    assert read_answer(200, {"content-encoding": encoding}, None) == Refused()


@pytest.mark.parametrize("date", ["Thu, 01 Jan 2026 00:00:01 GMT", None, "", "nonsense"])
def test_a_range_by_date_is_of_that_date(date: str | None) -> None:
    """If Last-Modified is the version, another Last-Modified starts over."""
    headers = {k: v for k, v in EXACT.items() if k != "etag"}
    headers |= {} if date is None else {"last-modified": date}
    meaning = read_answer(206, headers, Range(DATED, 40, 100))
    assert isinstance(meaning, PartialContent if date is None else Restart)


# What can't be continued.


@pytest.mark.parametrize(
    "headers",
    [
        {"etag": '"abc"', "content-length": "9"},
        {"etag": '"abc"', "content-length": "9", "accept-ranges": "none"},
        {"etag": 'W/"abc"', "content-length": "9", "accept-ranges": "bytes"},
        {"etag": "abc", "content-length": "9", "accept-ranges": "bytes"},
        {"etag": '"' + "a" * 300 + '"', "content-length": "9", "accept-ranges": "bytes"},
        {"etag": '"abc"', "accept-ranges": "bytes"},
        {"etag": '"abc"', "content-length": "+9", "accept-ranges": "bytes"},
        {"etag": '"abc"', "content-length": "9", "accept-ranges": "bytes"}
        | {"content-encoding": "gzip"},
        {"last-modified": "Thu, 01 Jan 2026 00:00:00 GMT", "content-length": "9"}
        | {"accept-ranges": "bytes", "date": "Thu, 01 Jan 2026 00:00:00 GMT"},
        {"last-modified": "Thu, 01 Jan 2026 00:00:00 GMT", "content-length": "9"}
        | {"accept-ranges": "bytes"},
    ],
)
def test_without_version_end_or_ranges_nothing_is_continued(headers: dict[str, str]) -> None:
    """A weak ETag, and a date of the same second, promise nothing about bytes."""
    assert not describe(headers).resumable


def test_only_a_strong_etag_makes_a_file_divisible() -> None:
    """A date may have been the same for two versions that several connections mix."""
    assert TAGGED.resumable
    assert TAGGED.divisible
    assert DATED.resumable
    assert not DATED.divisible


@pytest.mark.parametrize(
    "headers",
    [
        {"etag": f'"{MD5}"'},  # not S3
        S3 | {"etag": f'"{MD5}-2"'},
        S3 | {"etag": f'W/"{MD5}"'},
        S3 | {"etag": MD5},
        S3 | {"etag": f'"{MD5[1:]}"'},
        S3 | {"etag": f'"{MD5[1:]}g"'},
        S3 | {"x-amz-server-side-encryption": "aws:kms"},
        S3 | {"x-amz-server-side-encryption": "aws:kms:dsse"},
        S3 | {"x-amz-server-side-encryption": "aws:fsx"},
        S3 | {"x-amz-server-side-encryption-customer-algorithm": "AES256"},
    ],
)
def test_an_etag_that_is_no_md5_is_not_taken_for_one(headers: dict[str, str]) -> None:
    """A weak ETag, or one of an upload in parts, of KMS or of a customer's key, is no MD5."""
    assert describe(headers).md5 is None


# What goes well.


def test_an_exact_range_goes_on() -> None:
    """A 206 is used with the same version and total, and exactly the requested bytes."""
    assert read_answer(206, EXACT, ASKED) == PartialContent()
    silent = {k: v for k, v in EXACT.items() if k != "content-length"}
    assert read_answer(206, silent, ASKED) == PartialContent()


def test_what_is_asked_for() -> None:
    """A range is requested with If-Match, or with If-Range if there is no ETag."""
    assert ASKED.headers() == {"Range": "bytes=40-", "If-Match": '"abc"'}
    assert Range(TAGGED, 0, 40).headers() == {"Range": "bytes=0-39", "If-Match": '"abc"'}
    assert Range(DATED, 40, 100).headers() == {"Range": "bytes=40-", "If-Range": DATED.modified}


def test_s3s_etag_is_an_md5() -> None:
    """The ETag is an MD5 for an upload in one part, unencrypted or under S3's own key."""
    assert describe(S3).md5 == MD5
    assert describe(S3 | {"x-amz-server-side-encryption": "AES256"}).md5 == MD5


def test_a_date_of_an_earlier_second_is_a_version() -> None:
    """RFC 9110, 8.8.2.2: the date is at least a second old, so no change can have the same date."""
    dates = {"date": "Thu, 01 Jan 2026 00:00:01 GMT", "last-modified": DATED.modified or ""}
    told = describe({"content-length": "100", "accept-ranges": "bytes", **dates})
    assert told == DATED


# Whatever comes.

_TEXT = st.text(st.characters(codec="latin-1"), max_size=60) | st.sampled_from(
    ["bytes 0-1/2", "bytes 40-99/100", "9" * 400, '"abc"', "gzip", "Thu, 01 Jan 2026 00:00:00 GMT"]
)
_NAMES = ["accept-ranges", "content-encoding", "content-length", "content-range", "date", "etag"]
_HEADERS = st.dictionaries(st.sampled_from([*_NAMES, "last-modified"]), _TEXT)


@given(st.sampled_from([200, 206, 412, 416, 500]), _HEADERS, st.sampled_from([None, ASKED]))
def test_no_answer_is_an_error_of_ours(status: int, headers: Any, asked: Range | None) -> None:
    """Any headers have a meaning; a range is continued only if the answer matches exactly."""
    meaning = read_answer(status, headers, asked)
    if isinstance(meaning, PartialContent):
        assert asked is not None
        assert content_range(headers) == (40, 100, 100)


@given(st.text(max_size=40) | st.from_regex(r"bytes \d+-\d+/\d+", fullmatch=True))
def test_a_content_range_is_a_range_or_nothing(value: str) -> None:
    """A Content-Range is never empty, beyond its total, or absurdly long."""
    found = content_range({"content-range": value})
    if found is not None:
        start, stop, total = found
        assert 0 <= start < stop <= total < 10**18
    length = content_length({"content-length": value})
    assert length is None or 0 <= length < 10**18


def test_a_length_beside_a_transfer_encoding_is_none() -> None:
    """RFC 9112, section 6.3: with a Transfer-Encoding the length verifies nothing."""
    headers = {"content-length": "5", "transfer-encoding": "chunked"}
    assert content_length(headers) is None
    assert content_length({"content-length": "5"}) == 5


def test_stored_is_compared_by_value() -> None:
    """A part is continued only with exactly the version that its sidecar names."""
    assert attrs.evolve(TAGGED) == TAGGED
