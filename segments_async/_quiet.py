"""What other libraries tell of our requests: their log lines, and their spans.

httpx and its layers log URLs and headers, and tracers record them. Of ours, an API request carries
credentials, and a link's query is one.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from contextvars import ContextVar, Token
from typing import Any

from segments_async._sansio.links import redact

_in_flight: ContextVar[bool] = ContextVar("segments_async_request_in_flight", default=False)


class quietly:  # noqa: N801 - used as a function; a generator would cost each request 2 µs more
    """Within the block a request of ours is sent, and its answer's head received."""

    __slots__ = ("_token",)

    def __enter__(self) -> None:
        self._token: Token[bool] = _in_flight.set(True)

    def __exit__(self, *_: object) -> None:
        _in_flight.reset(self._token)


def untraced() -> contextlib.AbstractContextManager[Any]:
    """Within the block, OpenTelemetry's HTTP instrumentations make no span and add no header.

    A span would have the link's signature (their redaction doesn't know X-Amz-Signature), and
    `traceparent` would go to whoever has the file. Nothing is imported: where that module isn't
    loaded, no instrumentation is.
    """
    utils = sys.modules.get("opentelemetry.instrumentation.utils")
    suppress: Any = getattr(utils, "suppress_http_instrumentation", contextlib.nullcontext)
    manager: contextlib.AbstractContextManager[Any] = suppress()
    return manager


class _Redact(logging.Filter):
    """httpx logs each full URL at INFO; of ours to storage, the query is a credential.

    httpcore logs the headers of answers at DEBUG, and a redirect's Location is such a URL too.
    httpx2 and httpcore2 continue the two, and log the same.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if _in_flight.get():
            record.msg, record.args = redact(record.getMessage()), None
        return True


class _Drop(logging.Filter):
    """hpack logs each header at DEBUG, in pieces that nothing could be found in to redact."""

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - as its base has it
        return not _in_flight.get()


for _name in (
    "httpx",
    "httpx2",
    "httpcore.http11",
    "httpcore.http2",
    "httpcore2.http11",
    "httpcore2.http2",
):
    logging.getLogger(_name).addFilter(_Redact())
for _name in ("hpack.hpack", "hpack.table"):
    logging.getLogger(_name).addFilter(_Drop())
