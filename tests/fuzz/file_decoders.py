"""Decoders of sidecars, of gzip and CSV files, and of file names."""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import re
import unicodedata
import zlib
from collections import deque
from typing import Any

import attrs

from fuzz.fuzzing import Decoder
from fuzz.inputs import Inputs
from fuzz.storage_decoders import check_sendable
from fuzz.vendor_decoders import EXPORT, SEGMENT, SEGMENT_ID
from segments_async._files.gzip_stream import STEP, GzipDecoder, NotGzip
from segments_async._files.rows import RowParser
from segments_async._sansio.api.structure import export_from_json
from segments_async._sansio.files import sidecar
from segments_async._sansio.files.naming import file_names
from segments_async._sansio.files.range_allocator import size_of
from segments_async._sansio.files.ranges import Range
from segments_async._sansio.jobs.payload import (
    Payload,
    SecretInPayload,
    UnreadablePayload,
    payload_from_json,
    payload_to_json,
)
from segments_async.errors import SegmentsError

# -------------------------------------------------------------- beside a part

_NOTE = {
    "version": 1,
    "export": "export-1",
    "total": 1000,
    "etag": '"abc"',
    "modified": None,
    "md5": "0" * 32,
    "held": [0, 10, 20, 30],
    "boot": "b7fef4c1-9f9c-4a4b-b2a4-4c4a4f2b7f6e",
    "synced": False,
}


def _note(inputs: Inputs) -> bytes:
    note = {**_NOTE, "etag": None, "modified": "Sat, 09 Nov 2019 00:00:00 GMT"}
    data = inputs.json_text(note if inputs.one_in(3) else _NOTE)
    # Of the one size that is read, nearly always.
    return data if inputs.one_in(10) else data[: sidecar.SIZE].ljust(sidecar.SIZE)


def _check_note(_: bytes, found: sidecar.Sidecar | None) -> None:
    if found is None:
        return
    assert found.version.resumable
    total = found.version.total or 0
    assert 0 <= size_of(found.held) <= total, found
    assert all(0 <= start < stop <= total for start, stop in found.held), found
    ends = [number for pair in found.held for number in pair]
    assert ends == sorted(set(ends)), found
    check_sendable(Range(found.version, 1, 2))
    if len(found.held) <= 64:
        again = sidecar.load(found.dump())
        assert again is None or again == found


# --------------------------------------------------------------- the journal

_PAYLOADS: tuple[dict[str, Any], ...] = (
    {"export": {name: value for name, value in EXPORT.items() if name != "filename"}},
    {
        "export": EXPORT,
        "file": {"location": "/exports/a.csv", "size": 7, "sha256": "0" * 64, "verified": True},
    },
    {
        "error": {
            "type": "ServerError",
            "message": "POST /service/v1/segments/export/: 500",
            "submitted": "maybe",
            "resumable": False,
            "details": {"method": "POST", "status_code": 500, "retry_after": 7.5},
        }
    },
    {"export": {**EXPORT, "segment": {**SEGMENT, "type": "New"}, "status": "NEW"}},
    {},
)


def _payload(inputs: Inputs) -> Any:
    payload: Any = inputs.choice(_PAYLOADS)
    for _ in range(inputs.some(4)):
        payload = inputs.changed_json(payload)
    return payload


def _read_payload(given: Any) -> tuple[Payload, SegmentsError | None]:
    payload = payload_from_json(SEGMENT_ID, given, known=export_from_json(EXPORT))
    return payload, payload.failure.error(payload.export) if payload.failure is not None else None


def _check_payload(_: Any, found: tuple[Payload, SegmentsError | None]) -> None:
    payload, error = found
    assert error is None or isinstance(error, SegmentsError)
    if payload.export is not None:
        assert payload.export.segment.segment_id == SEGMENT_ID, payload
    export = payload.file.export if payload.file is not None else payload.export
    try:
        written = json.loads(payload_to_json(Payload(export, payload.file)))
    except SecretInPayload:
        return  # a damaged location with a link in it, which the journal takes in no more
    payload_from_json(SEGMENT_ID, written)


# ------------------------------------------------------------------ the file


@attrs.frozen
class Body:
    """A body in pieces, and the output before the first error."""

    pieces: list[bytes]
    out: list[bytes] = attrs.Factory(list)
    rows: deque[dict[str, str]] = attrs.Factory(deque)
    parser: RowParser = attrs.Factory(RowParser)


#: A member of no bytes: 20 of the file that decode to nothing.
_EMPTY_MEMBER = gzip.compress(b"", mtime=0)


def _gzip(inputs: Inputs) -> Body:
    data = inputs.weighted(
        (20, lambda: gzip.compress(_csv(inputs)[:4000], 1)),
        (4, lambda: gzip.compress(b"a,b\n1,2\n" * 40, 1) + gzip.compress(inputs.noise(), 1)),
        (3, lambda: _EMPTY_MEMBER * inputs.some(30) + gzip.compress(b"a\n", 1)),
        (3, lambda: zlib.compress(b"a,b\n" * 9)),
    )
    if inputs.one_in(1000):  # as much as is fed at once of a download
        data = _EMPTY_MEMBER * (2 * STEP // len(_EMPTY_MEMBER))
    elif inputs.one_in(1000):
        data = gzip.compress(bytes(inputs.choice((STEP - 1, STEP, STEP + 1, 8 * STEP))), 1)
    if inputs.one_in(2):
        data = inputs.changed_bytes(data)
    return Body(inputs.pieces(data))


def _decode(given: Body) -> None:
    decoder = GzipDecoder()
    for piece in given.pieces:
        decoder.feed(piece)
        while out := decoder.read():
            given.out.append(out)
    decoder.end()


def _check_decoded(given: Body, _: None) -> None:
    """A whole body decodes as by Python's gzip module; no step exceeds the limit."""
    _check_steps(given)
    data = b"".join(given.pieces)
    if len(data) < STEP:  # it takes a second for 100 000 members
        assert b"".join(given.out) == gzip.decompress(data)


def _check_steps(given: Body) -> None:
    assert max(map(len, given.out), default=0) <= STEP


_CELLS = (
    "1",
    "a",
    "",
    '"b"',
    '"c,d"',
    '"e""f"',
    '"g\nh"',
    '"i\r\nj"',
    "\u00e9",
    "\U0001f600",
    " k ",
)
_ODD_CELLS = ('"', 'x"y', '"z"w', '"\n', "\0", "\ufeff", "\u2028", "\x85", "\x1c", "l" * 200_000)
_ENDS = ("\n", "\n", "\r\n", "\r", "\n\n")


def _csv(inputs: Inputs) -> bytes:
    width = inputs.randint(1, 4)
    header = ",".join(f"column{n}" for n in range(width))
    end = inputs.choice(_ENDS)
    lines = [",".join(inputs.choices(_CELLS, k=width)) for _ in range(inputs.some(40))]
    if lines and inputs.one_in(3):
        lines[inputs.randrange(len(lines))] += inputs.choice(_ODD_CELLS[:-1])
    if inputs.one_in(500):
        lines += [_ODD_CELLS[-1]]
    data = end.join([header, *lines]).encode()
    if inputs.one_in(3):
        data = inputs.changed_bytes(data)
    return data if inputs.one_in(2) else data + end.encode()


def _read_rows(given: Body) -> None:
    for piece in given.pieces:
        given.parser.feed(piece, given.rows)
    given.parser.feed(b"", given.rows, final=True)


def _check_rows(given: Body, _: None) -> None:
    """Cut anywhere, a body gives the csv module's rows, with the header's columns."""
    whole = Body([b"".join(given.pieces)])
    _read_rows(whole)
    assert (whole.rows, whole.parser.line) == (given.rows, given.parser.line)
    text = b"".join(given.pieces).removeprefix(b"\xef\xbb\xbf").decode()
    # As a file opened with newline="" has its lines.
    lines = re.findall(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+\Z", text)
    header, *records = [found for found in csv.reader(lines, strict=True) if found] or [[]]
    assert list(given.rows) == [dict(zip(header, record, strict=True)) for record in records]


def _check_fault(given: Body, error: Exception) -> None:
    """Cut anywhere, a body gives the same rows before the fault, in the same line."""
    whole = Body([b"".join(given.pieces)])
    with contextlib.suppress(type(error)):
        _read_rows(whole)
        raise AssertionError(f"only in pieces: {error}")
    assert (whole.rows, whole.parser.line) == (given.rows, given.parser.line)


# ---------------------------------------------------------------- file names


def _named(inputs: Inputs) -> list[tuple[str, str | None]]:
    names = (None, "My Segment", "my segment", "a", "", "My Segment-82200474")
    return [
        (inputs.identifier(), inputs.text() if inputs.one_in(2) else inputs.choice(names))
        for _ in range(inputs.some(20) + 1)
    ]


def _check_names(given: list[tuple[str, str | None]], found: dict[str, str]) -> None:
    assert found.keys() == {segment_id for segment_id, _ in given}
    assert len({name.casefold() for name in found.values()}) == len(found), found
    for name in found.values():
        # The number is of ids that differ in case only.
        stem = re.sub(r"(~[0-9]+)?\.csv$", "", name)
        kinds = {unicodedata.category(char) for char in stem if char not in "._-"}
        assert {kind for kind in kinds if kind[0] not in "LM" and kind != "Nd"} == set(), name
        assert stem[0] not in ".~", name
        assert ".." not in name, name
        assert len(name.encode()) <= 250, name


DECODERS: tuple[Decoder[Any, Any], ...] = (
    Decoder("sidecar.load", (), _note, sidecar.load, _check_note),
    Decoder(
        "payload.payload_from_json", (UnreadablePayload,), _payload, _read_payload, _check_payload
    ),
    Decoder(
        "gzip_stream.GzipDecoder",
        (NotGzip,),
        _gzip,
        _decode,
        _check_decoded,
        lambda given, _: _check_steps(given),
    ),
    Decoder(
        "rows.RowParser",
        (ValueError, csv.Error),
        lambda inputs: Body(inputs.pieces(_csv(inputs))),
        _read_rows,
        _check_rows,
        _check_fault,
    ),
    Decoder("naming.file_names", (), _named, file_names, _check_names),
)
