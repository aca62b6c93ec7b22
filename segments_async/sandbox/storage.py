"""The file host: one stored file, whole or in ranges (RFC 9110, sections 13 and 14)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

from .answer import Reply
from .clock import http_date
from .content import Content
from .links import s3_error

_RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.IGNORECASE)


def serve(content: Content, stored: datetime, headers: Mapping[str, str]) -> Reply:
    """The answer to a GET. `headers` have names in lower case."""
    described = {
        "accept-ranges": "bytes",
        "content-type": "text/csv",
        "etag": content.etag(),
        "last-modified": http_date(stored),
    }
    if not _if_match_holds(headers.get("if-match"), content.etag()):
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


def _if_match_holds(condition: str | None, etag: str) -> bool:
    if condition is None or condition.strip() == "*":
        return True
    return etag in (tag.strip() for tag in condition.split(","))


def _if_range_holds(condition: str | None, described: Mapping[str, str]) -> bool:
    return condition is None or condition.strip() in (
        described["etag"],
        described["last-modified"],
    )


def _range(header: str | None, size: int) -> tuple[int, int] | None:
    """Start and stop of the range asked for; None: the whole (so also for several, as S3)."""
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or found.group() == "bytes=-":
        return None
    first, last = found.groups()
    if not first:  # the last n bytes
        return (max(0, size - int(last)), size) if int(last) else (size, size)
    if last and int(last) < int(first):
        return None  # malformed: ignored
    return int(first), min(size, int(last) + 1) if last else size
