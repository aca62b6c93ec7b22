"""What goes back to the client, and how it breaks on the way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from attrs import field, frozen

from .record import Entry, Lost


class BrokenBody(ConnectionError):
    """The connection closes here, before the body that was announced has gone out."""


@frozen
class Reply:
    """A status, a body and the headers that are particular to it."""

    status: int
    body: bytes | Iterable[bytes] = b""
    headers: Mapping[str, str] = field(factory=dict[str, str])


@frozen
class Answer:
    """One answer of the sandbox: what the vendor says, and what becomes of it on the wire.

    Header names are in lower case.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes | Iterable[bytes]
    entry: Entry
    lost: Lost = "no"  # the client sees the connection break and not a byte of this
    unreachable: bool = False  # the connection was never made: nothing was sent
    cut_after: int | None = None  # bytes of body that go out before the connection breaks
    delay: float = 0.0  # seconds it is held back, on top of the latency
    rate: float | None = None  # bytes/s that its connection gets; None: as many as it takes

    def pieces(self) -> Iterator[bytes]:
        """The body as it goes out; raises `BrokenBody` where the connection breaks.

        As on a real connection: no byte beyond Content-Length, and ending short of it is a break.
        """
        declared = self.headers.get("content-length")
        length = int(declared) if declared is not None else None
        room = min((n for n in (self.cut_after, length) if n is not None), default=None)
        sent, whole = 0, True
        for piece in (self.body,) if isinstance(self.body, bytes) else self.body:
            if room is not None and sent + len(piece) > room:
                piece, whole = piece[: room - sent], False
            if piece:
                sent += len(piece)
                self.entry.sent += len(piece)
                yield piece
            if not whole:
                break
        cut = not whole and sent == self.cut_after and sent != length
        if cut or (length is not None and sent < length):
            raise BrokenBody(f"closed after {sent} of {length} bytes of body")
