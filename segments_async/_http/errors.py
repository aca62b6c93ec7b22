"""The meaning of httpx's errors, and the removal of secrets before a caller sees them.

httpx2 continues httpx with the same API and other classes, so errors are recognized by the names
of their classes.
"""

from __future__ import annotations

import re
from typing import Any

from segments_async._sansio.api.redaction import redact
from segments_async._sansio.error_chain import chain
from segments_async.errors import printable

#: httpx's errors that come before the first byte of the request. ProxyError: the tunnel failed.
_UNSENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "InvalidURL"})
_TRANSPORT = frozenset({"TransportError", "RequestError", "StreamError", "InvalidURL"})
_NO_ANSWER = frozenset({"NetworkError", "TimeoutException", "RemoteProtocolError", "ProxyError"})

#: HTTP/2's error code for a stream that was refused before any of it was processed.
_REFUSED_STREAM = 7

#: The packages that a request goes through.
_LAYERS = frozenset({"httpx", "httpx2", "httpcore", "httpcore2", "h11", "h2"})

#: h11 quotes a header that it can't parse after these words, and other bytes as a bytearray. Where
#: a chunk's length is wrong, these are bytes of the file: a user's data.
_QUOTED = re.compile(r"(?is)(header (?:line|name|value)\b|\bbytearray\().*")


def was_sent(exc: Exception) -> bool | None:
    """Whether a failed request may have arrived; None if the error isn't one of httpx's."""
    names = _httpx_names(exc)
    if names & _UNSENT:
        return False
    return True if names & _TRANSPORT else None


def was_unprocessed(exc: Exception, stream_id: int | None) -> bool:
    """Whether an HTTP/2 server said that it did not process the request (RFC 9113, 8.7).

    The server says so by a GOAWAY whose last stream precedes this one, or by a reset of the stream
    as refused. httpcore raises the event itself, or sends the request again on another connection.
    """
    if stream_id is None:
        return False
    for error in chain(exc):
        event: Any = error.args[0] if error.args else None
        last = getattr(event, "last_stream_id", None)
        if isinstance(last, int) and last < stream_id:
            return True
        reset = getattr(event, "stream_id", None), getattr(event, "error_code", None)
        if reset == (stream_id, _REFUSED_STREAM):
            return True
    return False


def is_no_answer(exc: Exception) -> bool:
    """Whether the server, or the network on the way to it, failed.

    A full pool and an invalid URL are faults of this process.
    """
    names = _httpx_names(exc)
    return isinstance(exc, OSError) or bool(names & _NO_ANSWER and "PoolTimeout" not in names)


def carries_response(exc: Exception) -> bool:
    """Whether this is the HTTPStatusError that `raise_for_status()` of httpx or httpx2 raises."""
    return "HTTPStatusError" in _httpx_names(exc) and getattr(exc, "response", None) is not None


def described(exc: Exception) -> str:
    """The error's class and text; for an error without text, the first text among its causes.

    On trio a refused certificate is a ConnectError without text.
    """
    text = next((text for error in chain(exc) if (text := str(error))), "")
    return printable(_redacted(f"{type(exc).__name__}: {text}" if text else type(exc).__name__))


def forget_request(exc: BaseException, until: BaseException | None = None) -> None:
    """Remove credentials and signed URLs from an httpx error and its causes.

    Removed are the request; the frames, whose local variables error reporters show, the
    Authorization header among them; and the parts of an answer that a message quotes.

    Args:
        exc: the error.
        until: the exception that the caller was handling when the request began; left as it is.
    """
    for error in chain(exc, until):
        error.__traceback__ = None
        if "_request" in vars(error):
            vars(error)["_request"] = None
        if type(error).__module__.partition(".")[0] in _LAYERS:
            error.args = tuple(_redacted(a) if isinstance(a, str) else a for a in error.args)


def _httpx_names(exc: Exception) -> set[str]:
    return {cls.__name__ for cls in type(exc).__mro__ if cls.__module__.startswith("httpx")}


def _redacted(text: str) -> str:
    return redact(_QUOTED.sub(_without_quote, text))


def _without_quote(found: re.Match[str]) -> str:
    return "..." if found[1].startswith("bytearray") else f"{found[1]} ..."
