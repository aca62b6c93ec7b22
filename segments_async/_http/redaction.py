"""What other libraries tell of our requests: their log lines, and their spans.

httpx and its layers log URLs and headers, and tracers record them. Of ours, an API request carries
credentials, and a link's query is one.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import Mapping
from contextvars import ContextVar, Token
from typing import Any

#: What may be shown of the URL of the request that is being sent; None where none of ours is.
_in_flight: ContextVar[str | None] = ContextVar("segments_async_request_in_flight", default=None)


class redact_logs:  # noqa: N801 - used as a function; a generator would cost each request 2 µs more
    """Within the block a request of ours is sent, and its answer's head received.

    Args:
        url: what may be shown of the request's URL.
    """

    __slots__ = ("_token", "_url")

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        self._token: Token[str | None] = _in_flight.set(self._url)

    def __exit__(self, *_: object) -> None:
        _in_flight.reset(self._token)


def no_tracing() -> contextlib.AbstractContextManager[Any]:
    """Within the block, OpenTelemetry's HTTP instrumentations make no span and add no header.

    A span would have the link's signature (their redaction doesn't know X-Amz-Signature), and
    `traceparent` would go to whoever has the file. Nothing is imported: where that module isn't
    loaded, no instrumentation is.
    """
    utils = sys.modules.get("opentelemetry.instrumentation.utils")
    suppress: Any = getattr(utils, "suppress_http_instrumentation", contextlib.nullcontext)
    manager: contextlib.AbstractContextManager[Any] = suppress()
    return manager


class _Requests(logging.Filter):
    """httpx logs each full URL at INFO; of ours to storage, a part of it is a credential.

    The request is known, so nothing is searched for: the line is made anew.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        url = _in_flight.get()
        if url is not None:
            record.msg, record.args = _request_line(record.args, url), None
        return True


def _request_line(told: tuple[object, ...] | Mapping[str, object] | None, url: str) -> str:
    """As httpx's own line, but for the URL and for the reason, which is a server's text."""
    match told:
        case (str(method), _, str(version), int(status), _):
            return f'HTTP Request: {method} {url} "{version} {status}"'
        case _:
            return f"HTTP Request: {url}"


#: httpcore's events that tell of a connection, and nothing of what goes over it.
_OF_A_CONNECTION = ("connect_tcp.", "connect_unix_socket.", "start_tls.")

_STATUS = re.compile(r"return_value=\((?:b'HTTP/[0-9.]+', )?([1-5][0-9]{2}), ")
_ERROR = re.compile(r"exception=([A-Za-z_]\w*)\(")


class _Events(logging.Filter):
    """At DEBUG httpcore logs an answer's headers: a Location may be signed, cookies are secrets.

    Of a SOCKS proxy it logs the password. What may be shown is picked out: the event's name, the
    status, the class of an error.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if _in_flight.get() is not None:
            record.msg, record.args = _event(record.getMessage()), None
        return True


def _event(line: str) -> str:
    if line.startswith(_OF_A_CONNECTION):
        return line
    found = _STATUS.search(line) or _ERROR.search(line)
    return line.partition(" ")[0] + (f" {found[1]}" if found else "")


class _Drop(logging.Filter):
    """hpack logs each header at DEBUG, in pieces that nothing could be found in to redact."""

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - as its base has it
        return _in_flight.get() is None


# httpx2 and httpcore2 continue the two, and log the same.
for _name in ("httpx", "httpx2"):
    logging.getLogger(_name).addFilter(_Requests())
for _name in ("connection", "http11", "http2", "proxy", "socks"):
    for _package in ("httpcore", "httpcore2"):
        logging.getLogger(f"{_package}.{_name}").addFilter(_Events())
for _name in ("hpack.hpack", "hpack.table"):
    logging.getLogger(_name).addFilter(_Drop())
