"""Requests to the vendor's API, and the errors for the statuses of its answers.

Paths and codes are those of the vendor's page, "User Segments Export API". The bodies of successful
answers are read in `decoding`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import attrs

from segments_async._sansio.api.json_values import is_encoded_twice
from segments_async._sansio.api.redaction import redact
from segments_async._sansio.api.retry_after import retry_after_seconds
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

#: The resource is at another URL, and the request was not carried out (RFC 9110, section 15.4).
MOVED = frozenset({301, 307, 308})
#: `MOVED`, and two statuses with which web frameworks also answer a POST that was carried out.
REDIRECTS = MOVED | {302, 303}

#: Characters of an error page that an error keeps: enough to read, too few to fill a log.
EXCERPT_CHARACTERS = 2048

#: Characters of the header that names the exceeded limit.
LONGEST_SCOPE = 80

#: Ids that may go into a URL's path and into a file's name. The page's ids are UUIDs; the API key
#: and other vendors' ids suggest that other forms may come. These characters aren't special there.
LONGEST_ID = 128
_ID = re.compile(rf"[A-Za-z0-9_-]{{1,{LONGEST_ID}}}")

#: Largest answers read, in bytes: a list, and any other answer. 100 000 segments are 32 MB.
LIST_CAP = 64 * 1024 * 1024
STATUS_CAP = 1024 * 1024


@attrs.frozen
class ApiRequest:
    """One request to the vendor's API, without credentials.

    Attributes:
        cap: bytes of its answer that are read at most; a larger answer is an error.
    """

    method: str
    path: str
    body: bytes | None = None
    cap: int = STATUS_CAP


#: Headers that error messages quote.
SHOWN_HEADERS = frozenset({"content-type", "location", "x-mp-rate-limit-exceeded"})

#: Charsets in which a secret has the same bytes as in UTF-8.
_LIKE_ASCII = re.compile(r"utf-?8|us-ascii|ascii|iso-8859-\d+|windows-125\d|latin-?1")


@attrs.frozen
class ApiAnswer:
    """One whole answer.

    Attributes:
        headers: by lower-case names.
        at: when the answer was complete, in seconds of the event loop's clock.
        raised: the error that a response hook of the caller's HTTP client raised. It is raised
            again after the answer was evaluated.
    """

    status: int
    # Not in the repr, which tracebacks may show: a COMPLETE export's body has the signed link.
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)
    at: float = 0.0
    raised: Exception | None = None


#: Statuses that say "not now" of a request, and that nothing was done about it: 408 Request Timeout
#: (RFC 9110, 15.5.9: "the client MAY repeat the request"), 421 Misdirected Request (15.5.20), 425
#: Too Early (RFC 8470, 5.2), 429 Too Many Requests (RFC 6585).
NOT_NOW = frozenset({408, 421, 425, 429})

#: "There is nothing at this path": no such segment, export or list. A gateway says so, too, while
#: it has no route to the API, as during a deployment.
ABSENT = frozenset({404, 410})

#: "This path takes no such request". The segment is not the reason: a web server
#: that serves a static page in the API's place answers so.
NO_METHOD = 405
UNROUTED = ABSENT | {NO_METHOD}

#: The header of AWS's firewall with which it answers in the place of an API.
_FIREWALL = "x-amzn-waf-action"

#: How a JSON object or list begins, in any of Unicode's encodings, byte order mark or not.
_JSON_STARTS = frozenset({b"{", b"[", b"\x00", b"\xef", b"\xfe", b"\xff"})


def checked_id(kind: str, value: object) -> str:
    """Return the id if it can go into a URL; else ConfigurationError, before anything is sent."""
    if not isinstance(value, str) or not _ID.fullmatch(value):
        # Redacted before repr(), which escapes characters: the value may be a link or a header.
        shown = repr(redact(value)) if isinstance(value, str) else type(value).__name__
        raise ConfigurationError(f"not the id of {kind}: {shown:.160}")
    return value


def list_request() -> ApiRequest:
    return ApiRequest("GET", LIST_PATH, cap=LIST_CAP)


def submit_request(segment_id: str, output_format: OutputFormat) -> ApiRequest:
    # Neither text has a character that JSON escapes.
    known = checked_id("a segment", segment_id)
    body = f'{{"segmentId": "{known}", "outputFormat": "{output_format.value}"}}'
    return ApiRequest("POST", EXPORT_PATH, body.encode())


def poll_request(export_id: str) -> ApiRequest:
    return ApiRequest("GET", EXPORT_PATH + checked_id("an export", export_id))


def is_id(value: str) -> bool:
    """Whether an id can go into a URL."""
    return _ID.fullmatch(value) is not None


def raise_for_status(request: ApiRequest, answer: ApiAnswer) -> None:
    """Raise the error for a status outside of 2xx; the page names 200 alone."""
    if not 200 <= answer.status <= 299:
        raise status_error(request, answer)


def status_error(request: ApiRequest, answer: ApiAnswer) -> APIStatusError:
    """The error for an answer without success. The API's redirects are not followed."""
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
    """The part of an error page that an error keeps; none of a page in UTF-16 and the like.

    There the secrets that a page repeats of the request would not be found.
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
    405: (APIStatusError, "the server in the API's place takes no such request at present"),
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


def is_not_yet(answer: ApiAnswer) -> bool:
    """Whether a poll's status alone says that there is nothing to tell yet, as some APIs' does.

    A gateway may answer so as well; AWS's firewall does, and names its action in a header.
    """
    return answer.status in (202, 204) and not (answer.body or _FIREWALL in answer.headers)


def is_away(answer: ApiAnswer) -> bool:
    """Whether the answer comes from a gateway, and says that the vendor can't be reached.

    502, 503, 504 and their like are a gateway's, and a 200 that isn't JSON is a login or a
    maintenance page's, as a redirect leads to one. 408 is said by a server that has no time to
    read. 500 is the vendor's own: the ticket guard's.
    """
    if 200 <= answer.status <= 299:
        json = answer.body[:64].lstrip()[:1] in _JSON_STARTS or is_encoded_twice(answer.body)
        return not json
    return answer.status in REDIRECTS or answer.status == 408 or 501 <= answer.status <= 599
