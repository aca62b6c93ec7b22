"""The tables and sentences that a person reads at the end of a command."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segments_async import (
    BulkReport,
    Export,
    Exported,
    ExportedFile,
    ExportTimeoutError,
    NotExported,
    RunStatus,
    Segment,
)
from segments_async.cli import wording
from segments_async.cli.destination import To, relative, to_of
from segments_async.cli.json_lines import unsigned
from segments_async.cli.terminal import Terminal, counted, in_time, print_sentence
from segments_async.errors import printable
from segments_async.results import in_bytes, leaves_all_as_it_was

_MOST_ROWS = 40
_WIDEST_NAME = 36
_NARROWEST_NAME = 12
_WIDTH_OF_AN_ID = 2 + 36
_NARROW = 110
_VERY_NARROW = 72
_FEW = 3
_SHA256_SHOWN = 12


def is_narrow(console: Console) -> bool:
    """Whether tables leave out columns that repeat others or are rarely filled."""
    return console.width < _NARROW


def segments_table(segments: Sequence[Segment], *, width: int) -> Table:
    """The table of `list`: ids and names; with more room types and last runs, then categories."""
    shown = [True, True, width >= _VERY_NARROW, width >= _NARROW, width >= _VERY_NARROW]
    titles = ["Id", "Name", "Type", "Category", "Last run (UTC)"]
    table = _table(*itertools.compress(titles, shown))
    table.columns[0].no_wrap = True
    if width >= _VERY_NARROW:
        table.columns[2].no_wrap = table.columns[-1].no_wrap = True
    for segment in segments:
        row = [
            printable(segment.segment_id),
            printable(segment.name or ""),
            printable(segment.type or ""),
            printable(segment.category or ""),
            _minute(segment.last_run),
        ]
        table.add_row(*itertools.compress(row, shown))
    return table


def export_table(export: Export) -> Table:
    """The table of `status`."""
    table = Table.grid(padding=(0, 2))
    facts = {
        "Export": export.export_id,
        "Segment": _segment_of(export),
        "Status": export.status,
        "Started": _second(export.start_time),
        "Completed": _second(export.end_time),
        "File": unsigned(export.filename) or "not yet",
    }
    for name, fact in facts.items():
        table.add_row(Text(name, style="bold"), Text(printable(fact), overflow="fold"))
    return table


def _segment_of(export: Export) -> str:
    segment = export.segment
    return f"{segment.name} ({segment.segment_id})" if segment.name else segment.segment_id


def plan_table(names: Mapping[str, str], files: Mapping[str, To], *, narrow: bool = False) -> Table:
    """The table of `export --dry-run`. A narrow one has no names: the files' names repeat them."""
    first = [] if narrow else ["Segment"]
    table = _table(*first, "Id", "File")
    table.columns[-2].no_wrap = True
    for segment_id, name in names.items():
        table.add_row(
            *([] if narrow else [printable(name)]),
            printable(segment_id),
            printable(str(files[segment_id])),
        )
    return table


def file_line(file: ExportedFile) -> str:
    """The sentence of `download`."""
    unverified = "" if file.verified else ", unverified: the server gave no length"
    return f"{printable(file.location)}: {in_bytes(file.size)}, sha256 {file.sha256}{unverified}"


def print_report(
    report: BulkReport[Exported],
    names: Mapping[str, str],
    terminal: Terminal,
    *,
    elapsed: float,
    journal: bool,
    joined: bool = False,
) -> None:
    """Print the files, the segments without a file and the reasons, and the totals.

    On a quiet terminal, only segments without a file and their reasons.

    Args:
        names: of the segments, by id.
        elapsed: seconds that the command took.
        journal: whether the same command would go on with unfinished segments.
        joined: whether other processes worked at the same run.
    """
    console, quiet = terminal.people, terminal.quiet
    if report.exported and not quiet:
        console.print(_files(report.exported, names, console.width), "")
        _say_hidden(len(report.exported), console)
    failed = [outcome for outcome in report.not_exported if not leaves_all_as_it_was(outcome)]
    print_failures(failed, names, console, journal=journal)
    if kept := [outcome for outcome in report.not_exported if leaves_all_as_it_was(outcome)]:
        print_sentence(console, _kept(kept, names))
    if not quiet:
        print_sentence(console, _totals(report, elapsed, joined=joined), "bold")


def print_failures(
    failed: Sequence[NotExported], names: Mapping[str, str], console: Console, *, journal: bool
) -> None:
    """Print each reason once, the segments that it is the reason for, and what can be done.

    Args:
        failed: segments without a file.
        names: of the segments, by id.
        journal: whether the same command would go on with unfinished segments.
    """
    reasons: dict[str, list[NotExported]] = {}
    for outcome in failed[:_MOST_ROWS]:
        reasons.setdefault(why(outcome), []).append(outcome)
    for reason, outcomes in reasons.items():
        print_sentence(console, f"{counted(len(outcomes), 'segment')} not exported: {reason}")
        if console.is_terminal:
            console.print(_failures(outcomes, names, console.width), "")
        else:
            for outcome in outcomes:
                console.print(Text(_failure(outcome, names)), soft_wrap=True)
    _say_hidden(len(failed), console)
    for hint in _hints(failed, journal=journal):
        print_sentence(console, hint)


def why(outcome: NotExported) -> str:
    """Why the segment isn't exported, and the class of the error."""
    export_id = outcome.export.export_id if outcome.export else None
    text = wording.reason(outcome.error, segment_id=outcome.segment_id, export_id=export_id)
    return printable(f"{text} ({type(outcome.error).__name__})")


def runs_table(runs: Sequence[RunStatus]) -> Table:
    """The table of `runs`."""
    several = len({run.destination for run in runs}) > 1
    directory = ["Directory"] if several else []
    table = _table("Run", *directory, "Started (UTC)", "Ended (UTC)", "Segments")
    table.columns[-3].no_wrap = table.columns[-2].no_wrap = True
    for run in runs:
        to = "-" if run.destination is None else relative(to_of(run.destination))
        table.add_row(
            printable(run.name),
            *([to] if several else []),
            _minute(run.started_at),
            _minute(run.ended_at),
            _counts(run),
        )
    return table


def _counts(run: RunStatus) -> str:
    unknown = "" if run.segments is not None else " or more"
    counts = {
        "exported": run.exported,
        "unchanged": run.unchanged,
        "not exported": run.not_exported,
        f"unfinished{unknown}": run.unfinished,
    }
    return "\n".join(f"{count} {what}" for what, count in counts.items() if count) or "none"


def some_names(names: Iterable[str]) -> str:
    """Ten names at most, and the number of the others."""
    every = [printable(name) for name in names]
    shown = ", ".join(every[:10])
    return f"{shown} and {len(every) - 10} more" if len(every) > 10 else shown


def _kept(kept: Sequence[NotExported], names: Mapping[str, str]) -> str:
    are, were, them = ("is", "was", "it") if len(kept) == 1 else ("are", "were", "them")
    few = "" if len(kept) > _FEW else f" ({some_names(names[one.segment_id] for one in kept)})"
    return (
        f"{counted(len(kept), 'file')} {are} there already, and {were} kept{few}; "
        f"--overwrite replaces {them}."
    )


def _files(exported: Sequence[Exported], names: Mapping[str, str], width: int) -> Table:
    # The file's name repeats the segment's, and is shown whole, since people copy it.
    narrow = width < _NARROW
    mixed = any(outcome.source != "exported" for outcome in exported)
    # Where the file's name would be broken, the manifest has the hash.
    hashed = not narrow or not (mixed or width < _VERY_NARROW)
    shown = [not narrow, True, True, hashed, mixed]
    titles = ["Segment", "File", "Size", f"sha256 (first {_SHA256_SHOWN})", "Source"]
    table = _table(*itertools.compress(titles, shown))
    if not narrow:
        table.columns[0].no_wrap, table.columns[0].overflow = True, "ellipsis"
        table.columns[0].max_width = _WIDEST_NAME
    size = 1 if narrow else 2
    table.columns[size].justify = "right"
    for column in table.columns[size:]:
        column.no_wrap = True
    for outcome in exported[:_MOST_ROWS]:
        table.add_row(*itertools.compress(_row(outcome, names), shown))
    return table


def _row(outcome: Exported, names: Mapping[str, str]) -> list[str]:
    file = outcome.file
    return [
        printable(names[outcome.segment_id]),
        printable(file.location.rpartition("/")[2]),
        in_bytes(file.size),
        file.sha256[:_SHA256_SHOWN] + ("" if file.verified else " unverified"),
        outcome.source,
    ]


def _failures(not_exported: Sequence[NotExported], names: Mapping[str, str], width: int) -> Table:
    """Names, and the ids of exports, which people copy for `download EXPORT_ID`."""
    room = max(_NARROWEST_NAME, min(_WIDEST_NAME, width - _WIDTH_OF_AN_ID))
    if not any(outcome.export for outcome in not_exported):
        room = width  # a segment without an export may have no name: its id is shown whole
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, overflow="ellipsis", style="red", max_width=room)
    table.add_column(overflow="fold")
    for outcome in not_exported:
        export_id = outcome.export.export_id if outcome.export else ""
        name = f"  {printable(names[outcome.segment_id])}"
        table.add_row(Text(name), Text(printable(export_id)))
    return table


def _failure(outcome: NotExported, names: Mapping[str, str]) -> str:
    """A line of a mail or a log file, which has room for the whole name and the ids."""
    name = names[outcome.segment_id]
    segment = f" ({outcome.segment_id})" if name != outcome.segment_id else ""
    export = f"  export {outcome.export.export_id}" if outcome.export else ""
    return printable(f"  {name}{segment}{export}")


def _hints(not_exported: Sequence[NotExported], *, journal: bool) -> Iterable[str]:
    if journal and any(outcome.resumable for outcome in not_exported):
        yield "The same command goes on with unfinished segments; no export is requested twice."
    elif any(isinstance(outcome.error, ExportTimeoutError) for outcome in not_exported):
        yield (
            "An export that ran out of time goes on at the vendor: when it is complete, "
            "`segments-async download EXPORT_ID --to FILE` fetches its file."
        )
    if any(outcome.submitted == "maybe" for outcome in not_exported):
        yield (
            "Where the answer to a request is missing or tells nothing, an export may be running; "
            "no other was requested. Exporting these segments again, or --on-unknown resubmit, "
            "risks a second export."
        )


def _say_hidden(count: int, console: Console) -> None:
    if count > _MOST_ROWS:
        hidden = count - _MOST_ROWS
        console.print(Text(f"and {hidden} more: see manifest.jsonl beside the files", style="dim"))


def _totals(report: BulkReport[Exported], elapsed: float, *, joined: bool) -> str:
    progress = report.progress
    changed = [outcome for outcome in report.exported if outcome.source != "unchanged"]
    size = sum(outcome.file.size for outcome in changed)
    count = f"{len(changed)} of {counted(progress.total, 'segment')} exported"
    if report.exported:
        count += f" to {relative(to_of(report.exported[0].file.location.rpartition('/')[0]))}"
    if resumed := sum(outcome.source == "resumed" for outcome in changed):
        count += f" ({resumed} of them {'by other processes or ' if joined else ''}before)"
    if unchanged := len(report.exported) - len(changed):
        count += f", {unchanged} unchanged"
    by = " by this process" if joined else ""
    return (
        f"{count}, {in_bytes(size)}, in {in_time(elapsed)}: "
        f"{counted(progress.requests, 'request')}{by}, {progress.throttled} answered 429."
    )


def _table(*headings: str) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
        header_style="bold",
    )
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _minute(time: datetime | None) -> str:
    return f"{time:%Y-%m-%d %H:%M}" if time else "-"


def _second(time: datetime | None) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC" if time else "-"
