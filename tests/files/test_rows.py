"""Rows of a file that is still arriving: the same wherever it is cut, or an error with its line."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import tracemalloc
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from segments_async._files import rows
from segments_async._files.rows import PIECE, RowParser, Rows
from segments_async.errors import DownloadError
from segments_async.models import Export, ExportStatus, Segment, SegmentType

EXPORT = Export(
    export_id="an-export",
    segment=Segment("a-segment", "A Segment", "a-project", SegmentType.STATIC),
    status=ExportStatus.COMPLETE,
    start_time=datetime(2026, 11, 23, tzinfo=UTC),
    filename="https://bucket.s3.amazonaws.com/key?X-Amz-Signature=5ec4e7",
)
Row = dict[str, str]

# Quotes, doubled quotes, commas and both newlines in fields; two and four bytes to a character.
TRICKY = (
    '\ufeffuser id,"a ""quoted"" name",note\r\n'
    '1,Ren\u00e9,"two\nlines"\r\n'
    '2,"x, y","""all"" quoted"\n'
    '3,\U0001f600,"crlf\r\nwithin"\r\n'
    '4,"",\n'
    '5,last,"no newline at the end"'
).encode()
TRICKY_ROWS = [
    {"user id": "1", 'a "quoted" name': "Ren\u00e9", "note": "two\nlines"},
    {"user id": "2", 'a "quoted" name': "x, y", "note": '"all" quoted'},
    {"user id": "3", 'a "quoted" name': "\U0001f600", "note": "crlf\r\nwithin"},
    {"user id": "4", 'a "quoted" name': "", "note": ""},
    {"user id": "5", 'a "quoted" name': "last", "note": "no newline at the end"},
]


class Arriving:
    """The chunks of a body; no generator, which would have to be closed where a test ends early."""

    def __init__(self, chunks: Iterable[bytes | Exception]) -> None:
        self._chunks = iter(chunks)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for chunk in self._chunks:
            if isinstance(chunk, Exception):
                raise chunk
            return chunk
        raise StopAsyncIteration


def read(*chunks: bytes) -> list[Row]:
    """The rows of a file that arrives in these pieces."""

    async def collect() -> list[Row]:
        return [row async for row in Rows(Arriving(chunks), EXPORT)]

    return anyio.run(collect)


def fault(*chunks: bytes) -> DownloadError:
    with pytest.raises(DownloadError) as caught:
        read(*chunks)
    return caught.value


def cut_at(body: bytes, *cuts: int) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(edges)]


def parsed(pieces: Iterable[bytes]) -> tuple[list[Row], int | None]:
    """The rows of a file that comes in these pieces, and the line of its fault."""
    parser = RowParser()
    found: deque[Row] = deque()
    try:
        for piece in pieces:
            parser.feed(piece, found)
        parser.feed(b"", found, final=True)
    except (ValueError, csv.Error):
        return list(found), parser.line
    return list(found), None


def judged(text: str) -> tuple[list[Row], int | None]:
    """The same rows by `csv.DictReader`, which has the whole file at once.

    `DictReader` accepts some files that this library refuses: such a file is recognised by its
    rows.
    """
    text = text.removeprefix("\ufeff")
    by_csv = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    names: Sequence[str] | None = None
    found: list[Row] = []
    try:
        while not (names := by_csv.fieldnames) and names is not None:
            by_csv.fieldnames = None  # type: ignore[assignment] # a blank line: the next, please
        if len(set(names or ())) < len(names or ()):
            return [], line_of(text, 0)
        for row in by_csv:
            if None in row or None in row.values():
                return found, line_of(text, len(found) + 1)
            found.append(row)
    except csv.Error:
        return found, line_of(text, len(found) + bool(names))
    return found, None


def line_of(text: str, record: int) -> int:
    """The line on which a record begins; blank lines are no records."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    with contextlib.suppress(csv.Error):
        for fields in reader:
            if fields and not record:
                break
            record -= bool(fields)
            line = reader.line_num + 1
    return line


# What is no CSV.


@pytest.mark.parametrize("row", [b"1", b"1,2,3", b"1,2,", b'"1,2"'])
def test_a_ragged_row_is_an_error_with_its_line(row: bytes) -> None:
    """A row of another length than the header's is named by its line."""
    assert "line 3: " in str(fault(b"a,b\n1,2\n" + row + b"\n5,6\n"))


def test_lines_are_counted_and_not_records() -> None:
    """Newlines within quotes and blank lines count: the number is that of an editor's line."""
    assert "line 8: " in str(fault(b'a,b\n1,"\n\n\n"\n\n3,4\nragged\n'))


def test_a_record_of_many_lines_has_the_number_of_its_first() -> None:
    """An error is named by the line where its record begins, wherever in it the fault is."""
    assert "line 2: " in str(fault(b'a,b\n1,"\n\n\n"x\n3,4\n'))
    assert "line 2: " in str(fault(b'a,b\n1,"\n\n\xff\n"\n3,4\n'))


@pytest.mark.parametrize("cut", range(1, 30))
def test_the_number_does_not_depend_on_the_cuts(cut: int) -> None:
    """A fault has the same number however many records arrive with it, invalid UTF-8 included."""
    body = b"a,b\n1,2\n3,4\n5,\xff\n7,8\n9,10\n"
    assert "line 4: " in str(fault(body[:cut], body[cut:]))


@pytest.mark.parametrize(
    "value",
    [b"\xff", b"\xc3", b"\xc3\x28", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"\xc0\xaf", b"\xfe\xff"],
)
def test_invalid_utf_8_is_an_error(value: bytes) -> None:
    """Bytes that are no UTF-8, a character cut off at the end included, are an error."""
    assert "line 2: 'utf-8' codec" in str(fault(b"a,b\n1," + value))


@pytest.mark.parametrize("body", [b'a,b\n1,"open', b'a,b\n1,"open\n2,3\n4,5\n', b'a,b\n1,"x"y\n'])
def test_broken_quotes_are_errors(body: bytes) -> None:
    """A quote that isn't closed, and text after a closed one, are no CSV."""
    assert "line 2: " in str(fault(body))


@pytest.mark.parametrize(
    "header", [b"a,b,a", b",x,", b'"a",b,a', b"\n\xef\xbb\xbfa,b,\xef\xbb\xbfa"]
)
def test_two_columns_of_one_name_are_an_error(header: bytes) -> None:
    """A dict can't hold both, so that one would be lost; the message has their places."""
    assert "columns 1 and 3 of the header have one name" in str(fault(header + b"\n1,2,3\n"))


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param([b"a\n", b"x" * 60, b"x" * 60], id="a long line"),
        pytest.param([b"a\n", b'"', *[b"x\n" * 10] * 12], id="a quote that is never closed"),
        pytest.param([b"a\n", b'"' + b"x" * 60 + b"\n", b"x" * 60], id="both"),
    ],
)
def test_a_record_has_a_limit(monkeypatch: pytest.MonkeyPatch, chunks: list[bytes]) -> None:
    """A record that grows beyond the limit is an error before the rest of the file is gathered."""
    monkeypatch.setattr(rows, "LARGEST_RECORD", 100)
    error = fault(*chunks, b"\xff" * 1000)  # which would be another error, were it looked at
    assert "line 2: a record of more than 100 bytes" in str(error)


def test_records_below_the_limit_do_not_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is a record's, and not the file's."""
    monkeypatch.setattr(rows, "LARGEST_RECORD", 100)
    assert len(read(b"a\n", *[b'"' + b"x" * 50 + b"\n", b"x" * 40 + b'"\n'] * 20)) == 20


def test_a_field_has_the_csv_modules_limit() -> None:
    """A field above csv.field_size_limit(), which is the process's own setting, is an error."""
    body = b"a,b\n1," + b"x" * (csv.field_size_limit() + 1)
    assert "field larger than field limit" in str(fault(body))


def test_an_error_has_the_export_and_a_reason() -> None:
    """An unreadable row is a DownloadError with its export, and reason "broken"."""
    error = fault(b"a,b\n1\n")
    assert error.export is EXPORT
    assert error.reason == "broken"


def test_an_error_has_no_link_and_no_field() -> None:
    """The message has neither the signed link nor a field of the row."""
    message = str(fault(b"a,b\nsomebody@example.com\n"))
    assert "5ec4e7" not in message
    assert "somebody" not in message


async def test_rows_before_a_fault_come() -> None:
    """The whole records before a faulty one are yielded, and no row after it."""
    rows_of = Rows(Arriving([b"a\n1\n2\n\xff\n4\n"]), EXPORT)
    assert [await anext(rows_of), await anext(rows_of)] == [{"a": "1"}, {"a": "2"}]
    with pytest.raises(DownloadError):
        await anext(rows_of)
    assert [row async for row in rows_of] == []


async def test_what_breaks_the_stream_passes_unchanged() -> None:
    """An error of the chunks' own comes out as it is, after the rows that were whole."""
    broken = DownloadError("the link broke", reason="length")
    rows_of = Rows(Arriving([b"a\n1\n2", broken]), EXPORT)
    assert await anext(rows_of) == {"a": "1"}
    with pytest.raises(DownloadError, match="the link broke"):
        await anext(rows_of)


# What has no rows.


@pytest.mark.parametrize(
    "body", [b"", b"\xef\xbb\xbf", b"\n", b"a,b", b"a,b\n", b"a,b\r\n", b"\xef\xbb\xbfa,b\n"]
)
def test_a_file_without_rows(body: bytes) -> None:
    """An empty file, a mark alone, and a header alone have no rows, and are whole."""
    assert read(body) == []


async def test_no_chunk_at_all() -> None:
    """A body that ends before its first chunk has no rows."""
    assert [row async for row in Rows(Arriving([]), EXPORT)] == []


# Cuts.


@pytest.mark.parametrize("cut", range(len(TRICKY) + 1))
def test_a_cut_anywhere_changes_nothing(cut: int) -> None:
    """Cut at any byte, within a character, a quote or a newline, the rows are the same."""
    assert read(TRICKY[:cut], TRICKY[cut:]) == TRICKY_ROWS


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_small_pieces_change_nothing(size: int) -> None:
    """Arriving byte by byte, or in small pieces, the rows are the same."""
    pieces = [TRICKY[n : n + size] for n in range(0, len(TRICKY), size)]
    assert read(*pieces) == TRICKY_ROWS


def test_empty_pieces_change_nothing() -> None:
    """A chunk of no bytes is no end."""
    assert read(b"", TRICKY[:9], b"", b"", TRICKY[9:], b"") == TRICKY_ROWS


async def test_a_row_comes_before_the_next_chunk() -> None:
    """A whole row is delivered without waiting for more of the file."""
    chunks = Arriving([b"a\n1\n2", AssertionError("asked for more than it needed")])
    assert await anext(Rows(chunks, EXPORT)) == {"a": "1"}


def of_2_000_bytes(fault: bytes = b"") -> bytes:
    """Rows of every kind, and a fault after them."""
    header, _, lines = TRICKY.rpartition(b"\n")[0].partition(b"\r\n")
    body = header + b"\r\n" + 11 * (lines + b"\n\r") + b"0,,\r0,0,0\r\n"
    last = b'6,,"' + b"x" * (2_000 - len(body) - len(fault) - 7) + b'"\r\n'
    return body + last + fault


@pytest.mark.parametrize("faulty", [b"", b'7,\xff,"\r\n"', b"7,\n", b'7,"\r\n"x,', b'7,,"\r\n'])
def test_2_000_bytes_cut_everywhere(faulty: bytes) -> None:
    """Wherever a file is cut in two, or in pieces of any size, its rows and fault are the same."""
    body = of_2_000_bytes(faulty)
    assert len(body) == 2_000
    whole = parsed([body])
    assert len(whole[0]) == 11 * 4 + 3
    assert (whole[1] is not None) == bool(faulty)
    for cut in range(2_001):
        assert parsed(cut_at(body, cut)) == whole
    for size in range(1, 40):
        assert parsed(body[at : at + size] for at in range(0, 2_000, size)) == whole


# What separates, what quotes, what is a newline to somebody but not to csv, and cut characters.
FRAGMENTS = st.sampled_from(
    [*'a1,,"\n\r \ufeff\u00e9\U0001f600\x00\x0b\x85\u2028', '""', '","', "\r\n"]
)
CSV_TEXT = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "\ufeff"]),
        st.sampled_from(["", "a\n", "a,b\r\n", 'a,"\n",c\r', "\n\ra\n"]),
        st.lists(FRAGMENTS | st.sampled_from(["1\n", "1,2\r\n", '"\n",""\n', '1,"2",3\r'])).map(
            "".join
        ),
    ),
)
CUTS = st.lists(st.integers(0, 60), max_size=8)


@given(CSV_TEXT, CUTS)
@example('a\n1"2\n"3"\n', [])  # a quote that opens nothing
@example('a\n"1\r', [5])
@example("a\n1\n\ufeff2\n", [4])  # no mark of the file's
def test_csv_is_the_judge(text: str, cuts: list[int]) -> None:
    """Any text, cut anywhere, gives the rows, the faults and the lines that csv finds in it."""
    assert parsed(cut_at(text.encode(), *cuts)) == judged(text)


@given(st.binary(), CUTS)
def test_of_any_bytes_the_cuts_change_nothing(body: bytes, cuts: list[int]) -> None:
    """Bytes that are no text at all have their fault in the same place, cut or not."""
    assert parsed(cut_at(body, *cuts)) == parsed([body])


FIELDS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('",\r\n\ufeff'))
TABLES = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.lists(FIELDS, min_size=width, max_size=width), max_size=6)
)


@given(TABLES, st.sampled_from(["\r\n", "\n"]), st.integers(0, 1000), st.booleans())
def test_what_csv_wrote_is_read(table: list[list[str]], newline: str, cut: int, mark: bool) -> None:
    """Whatever fields Python's csv writes, with or without a mark, cut anywhere, come back."""
    header = [f"column {n}" for n in range(len(table[0]))] if table else ["column 0"]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=newline, quoting=csv.QUOTE_ALL).writerows([header, *table])
    body = text.getvalue().encode("utf-8-sig" if mark else "utf-8")
    expected = [dict(zip(header, fields, strict=True)) for fields in table]
    assert read(body[:cut], body[cut:]) == expected


@given(st.lists(st.binary(), max_size=4))
def test_any_bytes_are_rows_or_an_error(chunks: list[bytes]) -> None:
    """Any bytes give rows, or raise DownloadError and no other error."""
    try:
        got = read(*chunks)
    except DownloadError:
        return
    assert all(isinstance(row, dict) for row in got)


# What else is read.


def test_blank_lines_are_no_rows() -> None:
    """A line of nothing, at the end or between two rows, is passed over."""
    assert read(b"a,b\n1,2\n\n3,4\r\n\r\n") == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


def test_fields_are_strings_as_they_stand() -> None:
    """A field is not stripped, converted or taken for a formula."""
    body = b"a,b,c,d\n 1 ,007,=1+1,null\n"
    assert read(body) == [{"a": " 1 ", "b": "007", "c": "=1+1", "d": "null"}]


def test_a_mark_within_the_file_is_text() -> None:
    """A byte order mark is dropped only at the beginning of the file."""
    assert read("a\n\ufeffx\n".encode()) == [{"a": "\ufeffx"}]


def test_every_newline_that_csv_knows_ends_a_row() -> None:
    """LF, CRLF and a lone CR end a row, also mixed; Unicode's other line ends are text."""
    assert read(b"a\n1\r\n2\r3\x0b\xc2\x85\n") == [{"a": "1"}, {"a": "2"}, {"a": "3\x0b\x85"}]


def test_a_quote_within_a_plain_field_is_a_quote() -> None:
    """A quote within a plain field is text, as for csv, and never joins two rows."""
    body = b'a,b\n5" disc,1\n7" disc,2\n'
    assert read(body) == [{"a": '5" disc', "b": "1"}, {"a": '7" disc', "b": "2"}]


def test_blank_lines_before_the_header_are_passed_over() -> None:
    """The header is the first line that isn't blank."""
    assert read(b"\r\n\na,b\n1,2\n") == [{"a": "1", "b": "2"}]


# What it costs.


def lines_of(size: int) -> bytes:
    return b"name,note\n" + b'somebody,"something, at length"\n' * (size // 32)


async def test_others_get_their_turn_while_a_large_chunk_is_read() -> None:
    """A file that is in memory as one chunk doesn't hold the loop: others run once a piece."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        async for _ in Rows(Arriving([lines_of(20 * PIECE)]), EXPORT):
            pass
        tasks.cancel_scope.cancel()
    assert turns >= 20


@pytest.mark.alternating
async def test_memory_does_not_grow_with_the_file() -> None:
    """Of a file of 60 chunks no more is in memory than of a file of six."""
    body = lines_of(PIECE)

    async def most_while_reading(chunks: int) -> int:
        arriving = Arriving(itertools.chain([body], (body[10:] for _ in range(chunks - 1))))
        tracemalloc.start()
        try:
            async for _ in Rows(arriving, EXPORT):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert await most_while_reading(60) < 1.1 * await most_while_reading(6)


def test_a_long_record_is_not_read_again_with_each_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record of 100 pieces, with newlines in all of them, is parsed some three times."""
    parsed = 0
    reader: Any = csv.reader

    def counting(lines: Iterator[str], **options: Any) -> Any:
        def counted() -> Iterator[str]:
            nonlocal parsed
            for line in lines:
                parsed += len(line)
                yield line

        return reader(counted(), **options)

    monkeypatch.setattr(csv, "reader", counting)
    parser = RowParser()
    found: deque[Row] = deque()
    names = ",".join(f'"{n}\n"' for n in range(PIECE * 10))
    body = names.encode() + b"\n"
    for piece in cut_at(body, *range(0, len(body), PIECE)):
        parser.feed(piece, found)
    parser.feed(b"", found, final=True)
    assert parser.line == PIECE * 10 + 2
    assert parsed < 4 * len(body)
