"""The vendor's answer, and how its connection breaks on the way to the client."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from attrs import field, frozen

from .record import Entry, Lost


class BrokenBody(ConnectionError):
    """The connection closes here, before the announced body has gone out."""


@frozen
class Reply:
    """A status, a body, and the headers of this reply alone.

    Attributes:
        status: of HTTP.
        body: whole, or in pieces.
        headers: names in lower case.
    """

    status: int
    body: bytes | Iterable[bytes] = b""
    headers: Mapping[str, str] = field(factory=dict[str, str])


@frozen
class Answer:
    """One answer of the sandbox: the vendor's reply, and the faults of its connection.

    Attributes:
        status: of HTTP.
        headers: names in lower case.
        body: whole, or in pieces.
        entry: of the record.
        lost: where not ``"no"``, the client gets not a byte, and the connection breaks.
        unreachable: the connection was never made, and nothing was sent.
        cut_after: bytes of the body that go out before the connection breaks; None for all.
        delay: seconds that the answer is held back, besides the latency.
        rate: bytes/s of the connection; None for as many as it takes.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes | Iterable[bytes]
    entry: Entry
    lost: Lost = "no"
    unreachable: bool = False
    cut_after: int | None = None
    delay: float = 0.0
    rate: float | None = None

    @classmethod
    def whole(cls, entry: Entry, reply: Reply, date: str, rate: float | None) -> Answer:
        """The reply as the vendor sends it; `date` is for its Date header."""
        entry.status = reply.status
        headers = {"date": date, **reply.headers}
        if isinstance(reply.body, bytes):
            headers.setdefault("content-length", str(len(reply.body)))
        return cls(reply.status, headers, reply.body, entry, rate=rate)

    def pieces(self) -> Iterator[bytes]:
        """The body as it goes out.

        As on a real connection, no byte goes out beyond Content-Length, and a body that ends before
        it breaks the connection.

        Raises:
            BrokenBody: the connection breaks here.
        """
        declared = self.headers.get("content-length")
        length = math.inf if declared is None else int(declared)
        room = min(length, math.inf if self.cut_after is None else self.cut_after)
        sent = 0
        for whole in (self.body,) if isinstance(self.body, bytes) else self.body:
            piece = whole if sent + len(whole) <= room else whole[: int(room) - sent]
            if piece:
                sent += len(piece)
                self.entry.sent += len(piece)
                yield piece
            if len(piece) < len(whole):
                if sent == self.cut_after and sent != length:
                    raise BrokenBody(f"closed after {sent} of {declared} bytes of body")
                break
        if declared is not None and sent < length:
            raise BrokenBody(f"closed after {sent} of {declared} bytes of body")
