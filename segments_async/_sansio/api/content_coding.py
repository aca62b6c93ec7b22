"""The content codings of answers of the API and of storage.

Every request says ``Accept-Encoding: identity``. Still a proxy may compress an answer, and servers
write words there that name no coding: a charset, "none", S3's "aws-chunked". An answer to a POST
has the id of an export that runs, so an answer in a known coding is decoded.
"""

from __future__ import annotations

import zlib

from segments_async._sansio.api.json_values import is_whole

#: RFC 9110, section 8.4.1, and later additions to the registry there.
_CODINGS = frozenset(
    {"gzip", "x-gzip", "deflate", "br", "zstd", "compress", "x-compress", "dcb", "dcz"}
)

_GZIP = b"\x1f\x8b"


def codings(header: str | None) -> list[str]:
    """The known codings in a Content-Encoding, outermost last."""
    if not header:
        return []
    names = [name.strip().lower() for name in header.split(",")]
    return [name.removeprefix("x-") for name in names if name in _CODINGS]


def codings_of(header: str | None, body: bytes) -> list[str]:
    """As `codings`; gzip also where a proxy dropped the header: no JSON or page begins so."""
    return codings(header) or (["gzip"] if body[:2] == _GZIP else [])


def decoded(body: bytes, names: list[str], cap: int) -> bytes | None:
    """The decoded body; None if it can't be decoded, or has more than `cap` bytes.

    A body that isn't gzip although the header says so was decoded on its way, and stays as it is.
    So does a body that is whole JSON, whatever coding the header names.
    """
    for name in reversed(names):
        if name == "gzip" and body[:2] != _GZIP:
            continue
        if is_whole(body):
            break  # it stays whole JSON, however many codings are left: it is parsed once
        found = _inflated(body, cap) if name in ("gzip", "deflate") else None
        if found is None:
            return None
        body = found
    return body


def _inflated(body: bytes, cap: int) -> bytes | None:
    # 47: gzip or zlib, which zlib recognizes. -15: "deflate" without a header; browsers accept it.
    for window in (47, -15):
        decoder = zlib.decompressobj(window)
        try:
            found = decoder.decompress(body, cap)
        except zlib.error:
            continue
        # Where the end of the stream is missing, the JSON in it may be whole all the same.
        return found if decoder.eof or is_whole(found) else None
    return None
