"""The content codings of answers, the API's and storage's, which were not asked for.

Every request says ``Accept-Encoding: identity``. Still a proxy may compress, and servers put words
there that name no coding: a charset, "none", S3's "aws-chunked". An answer to a POST has the id of
an export that runs, so what can be read is read.
"""

from __future__ import annotations

import zlib

#: RFC 9110, section 8.4.1, and what the registry there has added since.
_CODINGS = frozenset(
    {"gzip", "x-gzip", "deflate", "br", "zstd", "compress", "x-compress", "dcb", "dcz"}
)

_GZIP = b"\x1f\x8b"


def codings(header: str | None) -> list[str]:
    """The codings that a Content-Encoding names, outermost last; none that isn't one."""
    names = [name.strip().lower() for name in (header or "").split(",")]
    return [name.removeprefix("x-") for name in names if name in _CODINGS]


def decoded(body: bytes, names: list[str], cap: int) -> bytes | None:
    """The body without its codings; None where it can't be decoded, or to more than `cap` bytes.

    A body that isn't gzip although the header says so was decoded on its way, and stays as it is.
    """
    for name in reversed(names):
        if name == "gzip" and body[:2] != _GZIP:
            continue
        found = _inflated(body, cap) if name in ("gzip", "deflate") else None
        if found is None:
            return None
        body = found
    return body


def _inflated(body: bytes, cap: int) -> bytes | None:
    # 47: gzip or zlib, told apart by their heads. Browsers take a bare deflate for zlib's, too.
    for window in (47, -15):
        decoder = zlib.decompressobj(window)
        try:
            found = decoder.decompress(body, cap)
        except zlib.error:
            continue
        return found if decoder.eof else None
    return None
