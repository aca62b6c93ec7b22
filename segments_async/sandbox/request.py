"""A request to the API: its sender, its kind, and the fields of a POST."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal, cast

from . import page
from .answer import Reply
from .clock import http_date
from .record import Kind

LARGEST_BODY: Final = 1 << 20
"""Bytes of a request's body (assumed)."""

JSON: Final[Mapping[str, str]] = {"content-type": "application/json"}


class Request:
    """One request to the API, which arrives at `now`. Its path is without the query."""

    __slots__ = ("body", "document", "headers", "method", "now", "path")

    def __init__(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, now: float
    ) -> None:
        self.method: str = method
        self.path: str = path.partition("?")[0]
        self.headers: Mapping[str, str] = headers
        self.body: bytes = body
        self.now: float = now
        self.document: Mapping[str, object] | None = _object(body) if body else None

    @property
    def segment_id(self) -> str | None:
        """The segment that a POST names; None where it names none."""
        asked = self.document.get("segmentId") if self.document else None
        return asked if isinstance(asked, str) else None

    def malformed(self) -> Reply | None:
        """The error of a malformed POST; None: it is well-formed.

        The codes are assumed; the page names header and fields.
        """
        media_type = (header(self.headers, "content-type") or "").partition(";")[0]
        if media_type.strip().lower() != "application/json":
            return error(415, "Content-Type must be application/json")
        if len(self.body) > LARGEST_BODY:
            return error(413, "The body is too large")
        if self.document is None:
            return error(400, "The body must be a JSON object")
        if self.segment_id is None:
            return error(400, "segmentId is required")
        output_format = self.document.get("outputFormat")
        if not isinstance(output_format, str) or output_format.lower() != "csv":
            return error(400, "outputFormat: currently only CSV is supported")
        return None


def kind_of(method: str, path: str) -> Kind:
    """The kind of a request, by the page's exact paths: only the POST's ends in a slash."""
    match method:
        case "GET" if path == page.LIST_PATH:
            return "list"
        case "GET" if path in ("", "/"):
            return "root"
        case "GET" if path == page.OPENAPI_PATH:
            return "openapi"
        case "GET" if path.startswith(page.EXPORT_PATH):
            export_id = path[len(page.EXPORT_PATH) :]
            return "poll" if export_id and "/" not in export_id else "other"
        case "POST" if path == page.EXPORT_PATH:
            return "submit"
        case _:
            return "other"


def misdirected(path: str) -> Reply:
    """404 for a path that isn't the page's, 405 for another method on one that is (assumed)."""
    for method in ("GET", "POST"):
        if kind_of(method, path) != "other":
            return error(405, "Method Not Allowed", {"allow": method})
    return error(404, "Not Found")


def error(status: int, message: str, more: Mapping[str, str] | None = None) -> Reply:
    """An error. Its form is assumed; "All API responses are in JSON format" is the page's."""
    body = f'{{\n  "error": {json.dumps(message)}\n}}'.encode()
    return Reply(status, body, {**JSON, **more} if more else JSON)


def throttled(
    retry_after: Literal["seconds", "date"] | None, wait: float, until: datetime
) -> Reply:
    """429. The page has no Retry-After; an option of the sandbox adds one in either form.

    Args:
        retry_after: the form; None for no Retry-After.
        wait: seconds until a request is admitted.
        until: the first whole second at which one is.
    """
    more: dict[str, str] = {}
    if retry_after == "seconds":
        more = {"retry-after": str(max(1, math.ceil(wait)))}
    elif retry_after == "date":
        more = {"retry-after": http_date(until)}
    return error(429, "Too Many Requests", more)


def header(headers: Mapping[str, str], name: str) -> str | None:
    """A header's value. `name` is in lower case; the mapping's names may be in any case."""
    value = headers.get(name)
    if value is not None:
        return value
    return next((v for k, v in headers.items() if k.lower() == name), None)


def basic(user: str, password: str) -> str:
    """The Authorization header of these credentials."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def normal_basic(given: str) -> str:
    """An Authorization header in the form of `basic`; the scheme's case and spaces are free."""
    scheme, _, value = given.partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        user, _, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return ""
    return basic(user, password)


_HAS_ACCESS: Final[Mapping[str, bool]] = {
    basic(page.PAGE_API_KEY, page.PAGE_ACCESS_TOKEN): True,
    basic(page.FREE_API_KEY, page.FREE_ACCESS_TOKEN): False,
}


def has_access(headers: Mapping[str, str]) -> bool | None:
    """Whether the sender's account has the Export API; None: there is no such account."""
    given = header(headers, "authorization")
    if given is None:
        return None
    found = _HAS_ACCESS.get(given)
    return found if found is not None else _HAS_ACCESS.get(normal_basic(given))


def _object(body: bytes) -> Mapping[str, object] | None:
    """The body as a JSON object; None: it is none."""
    try:
        document: object = json.loads(body) if len(body) <= LARGEST_BODY else None
    except (ValueError, RecursionError):
        return None
    return cast("Mapping[str, object]", document) if isinstance(document, dict) else None
