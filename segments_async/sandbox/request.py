"""What a request to the API says: who sends it, and what a POST asks for."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Final, cast

from .answer import Reply

LARGEST_BODY: Final = 1 << 20
"""Bytes of a request's body (assumed)."""

JSON: Final[Mapping[str, str]] = {"content-type": "application/json"}


class Request:
    """One request to the API, arriving at `now`; its path is without the query."""

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
        """The segment that a POST names, if it names one."""
        asked = self.document.get("segmentId") if self.document else None
        return asked if isinstance(asked, str) else None

    def malformed(self) -> Reply | None:
        """What is wrong with a POST: the codes are assumed, the page names header and fields."""
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


def error(status: int, message: str, more: Mapping[str, str] | None = None) -> Reply:
    """An error; its form is assumed, "All API responses are in JSON format" is not."""
    body = f'{{\n  "error": {json.dumps(message)}\n}}'.encode()
    return Reply(status, body, {**JSON, **more} if more else JSON)


def header(headers: Mapping[str, str], name: str) -> str | None:
    """A header's value; `name` is in lower case, the mapping's names may be in any."""
    value = headers.get(name)
    if value is not None:
        return value
    return next((v for k, v in headers.items() if k.lower() == name), None)


def basic(user: str, password: str) -> str:
    """The Authorization header of these credentials."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def normal_basic(given: str) -> str:
    """An Authorization header as `basic` writes it: the scheme's case and spaces are free."""
    scheme, _, value = given.partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        user, _, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return ""
    return basic(user, password)


def _object(body: bytes) -> Mapping[str, object] | None:
    """The JSON object that the body is; None: it is something else."""
    try:
        document: object = json.loads(body) if len(body) <= LARGEST_BODY else None
    except (ValueError, RecursionError):
        return None
    return cast("Mapping[str, object]", document) if isinstance(document, dict) else None
