"""What to send to the vendor, and what the status of an answer says.

Paths and codes are those of the vendor's page, "User Segments Export API". What a body of success
holds is read in `decoding`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import attrs

from segments_async._sansio.api.redaction import redact
from segments_async._sansio.pace.backoff import retry_after_seconds
from segments_async.errors import (
    APIStatusError,
    AuthenticationError,
    ConfigurationError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    ServerError,
)
from segments_async.models import OutputFormat

LIST_PATH = "/service/v1/segments/list"
EXPORT_PATH = "/service/v1/segments/export/"

#: Paths without an id in them.
FIXED_PATHS = frozenset({LIST_PATH, EXPORT_PATH})

#: "Not here": what is asked for is at another place, and was not done (RFC 9110, section 15.4).
MOVED = frozenset({301, 307, 308})
#: The same, or "done, look there": web frameworks answer a POST with either.
REDIRECTS = MOVED | {302, 303}

#: Of an error page, this much is kept: enough to read, too little to fill a log.
EXCERPT_CHARACTERS = 2048

#: Of the word that says which limit was hit, this much.
LONGEST_SCOPE = 80

#: What may stand in a URL's path and in a file's name. The page's ids are UUIDs; the API key and
#: other vendors' ids suggest that more may come, and none of these characters can leave its place.
LONGEST_ID = 128
_ID = re.compile(rf"[A-Za-z0-9_-]{{1,{LONGEST_ID}}}")


@attrs.frozen
class ApiRequest:
    """One request to the vendor's API, without credentials."""

    method: str
    path: str
    body: bytes | None = None


#: Headers that messages quote.
SHOWN_HEADERS = frozenset({"content-type", "location", "x-mp-rate-limit-exceeded"})

#: Charsets in which a page is read as UTF-8 reads it, as far as a secret goes.
_LIKE_ASCII = re.compile(r"utf-?8|us-ascii|ascii|iso-8859-\d+|windows-125\d|latin-?1")


@attrs.frozen
class ApiAnswer:
    """One whole answer. Its headers are found by their names in lower case.

    `at` is when it was whole, in seconds of the event loop's clock. `raised` is what a response
    hook of the caller's HTTP client raised at it: the answer counts first, then that is raised.
    """

    status: int
    # Of a COMPLETE export the body has the signed link, and tracebacks may show what frames hold.
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)
    at: float = 0.0
    raised: Exception | None = None


def checked_id(kind: str, value: object) -> str:
    """Return the id if it can go into a URL, else refuse it before anything is sent."""
    if not isinstance(value, str) or not _ID.fullmatch(value):
        # It may be a link, or an Authorization header: in its repr, redact() would miss some.
        shown = repr(redact(value)) if isinstance(value, str) else type(value).__name__
        raise ConfigurationError(f"not the id of {kind}: {shown:.160}")
    return value


def list_request() -> ApiRequest:
    return ApiRequest("GET", LIST_PATH)


def submit_request(segment_id: str, output_format: OutputFormat) -> ApiRequest:
    # Of characters that JSON takes as they are, both of them.
    known = checked_id("a segment", segment_id)
    body = f'{{"segmentId": "{known}", "outputFormat": "{output_format.value}"}}'
    return ApiRequest("POST", EXPORT_PATH, body.encode())


def poll_request(export_id: str) -> ApiRequest:
    return ApiRequest("GET", EXPORT_PATH + checked_id("an export", export_id))


def is_id(value: str) -> bool:
    """Whether an id of the vendor's can go into a URL."""
    return _ID.fullmatch(value) is not None


def raise_for_status(request: ApiRequest, answer: ApiAnswer) -> None:
    """Raise the error that a status code stands for. The page knows 200 alone; 201 would do."""
    if not 200 <= answer.status <= 299:
        raise status_error(request, answer)


def status_error(request: ApiRequest, answer: ApiAnswer) -> APIStatusError:
    """The error for an answer whose status isn't 200. Redirects are not followed on the API."""
    error, text = _MEANINGS.get(answer.status, (APIStatusError, "an unexpected answer"))
    if answer.status in REDIRECTS:
        host = _host_of(answer.headers.get("location"))
        text = f"a redirect to {host}, which is not followed: base_url is not where the API is"
    if 500 <= answer.status <= 599:
        error = ServerError
    facts: dict[str, Any] = {}
    if error is RateLimitedError:
        scope = answer.headers.get("x-mp-rate-limit-exceeded")
        facts["scope"] = scope and redact(scope)[:LONGEST_SCOPE]
    return error(
        f"{request.method} {request.path}: {answer.status}: {text}",
        method=request.method,
        path=request.path,
        status_code=answer.status,
        body=_excerpt(answer),
        retry_after=retry_after_seconds(answer.status, answer.headers),
        **facts,
    )


def _excerpt(answer: ApiAnswer) -> str:
    """What an error keeps of its page.

    Of one in UTF-16 and the like, nothing: what it repeats of the request isn't found there.
    """
    kind = answer.headers.get("content-type", "").lower()
    charset = kind.partition("charset=")[2].partition(";")[0].strip(" \"'")
    if b"\0" in answer.body or (charset and not _LIKE_ASCII.fullmatch(charset)):
        return ""
    page = answer.body[: 4 * EXCERPT_CHARACTERS].decode("utf-8", "replace")
    return redact(page)[:EXCERPT_CHARACTERS]


def _host_of(location: str | None) -> str:
    """The host that a redirect names, for a message; the header may hold anything."""
    try:
        host = urlsplit(location or "").hostname
    except ValueError:
        host = None
    return repr(redact(host))[:260] if host else "the same host"


# The sentences after the codes that the page lists are the page's, shortened.
_MEANINGS: dict[int, tuple[type[APIStatusError], str]] = {
    401: (
        AuthenticationError,
        "could not validate the credentials; check that API key and access token are correct",
    ),
    403: (
        PermissionDeniedError,
        "the project does not have access to the Export API; upgrade the account (the Export API "
        "takes a Pro or Enterprise plan) or contact Analytics support to gain access",
    ),
    404: (NotFoundError, "no such segment or export in this account"),
    429: (RateLimitedError, "too many requests in a given amount of time"),
    500: (
        ServerError,
        "an error occurred at the vendor, which has raised a ticket with the Analytics team by "
        "itself; try again at a later time",
    ),
    502: (ServerError, "bad gateway"),
    503: (ServerError, "service unavailable"),
    504: (ServerError, "gateway timeout"),
}
