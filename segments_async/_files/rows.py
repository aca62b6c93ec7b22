"""Rows of a CSV file, by header name, while the file is still arriving.

Python's csv module decides where a record ends. It gets the whole lines of each piece; a record
whose end hasn't arrived is parsed again from its beginning. Lines are split before they are
decoded: in UTF-8 no byte of another character equals a newline, so the line of a decoding error is
known.

As fast as `csv.DictReader`, since nearly all the work for a row is done in C
(benchmarks/download.py).
"""

from __future__ import annotations

import csv
from codecs import BOM_UTF8
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import NoReturn

import anyio.lowlevel

from segments_async._files.refusals import download_error
from segments_async.models import Export

#: Largest record, in bytes. A quote that is never closed would otherwise keep the rest of the file
#: in memory.
LARGEST_RECORD = 16 * 1024 * 1024

#: Bytes that are parsed before other tasks run: some 1 000 rows, or a millisecond.
PIECE = 64 * 1024

Row = dict[str, str]


class RowParser:
    """Turns bytes, in pieces cut anywhere, into rows.

    Attributes:
        line: number of the line where the next record begins; the file's first line is 1. Lines end
            with LF, CRLF or a lone CR, also within quotes, as in a file opened for the csv module.
    """

    def __init__(self) -> None:
        self.line = 1
        self._header: Sequence[str] = ()
        self._begun = False
        self._held: list[bytes] = []
        self._size = 0
        self._enough = 0

    def feed(self, piece: bytes, rows: deque[Row], *, final: bool = False) -> None:
        """Append the complete records to `rows`; with `final`, the remaining bytes are one, too.

        Raises:
            ValueError, csv.Error: the record at `line` is invalid. The rows before it are appended.
        """
        self._held.append(piece)
        self._size += len(piece)
        if self._size < self._enough and not final:
            return
        lines = b"".join(self._held).splitlines(keepends=True)
        # The end of the last line may not have arrived, or the LF of its CRLF.
        cut = [lines.pop()] if lines and not final and not lines[-1].endswith(b"\n") else []
        if lines and not self._begun:
            lines[0] = lines[0].removeprefix(BOM_UTF8)  # no part of the first column's name
            self._begun = True
        begins = self.line
        self._parse(lines, rows, final=final)
        self._hold(b"".join(lines[self.line - begins :] + cut))

    def _parse(self, lines: list[bytes], rows: deque[Row], *, final: bool) -> None:
        begins = self.line
        header = self._header
        width = len(header) or -1  # no record has -1 fields: the first one is the header
        reader = csv.reader(map(bytes.decode, lines), strict=True)
        try:
            for fields in reader:
                if len(fields) == width:
                    rows.append(dict(zip(header, fields)))  # noqa: B905 - of one length: just seen
                elif fields and not header:
                    header = self._header = _checked_header(fields)
                    width = len(header)
                elif fields:
                    raise ValueError(f"{len(fields)} fields where the header has {width}")
                self.line = begins + reader.line_num
        except csv.Error:
            # In the last line, the closing quote may not have arrived yet.
            if final or reader.line_num < len(lines):
                raise

    def _hold(self, record: bytes) -> None:
        self._held, self._size = [record], len(record)
        if self._size > LARGEST_RECORD:
            raise ValueError(f"a record of more than {LARGEST_RECORD} bytes")
        # A long record is parsed again when its size has doubled, not with each piece.
        doubled = min(2 * self._size, LARGEST_RECORD + 1)
        self._enough = doubled if self._size > PIECE else 0


def _checked_header(fields: list[str]) -> list[str]:
    columns: dict[str, int] = {}
    for number, name in enumerate(fields, 1):
        if columns.setdefault(name, number) != number:
            # The name isn't shown: in a file without a header it would be the data of a user.
            raise ValueError(f"columns {columns[name]} and {number} of the header have one name")
    return fields


class Rows:
    """An async iterator of rows, each a dict from the header's names to the fields.

    It reads UTF-8, and of CSV what `csv.DictReader` reads in strict mode: fields may be quoted, and
    a quoted field may hold commas, newlines and doubled quotes; lines end with LF, CRLF or CR. A
    byte order mark at the beginning is dropped. The first record is the header. Fields are strings
    as they stand, and nothing is kept of rows that were handed out.

    Blank lines are passed over, before the header too. A file of 0 bytes and a header alone have no
    rows. Where `csv.DictReader` would pad a row, or drop one of two columns, this is an error.

    Raises:
        DownloadError: the file isn't CSV: not UTF-8, text after a closing quote, a quote that is
            never closed, a row of another length than the header's, two columns of one name, a
            field larger than `csv.field_size_limit()`, or a record larger than 16 MiB. The message
            has the number of the line where the record begins; the file's first line is 1, and
            newlines within quotes count. The rows before that record come first.
    """

    def __init__(self, chunks: AsyncIterator[bytes], export: Export) -> None:
        self._chunks = chunks
        self._export = export
        self._parser = RowParser()
        self._pieces: Iterator[bytes] = iter(())
        self._ready: deque[Row] = deque()
        self._fault: Exception | None = None
        self._ended = False

    def __aiter__(self) -> Rows:
        return self

    async def __anext__(self) -> Row:
        while not self._ready:
            await self._read_on()
        return self._ready.popleft()

    async def _read_on(self) -> None:
        """Parse the next piece, which may complete no row.

        Raises:
            StopAsyncIteration: the file has ended.
        """
        if self._fault is not None:
            self._unreadable()
        if self._ended:
            raise StopAsyncIteration
        # For each piece: chunks that are in memory are read without waiting, and would block the
        # loop.
        await anyio.lowlevel.checkpoint()
        piece = await self._next_piece()
        try:
            self._parser.feed(piece, self._ready, final=self._ended)
        except (ValueError, csv.Error) as exc:
            self._fault, self._ended = exc, True

    async def _next_piece(self) -> bytes:
        """The next part of a chunk; b"" at the end."""
        for piece in self._pieces:
            return piece
        try:
            chunk = await self._chunks.__anext__()
        except StopAsyncIteration:
            self._ended = True
            return b""
        self._pieces = (chunk[start : start + PIECE] for start in range(0, len(chunk), PIECE))
        return next(self._pieces, b"")

    def _unreadable(self) -> NoReturn:
        fault, self._fault = self._fault, None
        raise download_error(
            self._export, "broken", f"line {self._parser.line}: {fault}"
        ) from fault
