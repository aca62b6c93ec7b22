"""Log lines and spans of other libraries, without the secrets of this library's requests.

httpx and its layers log URLs and headers, and tracers record them. Headers of an API request hold
credentials, and the query of a link to a file is a credential.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import Mapping
from contextvars import ContextVar, Token
from typing import Any

#: The printable part of the URL of the request that is being sent; None outside of our requests.
_in_flight: ContextVar[str | None] = ContextVar("segments_async_request_in_flight", default=None)


class redact_logs:  # noqa: N801 - used as a function; a generator would cost each request 2 µs more
    """Redact log lines within the block, in which a request of ours is sent.

    Args:
        url: the printable part of the request's URL.
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

    A span would record the link's signature (OpenTelemetry does not redact X-Amz-Signature), and
    storage would receive `traceparent`. Nothing is imported: if OpenTelemetry's module isn't
    loaded, no instrumentation is active.
    """
    utils = sys.modules.get("opentelemetry.instrumentation.utils")
    suppress: Any = getattr(utils, "suppress_http_instrumentation", contextlib.nullcontext)
    manager: contextlib.AbstractContextManager[Any] = suppress()
    return manager


class _Requests(logging.Filter):
    """Makes httpx's line about a request of ours a line of level DEBUG, without the full URL.

    httpx logs each request at INFO, and a run has hundreds of thousands. So our requests have their
    lines where httpx's logger is at DEBUG; a caller's own clients keep their lines at INFO.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        url = _in_flight.get()
        if url is None:
            return True
        record.msg, record.args = _request_line(record.args, url), None
        if record.levelno == logging.INFO:
            # Handlers look at the record's level after this.
            record.levelno, record.levelname = logging.DEBUG, logging.getLevelName(logging.DEBUG)
        return logging.getLogger(record.name).isEnabledFor(record.levelno)


def _request_line(args: tuple[object, ...] | Mapping[str, object] | None, url: str) -> str:
    """Httpx's own line with the printable URL, and without the reason phrase of the server."""
    match args:
        case (str(method), _, str(version), int(status), _):
            return f'HTTP Request: {method} {url} "{version} {status}"'
        case _:
            return f"HTTP Request: {url}"


#: httpcore's events about a connection, which have no data of requests.
_OF_A_CONNECTION = ("connect_tcp.", "connect_unix_socket.", "start_tls.")

_STATUS = re.compile(r"return_value=\((?:b'HTTP/[0-9.]+', )?([1-5][0-9]{2}), ")
_ERROR = re.compile(r"exception=([A-Za-z_]\w*)\(")


class _Events(logging.Filter):
    """Replaces httpcore's lines at DEBUG by the event's name, the status, or the error's class.

    httpcore logs an answer's headers: a Location may be signed, and cookies are secrets. It logs
    the password of a SOCKS proxy, too.
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
    """Drops hpack's lines at DEBUG: they have headers in pieces that can't be redacted."""

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - as its base has it
        return _in_flight.get() is None


# httpx2 and httpcore2 continue httpx and httpcore, and log the same lines.
for _name in ("httpx", "httpx2"):
    logging.getLogger(_name).addFilter(_Requests())
for _name in ("connection", "http11", "http2", "proxy", "socks"):
    for _package in ("httpcore", "httpcore2"):
        logging.getLogger(f"{_package}.{_name}").addFilter(_Events())
for _name in ("hpack.hpack", "hpack.table"):
    logging.getLogger(_name).addFilter(_Drop())
