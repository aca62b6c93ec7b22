"""Requests for the missing bytes of a file, and the meaning of storage's answers.

RFC 9110: conditions in section 13, ranges in section 14. A wrong guess here would join the bytes of
two files under one name. So the download starts over if an answer doesn't match exactly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from email.utils import parsedate_to_datetime

import attrs

from segments_async._sansio.api.content_coding import codings

#: The end of a body of unknown length.
NO_END = 2**63 - 1

_LENGTH = re.compile(r"[0-9]{1,18}")
_CONTENT_RANGE = re.compile(r"(?i:bytes) +([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")

#: A strong entity tag that is short enough for the sidecar. A weak one (`W/"..."`) does not promise
#: equal bytes.
_STRONG = re.compile(r'"[\x21\x23-\x7e]{1,256}"')
_MD5 = re.compile(r'"([0-9a-fA-F]{32})"')

#: Headers that name an encryption. S3's ETag is the MD5 of the object without one, or with S3's own
#: keys (AES256), and not with a KMS key, a customer's key, or those of other places (aws:fsx).
_ENCRYPTION = "x-amz-server-side-encryption"
_CUSTOMERS_KEY = "x-amz-server-side-encryption-customer-algorithm"


@attrs.frozen(kw_only=True)
class ObjectVersion:
    """One version of an object, as the answer's headers describe it.

    Attributes:
        total: length in bytes; None if the answer doesn't say.
        etag: the strong ETag, quotes included, or None.
        modified: Last-Modified, if it distinguishes versions reliably; else None.
        ranges: whether the server offers ranges.
        md5: of the bytes as served, in hex, if the ETag is an MD5; else None.
        gzip: whether the object is stored compressed.
    """

    total: int | None
    etag: str | None = None
    modified: str | None = None
    ranges: bool = False
    md5: str | None = None
    gzip: bool = False

    @property
    def resumable(self) -> bool:
        """Whether a broken download can be continued: version and length are known."""
        versioned = self.etag is not None or self.modified is not None
        return versioned and self.total is not None and self.ranges and not self.gzip

    def is_same(self, other: ObjectVersion) -> bool:
        """Whether both are the same version, with the same bytes."""
        return self.etag is not None and self.resumable and self == other

    @property
    def divisible(self) -> bool:
        """Whether several connections may each fetch a part."""
        return self.resumable and self.etag is not None


@attrs.frozen
class Range:
    """The bytes from `start` to before `stop` of this version."""

    version: ObjectVersion
    start: int
    stop: int

    def headers(self) -> Mapping[str, str]:
        """The request's headers. With `If-Match`, storage refuses another version by a 412."""
        last = "" if self.stop == self.version.total else str(self.stop - 1)
        asked = {"Range": f"bytes={self.start}-{last}"}
        if self.version.etag is not None:
            return asked | {"If-Match": self.version.etag}
        return asked | {"If-Range": self.version.modified or ""}


@attrs.frozen
class PartialContent:
    """The answer's body is exactly the requested range."""


@attrs.frozen
class Restart:
    """The part can't be continued; `why` is for a log line."""

    why: str


@attrs.frozen
class WrongRange:
    """The answer's body isn't the requested range; `why` is for a log line.

    The answer says nothing of the version, so the part can still be continued.
    """

    why: str


@attrs.frozen
class Refused:
    """An answer without the file."""


def read_answer(
    status: int, headers: Mapping[str, str], asked: Range | None
) -> ObjectVersion | PartialContent | Restart | WrongRange | Refused:
    """The meaning of an answer.

    Args:
        headers: of the answer, by lower-case names.
        asked: the requested range; None: the whole file.

    Returns:
        `ObjectVersion` if the body is the whole file, even if a range was requested. Some servers
        send the requested range with a 200, whose Content-Length alone is no proof of a whole file.
    """
    if status == 200:
        return _read_whole(headers, asked)
    if asked is None:
        # Some servers and caches answer each request so, although no range was asked for.
        return _read_whole(headers, None) if status == 206 and _is_all(headers) else Refused()
    if status == 206:
        return _read_range(headers, asked)
    if status == 412:
        return Restart("the file has changed since")
    if status == 416:
        return Restart("the file has no such range any more")
    return Refused()


def describe(headers: Mapping[str, str]) -> ObjectVersion:
    """The object of an answer with these headers."""
    etag = strong_etag(headers)
    return ObjectVersion(
        total=content_length(headers),
        etag=etag,
        modified=_strong_date(headers),
        ranges=headers.get("accept-ranges", "").strip().lower() == "bytes",
        md5=_md5(headers),
        gzip=content_encoding(headers) == "gzip",
    )


def content_length(headers: Mapping[str, str]) -> int | None:
    """Content-Length; None without a valid one.

    With a Transfer-Encoding it doesn't count (RFC 9112, section 6.3).
    """
    if "transfer-encoding" in headers:
        return None
    value = headers.get("content-length", "").strip()
    return int(value) if _LENGTH.fullmatch(value) else None


def content_encoding(headers: Mapping[str, str]) -> str:
    """The file's content codings, joined; empty if the bytes are the file's own.

    Uploaders store other words there: a charset, "binary", S3's "aws-chunked". These name no
    coding.
    """
    return ", ".join(codings(headers.get("content-encoding")))


def content_range(headers: Mapping[str, str]) -> tuple[int, int, int] | None:
    """Content-Range as start, stop and total; None if it is missing, unbounded or invalid."""
    found = _CONTENT_RANGE.fullmatch(headers.get("content-range", "").strip())
    if found is None:
        return None
    first, last, total = (int(digits) for digits in found.groups())
    return (first, last + 1, total) if first <= last < total else None


def strong_etag(headers: Mapping[str, str]) -> str | None:
    """The ETag, if equal ETags promise equal bytes; else None."""
    value = headers.get("etag", "").strip()
    return value if is_strong(value) else None


def is_strong(etag: str) -> bool:
    """Whether this is a strong entity tag that is short enough for the sidecar."""
    return _STRONG.fullmatch(etag) is not None


def is_sendable(date: str) -> bool:
    """Whether a Last-Modified fits into a request's header and into the sidecar."""
    return 0 < len(date) <= 64 and date.isascii() and date.isprintable()


def _read_whole(
    headers: Mapping[str, str], asked: Range | None
) -> ObjectVersion | PartialContent | Restart | WrongRange | Refused:
    if content_encoding(headers) not in ("", "gzip"):
        return Refused()
    found, part = describe(headers), content_range(headers)
    if part is not None and part[:2] != (0, part[2]):
        unasked = WrongRange("a part of the file came, without being asked for")
        return unasked if asked is None else _read_range(headers, asked)
    if asked is None or found.gzip or not _is_named_alike(headers, found, asked.version):
        return found
    if found.total not in (None, asked.version.total):
        return WrongRange("a file of another length came as the same version")
    return attrs.evolve(found, total=asked.version.total)


def _is_all(headers: Mapping[str, str]) -> bool:
    """Whether the range of a 206 is the whole file, by all that the answer says."""
    length = content_length(headers)
    return length is not None and content_range(headers) == (0, length, length)


def _is_named_alike(
    headers: Mapping[str, str], found: ObjectVersion, before: ObjectVersion
) -> bool:
    """Whether the answer has the validators of an earlier version, and so the same bytes."""
    if found.etag is not None or before.etag is not None:
        return found.etag == before.etag
    return headers.get("last-modified", "").strip() == before.modified


def _read_range(headers: Mapping[str, str], asked: Range) -> PartialContent | Restart | WrongRange:
    version = asked.version
    # A 206 has the same ETag as the 200 for the whole file (section 15.3.7).
    if strong_etag(headers) != version.etag:
        return Restart("the range is of another version")
    if version.etag is None and headers.get("last-modified", version.modified) != version.modified:
        return Restart("the range is of another version")
    if content_range(headers) != (asked.start, asked.stop, version.total):
        return WrongRange("another range came than was asked for")
    if content_length(headers) not in (None, asked.stop - asked.start):
        return WrongRange("a range came with the length of another")
    if content_encoding(headers):
        return WrongRange("a range came encoded")
    return PartialContent()


def _strong_date(headers: Mapping[str, str]) -> str | None:
    """Last-Modified, unless a second change may have been in the same second (8.8.2.2)."""
    value = headers.get("last-modified", "").strip()
    if not is_sendable(value):
        return None
    try:
        age = parsedate_to_datetime(headers.get("date", "")) - parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return value if age >= timedelta(seconds=1) else None


def _md5(headers: Mapping[str, str]) -> str | None:
    """The MD5 in S3's ETag, of objects uploaded in one part and without a customer's key.

    ETags of 32 digits of other servers may be something else: Starlette hashes time and size.
    """
    found = _MD5.fullmatch(headers.get("etag", "").strip())
    if found is None or "x-amz-request-id" not in headers:
        return None
    if headers.get(_ENCRYPTION, "AES256").upper() != "AES256" or _CUSTOMERS_KEY in headers:
        return None
    return found.group(1).lower()
