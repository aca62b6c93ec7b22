"""Rows of a CSV file, by header name, while it is still arriving.

RFC 4180: fields may be quoted, and a quoted field may hold commas, newlines and doubled quotes. So
a record ends at a newline only where the quotes so far are even in number.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import AsyncIterator, Iterator

from segments_async.errors import DownloadError
from segments_async.models import Export

#: Largest record, in characters. An unbalanced quote would otherwise gather the rest of the file.
LARGEST_RECORD = 16 * 1024 * 1024


class RecordSplitter:
    """Cuts text that arrives in pieces, cut anywhere, into whole records."""

    def __init__(self) -> None:
        # utf-8-sig: a byte order mark is not part of the first column's name.
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._rest = ""
        self._open: list[str] = []
        self._open_size = 0
        self._quotes = 0

    def feed(self, data: bytes, *, final: bool = False) -> Iterator[str]:
        """The records that are whole now; with `final`, what remains is one too."""
        text = self._rest + self._decoder.decode(data, final)
        lines = text.split("\n")
        self._rest = lines.pop()
        for line in lines:
            record = self._line(line + "\n")
            if record is not None:
                yield record
        if self._open_size + len(self._rest) > LARGEST_RECORD:
            raise ValueError(f"a record of more than {LARGEST_RECORD} characters")
        if final:
            last = "".join(self._open) + self._rest
            self._rest, self._open = "", []
            if last:
                yield last

    def _line(self, line: str) -> str | None:
        self._quotes += line.count('"')
        if not self._open and self._quotes % 2 == 0:
            self._quotes = 0
            return line
        self._open.append(line)
        self._open_size += len(line)
        if self._quotes % 2:
            return None
        record = "".join(self._open)
        self._open, self._open_size, self._quotes = [], 0, 0
        return record


class Rows:
    """An async iterator of rows, each a dict from the header's names to the fields.

    Raises:
        DownloadError: the file isn't CSV: not UTF-8, a row of another length than the header's, or
            a record larger than 16 Mi characters; the message has the record's number.
    """

    def __init__(self, chunks: AsyncIterator[bytes], export: Export) -> None:
        self._chunks = chunks
        self._export = export
        self._splitter = RecordSplitter()
        self._ready: Iterator[str] = iter(())
        self._header: list[str] | None = None
        self._record = 0
        self._ended = False

    def __aiter__(self) -> Rows:
        return self

    async def __anext__(self) -> dict[str, str]:
        while True:
            try:
                for record in self._ready:
                    row = self._row(record)
                    if row is not None:
                        return row
            except (ValueError, csv.Error) as exc:
                self._unreadable(exc)
            if self._ended:
                raise StopAsyncIteration
            await self._next_chunk()

    async def _next_chunk(self) -> None:
        try:
            chunk = await self._chunks.__anext__()
        except StopAsyncIteration:
            self._ended = True
            self._ready = self._splitter.feed(b"", final=True)
        else:
            self._ready = self._splitter.feed(chunk)

    def _row(self, record: str) -> dict[str, str] | None:
        self._record += 1
        fields = next(csv.reader([record], strict=True))
        if self._header is None:
            self._header = fields
            return None
        if not fields:
            return None
        if len(fields) != len(self._header):
            raise ValueError(f"{len(fields)} fields where the header has {len(self._header)}")
        return dict(zip(self._header, fields, strict=True))

    def _unreadable(self, exc: Exception) -> None:
        raise DownloadError(
            f"file of export {self._export.export_id}: record {self._record}: {exc}",
            reason="broken",
            export=self._export,
        ) from exc
