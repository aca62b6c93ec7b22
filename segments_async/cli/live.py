"""Progress on a terminal: the present exports and the totals, in at most one screen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import anyio
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.live import Live
from rich.text import Text

from segments_async import Activity, BulkRun, Exported, Held, HeldReason, Progress, SegmentsClient
from segments_async.cli.terminal import Terminal, counted, in_time
from segments_async.errors import printable
from segments_async.results import in_bytes

#: A frame costs milliseconds, and is drawn only where it differs from the last one.
_SECONDS_A_FRAME = 0.25
#: "And N more"; the bar, the totals, and what delays the run, two lines each; the cursor's line.
_LINES_OF_THE_WHOLE = 8
_WIDEST_NAME = 48
_WIDEST_BAR = 30
_NARROWEST_BAR = 6
#: Columns after the name in an export's line: the state, the time and the bytes.
_AFTER_THE_NAME = 12 + 13 + 12
#: For each state of an export, the word and the colour of the display.
_STATES = {
    "intent": ("submitting", "dim"),
    "submitted": ("pending", "cyan"),
    "complete": ("ready", "green"),
    "fetching": ("fetching", "green"),
}
#: For each reason of `Held`, what it means to a person who waits.
_HELD = {
    HeldReason.TICKET_GUARD: "the vendor answered 500 and opens a support ticket",
    HeldReason.VENDOR_AWAY: "the vendor can't be reached",
    HeldReason.STORAGE_AWAY: "storage can't be reached",
    HeldReason.DESTINATION_AWAY: "the files' object storage can't be reached",
    HeldReason.STORAGE_CREDENTIALS: "no AWS credentials for storage",
    HeldReason.JOURNAL_AWAY: "the journal can't be written",
    HeldReason.RATE_LIMIT: "the vendor's rate limit",
    HeldReason.SHARED_LIMIT: "other processes share the rate limit",
    HeldReason.JOB_CAP: "no more exports may run at once",
    HeldReason.OTHER_PROCESSES: "other processes of the run work at the rest",
}
#: A text and its style.
Part = tuple[str, str]


class View:
    """Draws the progress of a run until cancelled; nothing where progress isn't drawn.

    Args:
        shared: segments of the whole run, of which this process has a share; None for a run of
            this process alone.
    """

    def __init__(
        self, run: BulkRun[Exported], terminal: Terminal, shared: int | None = None
    ) -> None:
        self._run = run
        self._terminal = terminal
        self._shared = shared
        self._began = anyio.current_time()

    async def show(self) -> None:
        """Draw what changes, four times a second; at the end, erase the drawing."""
        if self._terminal.live:
            await draw(self._terminal.err, self._lines)

    def _lines(self, width: int, height: int) -> list[Sequence[Part]]:
        shown = self._run.activity(limit=max(0, height - _LINES_OF_THE_WHOLE))
        elapsed = anyio.current_time() - self._began
        return picture(self._run.progress, shown, elapsed, width, self._shared)


def picture(
    progress: Progress,
    shown: Sequence[Activity],
    elapsed: float,
    width: int,
    shared: int | None = None,
) -> list[Sequence[Part]]:
    """The lines of a run's progress: some exports, the bar, the totals, what delays the run."""
    lines = _exports(shown, progress, width)
    lines += _bar(progress, width, shared)
    lines += _totals(progress, elapsed, width)
    if progress.held is not None and _is_worth_a_line(progress.held):
        lines += held_lines(progress.held, width)
    return lines


async def show_hold(client: SegmentsClient, terminal: Terminal) -> None:
    """Until cancelled, show what delays the client's requests before a run begins."""

    def lines(width: int, _height: int) -> list[Sequence[Part]]:
        held = client.held
        return [] if held is None else held_lines(held, width)

    if terminal.live:
        await draw(terminal.err, lines)


async def draw(
    console: Console,
    lines: Callable[[int, int], list[Sequence[Part]]],
    *,
    transient: bool = True,
    over: Callable[[], bool] = lambda: False,
) -> None:
    """Draw lines until cancelled, or until they are the last ones; a frame only where it differs.

    Args:
        lines: by the columns and rows that there are.
        transient: whether the drawing is erased at the end.
        over: whether these lines are the last ones.
    """
    # auto_refresh=False: rich's thread would read the run while the run changes.
    # redirect_stdout=False: stdout may carry JSON lines for another program.
    with Live(
        console=console, auto_refresh=False, transient=transient, redirect_stdout=False
    ) as live:
        last: object = None
        while True:
            width, height = console.size
            # Not in the last column, where some terminals begin a line of their own.
            frame = lines(width - 1, height)
            if (width, height, frame) != last:
                last = (width, height, frame)
                live.update(_text(frame), refresh=True)
            if over():
                return
            await anyio.sleep(_SECONDS_A_FRAME)


def _text(lines: Sequence[Sequence[Part]]) -> Text:
    text = Text(no_wrap=True, overflow="ellipsis", end="")
    for index, line in enumerate(lines):
        if index:
            text.append("\n")
        for part, style in line:
            text.append(part, style or None)
    return text


def held_lines(held: Held, width: int) -> list[Sequence[Part]]:
    """What delays a run: ``Waiting: the vendor's rate limit; next try in 12 s``."""
    reason = f"Waiting: {_HELD[held.reason]}"
    then = "" if held.seconds is None else f"next try in {in_time(held.seconds)}"
    whole = f"{reason}; {then}" if then else reason
    lines = [whole] if len(whole) <= width else [reason, then]
    return [[(line, "yellow")] for line in lines if line]


def _is_worth_a_line(held: Held) -> bool:
    """Not where the next request goes within a second: the rate stands in the totals."""
    return held.seconds is None or held.seconds >= 1.0


def _exports(shown: Sequence[Activity], progress: Progress, width: int) -> list[Sequence[Part]]:
    names = [printable(export.name or export.segment_id) for export in shown]
    widest = max(map(cell_len, names), default=0)
    room = max(8, min(widest, _WIDEST_NAME, width - _AFTER_THE_NAME))
    lines = [_export(one, name, room) for one, name in zip(shown, names, strict=True)]
    hidden = progress.pending + progress.fetching - len(shown)
    if hidden > 0:
        lines.append([(f"and {hidden} more under way", "dim")])
    return lines


def _export(export: Activity, name: str, room: int) -> Sequence[Part]:
    state, style = _STATES.get(export.state, (export.state, ""))
    size = in_bytes(export.bytes) if export.bytes else ""
    return [
        (fitted(name, room), ""),
        (f"  {state:10}", style),
        (f"  {in_time(export.age):>11}  {size:>10}".rstrip(), ""),
    ]


def fitted(text: str, width: int) -> str:
    """The text, filled up or cut to this width. Some characters are two columns wide."""
    if cell_len(text) > width:
        return set_cell_size(text, width - 1) + "…"
    return set_cell_size(text, width)


def _bar(progress: Progress, width: int, shared: int | None) -> list[Sequence[Part]]:
    ended = progress.exported + progress.unchanged + progress.not_exported
    share = "" if shared is None else f" here, of the run's {max(shared, progress.total)}"
    parts = [(f"{ended} of {progress.total}{share}", "bold"), *_counts(progress)]
    return with_bar(parts, ended, progress.total, width)


def _counts(progress: Progress) -> list[Part]:
    counts = [
        (f"{progress.waiting} waiting", "dim"),
        (f"{progress.pending} pending", "cyan"),
        (f"{progress.fetching} fetching", "green"),
    ]
    if progress.unchanged:
        counts.append((f"{progress.unchanged} unchanged", "dim"))
    if progress.not_exported:
        counts.append((f"{progress.not_exported} not exported", "red"))
    return counts


def _totals(progress: Progress, elapsed: float, width: int) -> list[Sequence[Part]]:
    requests = counted(progress.requests, "request")
    if progress.rate is not None:
        requests += f" ({progress.rate:.1f}/s at most)"
    parts = [in_bytes(progress.bytes), requests]
    if progress.throttled:
        parts.append(f"{progress.throttled} throttled")
    parts.append(in_time(elapsed))
    if progress.eta_seconds is not None:
        parts.append(f"about {in_time(progress.eta_seconds)} left")
    return packed([(part, "dim") for part in parts], width, " · ")


def with_bar(
    parts: Iterable[Part], done: int, total: int | None, width: int
) -> list[Sequence[Part]]:
    """Lines of these parts, the first behind a bar for `done` of `total` where it has room.

    `total`: None where it isn't known, and there is no bar.
    """
    lines = packed(parts, width, "  ")
    room = min(_WIDEST_BAR, width - 2 - sum(len(part) for part, _ in lines[0]))
    if total is None or room < _NARROWEST_BAR:
        return lines
    full = room * done // max(1, total)
    bar = [("━" * full, "green"), ("━" * (room - full), "dim"), ("  ", "")]
    return [[*bar, *lines[0]], *lines[1:]]


def packed(parts: Iterable[Part], width: int, between: str) -> list[Sequence[Part]]:
    """Lines of whole parts, as many in a line as fit."""
    lines: list[list[Part]] = [[]]
    length = 0
    for text, style in parts:
        if lines[-1] and length + len(between) + len(text) > width:
            lines.append([])
        if lines[-1]:
            lines[-1].append((between, "dim"))
        else:
            length = -len(between)
        length += len(between) + len(text)
        lines[-1].append((text, style))
    return list(lines)
