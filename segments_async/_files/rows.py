"""Rows of a CSV file, by header name, while it is still arriving.

RFC 4180: fields may be quoted, and a quoted field may hold commas, newlines and doubled quotes. So
a record ends at a newline only where the quotes so far are even in number.
"""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator, Iterator

from segments_async.errors import DownloadError
from segments_async.models import Export

#: Largest record, in bytes. An unbalanced quote would otherwise gather the rest of the file.
LARGEST_RECORD = 16 * 1024 * 1024


class RecordSplitter:
    """Cuts bytes that arrive in pieces, cut anywhere, into whole records.

    Before decoding: in UTF-8 no part of another character looks like a quote or a newline, and a
    fault is found in the record that has it.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._open: list[bytes] = []
        self._open_size = 0
        self._quotes = 0

    def feed(self, data: bytes, *, final: bool = False) -> Iterator[bytes]:
        """The records that are whole now; with `final`, what remains is one too."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            record = self._line(line + b"\n")
            if record is not None:
                yield record
        if self._open_size + len(self._rest) > LARGEST_RECORD:
            raise ValueError(f"a record of more than {LARGEST_RECORD} bytes")
        if final:
            last = b"".join(self._open) + self._rest
            self._rest, self._open = b"", []
            if last:
                yield last

    def _line(self, line: bytes) -> bytes | None:
        self._quotes += line.count(b'"')
        if not self._open and self._quotes % 2 == 0:
            self._quotes = 0
            return line
        self._open.append(line)
        self._open_size += len(line)
        if self._quotes % 2:
            return None
        record = b"".join(self._open)
        self._open, self._open_size, self._quotes = [], 0, 0
        return record


class Rows:
    """An async iterator of rows, each a dict from the header's names to the fields.

    Raises:
        DownloadError: the file isn't CSV: not UTF-8, a row of another length than the header's, a
            field larger than `csv.field_size_limit()`, or a record larger than 16 MiB. The message
            has the record's number; the header is record 1.
    """

    def __init__(self, chunks: AsyncIterator[bytes], export: Export) -> None:
        self._chunks = chunks
        self._export = export
        self._splitter = RecordSplitter()
        self._ready: Iterator[bytes] = iter(())
        self._header: list[str] | None = None
        self._record = 1
        self._ended = False

    def __aiter__(self) -> Rows:
        return self

    async def __anext__(self) -> dict[str, str]:
        while True:
            try:
                for record in self._ready:
                    row = self._row(record)
                    self._record += 1
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

    def _row(self, record: bytes) -> dict[str, str] | None:
        # A byte order mark is not part of the first column's name.
        text = record.decode("utf-8-sig" if self._header is None else "utf-8")
        fields = next(csv.reader([text], strict=True))
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
