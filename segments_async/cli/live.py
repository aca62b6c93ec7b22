"""Progress on a terminal: the present exports and the totals, in at most one screen."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from segments_async.cli.terminal import counted, in_bytes, in_time
from segments_async.client import SegmentsClient
from segments_async.errors import printable
from segments_async.results import Exported, Held, HeldReason, Progress
from segments_async.run import Activity, BulkRun

_SECONDS_A_FRAME = 0.125
#: Two lines of totals, one of what delays the run, "and N more", blank lines, the cursor's line.
_LINES_OF_THE_WHOLE = 7
_WIDEST_NAME = 48
#: For each state of an export, the word and the colour of the display.
_STATES = {
    "intent": ("submitting", "dim"),
    "submitted": ("pending", "cyan"),
    "complete": ("ready", "green"),
    "fetching": ("fetching", "green"),
}
#: For each reason of `Held`, what it means to a person who waits.
_HELD = {
    HeldReason.TICKET_GUARD: "the vendor answered 500, which opens a support ticket",
    HeldReason.VENDOR_AWAY: "the vendor can't be reached",
    HeldReason.STORAGE_AWAY: "storage can't be reached",
    HeldReason.STORAGE_CREDENTIALS: "no AWS credentials for storage",
    HeldReason.JOURNAL_AWAY: "the journal can't be written",
    HeldReason.RATE_LIMIT: "the vendor's rate limit",
    HeldReason.SHARED_LIMIT: "other processes share the rate limit",
    HeldReason.JOB_CAP: "no more exports may run at once",
}


class View:
    """Draws the progress of a run until cancelled; nothing where stderr is no terminal."""

    def __init__(self, run: BulkRun[Exported], console: Console) -> None:
        self._run = run
        self._console = console
        # The dots are Braille characters, which few encodings other than UTF-8 have.
        self._spinner = Spinner("line" if console.options.ascii_only else "dots", style="cyan")
        self._began = anyio.current_time()

    async def show(self) -> None:
        """Redraw eight times a second; at the end, erase the drawing."""
        if not self._console.is_terminal:
            return
        # auto_refresh=False: rich's thread would read the run while the run changes.
        # redirect_stdout=False: stdout may carry JSON lines for another program.
        with Live(
            console=self._console, auto_refresh=False, transient=True, redirect_stdout=False
        ) as live:
            while True:
                live.update(self._picture(), refresh=True)
                await anyio.sleep(_SECONDS_A_FRAME)

    def _picture(self) -> RenderableType:
        elapsed = anyio.current_time() - self._began
        room = max(0, self._console.height - _LINES_OF_THE_WHOLE)
        progress = self._run.progress
        parts: list[RenderableType] = [
            _exports(self._run.activity(limit=room), progress, self._spinner),
            _bar(progress),
            Text(_totals(progress, elapsed), style="dim"),
        ]
        if progress.held is not None:
            parts.append(Text(in_words(progress.held), style="yellow"))
        return Group(*parts)


async def show_hold(client: SegmentsClient, console: Console) -> None:
    """Until cancelled, show what delays the client's requests before a run begins."""
    if not console.is_terminal:
        return
    with Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False) as live:
        while True:
            held = client.held
            live.update(Text("" if held is None else in_words(held), style="yellow"), refresh=True)
            await anyio.sleep(_SECONDS_A_FRAME)


def in_words(held: Held) -> str:
    """``Waiting: the vendor's rate limit; next try in 12 s``."""
    then = "" if held.seconds is None else f"; next try in {in_time(held.seconds)}"
    return f"Waiting: {_HELD[held.reason]}{then}"


def _exports(shown: Sequence[Activity], progress: Progress, spinner: Spinner) -> RenderableType:
    table = Table.grid(padding=(0, 2), pad_edge=False)
    table.add_column(width=1)
    table.add_column(no_wrap=True, overflow="ellipsis", min_width=24, max_width=_WIDEST_NAME)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for export in shown:
        state, style = _STATES.get(export.state, (export.state, ""))
        table.add_row(
            spinner,
            printable(export.name or export.segment_id),
            Text(state, style=style),
            in_time(export.age),
            in_bytes(export.bytes) if export.bytes else "",
        )
    hidden = progress.pending + progress.fetching - len(shown)
    if hidden > 0:
        return Group(table, Text(f"   and {hidden} more under way", style="dim"))
    return table


def _bar(progress: Progress) -> RenderableType:
    ended = progress.exported + progress.unchanged + progress.not_exported
    line = Table.grid(padding=(0, 2))
    line.add_row(
        ProgressBar(total=max(1, progress.total), completed=ended, width=30),
        Text(f"{ended} of {progress.total}", style="bold"),
        Text.assemble(*_counts(progress)),
    )
    return line


def _counts(progress: Progress) -> list[tuple[str, str]]:
    counts = [
        (f"{progress.waiting} waiting", "dim"),
        (f"{progress.pending} pending", "cyan"),
        (f"{progress.fetching} fetching", "green"),
    ]
    if progress.unchanged:
        counts.append((f"{progress.unchanged} unchanged", "dim"))
    if progress.not_exported:
        counts.append((f"{progress.not_exported} not exported", "red"))
    return [part for count in counts for part in (count, ("  ", ""))]


def _totals(progress: Progress, elapsed: float) -> str:
    parts = [in_bytes(progress.bytes), counted(progress.requests, "request")]
    if progress.throttled:
        parts.append(f"{progress.throttled} throttled")
    if progress.rate is not None:
        parts.append(f"at most {progress.rate:.1f}/s")
    parts.append(in_time(elapsed))
    if progress.eta_seconds is not None:
        parts.append(f"about {in_time(progress.eta_seconds)} left")
    return " · ".join(parts)
