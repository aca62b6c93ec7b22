"""The file host's answers: a stored file, whole or a range (RFC 9110, sections 13 and 14)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from attrs import frozen

from .answer import Reply
from .clock import http_date
from .content import Compressed, Content
from .links import s3_error

_RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.IGNORECASE)


@frozen(kw_only=True)
class FileHost:
    """The abilities of the file host; by default those of S3 for objects uploaded in one part."""

    ranges: bool = True
    """Whether ranges and conditions are understood; where they aren't, they are ignored."""
    etag: Literal["md5", "parts", "weak"] | None = "md5"
    """The quoted MD5, or ``"parts"``, S3's ETag of an object uploaded in parts, which is no MD5, or
    ``"weak"``, a weak one; None for no ETag."""
    last_modified: bool = True
    """Whether answers have a Last-Modified."""
    gzip: bool = False
    """Objects are stored gzip-encoded, and served so, whatever the request accepts."""
    rate: float | None = None
    """The bytes/s of each connection (S3 has 50 to 100 million); None for as many as it takes."""

    def describe(self, content: Content | Compressed, stored: datetime) -> dict[str, str]:
        """The headers of an object."""
        etag = content.etag()
        named = {"md5": etag, "parts": f'{etag[:-1]}-2"', "weak": f"W/{etag}"}
        headers = {"content-type": "text/csv", "x-amz-request-id": "SANDBOX"}
        if self.ranges:
            headers["accept-ranges"] = "bytes"
        if self.etag is not None:
            headers["etag"] = named[self.etag]
        if self.last_modified:
            headers["last-modified"] = http_date(stored)
        if self.gzip:
            headers["content-encoding"] = "gzip"
        return headers


def serve(file: Content, stored: datetime, headers: Mapping[str, str], host: FileHost) -> Reply:
    """The answer to a GET. The names of `headers` are in lower case."""
    content = Compressed(file) if host.gzip else file
    described = host.describe(content, stored)
    if not host.ranges:
        return Reply(200, content.read(), {**described, "content-length": str(content.size)})
    if not _if_match_holds(headers.get("if-match"), described.get("etag")):
        return s3_error(
            412,
            "PreconditionFailed",
            "At least one of the pre-conditions you specified did not hold",
            Condition="If-Match",
        )
    wanted = _range(headers.get("range"), content.size)
    if wanted is None or not _if_range_holds(headers.get("if-range"), described):
        whole = {**described, "content-length": str(content.size)}
        return Reply(200, content.read(), whole)
    start, stop = wanted
    if start >= stop:
        refused = s3_error(416, "InvalidRange", "The requested range is not satisfiable")
        return Reply(
            416, refused.body, {**refused.headers, "content-range": f"bytes */{content.size}"}
        )
    part = {
        **described,
        "content-length": str(stop - start),
        "content-range": f"bytes {start}-{stop - 1}/{content.size}",
    }
    return Reply(206, content.read(start, stop), part)


def _if_match_holds(condition: str | None, etag: str | None) -> bool:
    if condition is None or condition.strip() == "*":
        return True
    # Strong comparison (RFC 9110, 13.1.1): a weak tag matches none.
    if etag is None or etag.startswith("W/"):
        return False
    return etag in (tag.strip() for tag in condition.split(","))


def _if_range_holds(condition: str | None, described: Mapping[str, str]) -> bool:
    return condition is None or condition.strip() in (
        described.get("etag"),
        described.get("last-modified"),
    )


def _range(header: str | None, size: int) -> tuple[int, int] | None:
    """Start and stop of the range asked for; None: the whole, as S3 does for several ranges."""
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or found.group() == "bytes=-":
        return None
    first, last = found.groups()
    if not first:  # the last n bytes
        return (max(0, size - int(last)), size) if int(last) else (size, size)
    if last and int(last) < int(first):
        return None  # malformed: ignored
    return int(first), min(size, int(last) + 1) if last else size
