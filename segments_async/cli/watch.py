"""`runs --watch`: the runs of a journal while processes work at them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import anyio
import attrs

from segments_async import Journal, JournalError, RunStatus
from segments_async.cli.destination import To, relative, to_of
from segments_async.cli.ending import alongside
from segments_async.cli.live import Part, draw, held_lines, packed, with_bar
from segments_async.cli.terminal import Terminal, counted, in_time
from segments_async.errors import printable

#: Seconds between two looks at the journal.
_LOOK = 1.0
#: Pause between two looks, as a multiple of the last look's time. A look reads all events of
#: unfinished runs; with this pause, watching takes a tenth of a processor at most.
_REST = 9.0
#: Errors that may pass by themselves.
_PASSING = ("locked", "unavailable")
#: Seconds whose ends of exports are counted.
_RECENTLY = 60.0


@attrs.frozen
class Shown:
    """One run as it is drawn.

    Attributes:
        run: its status at the last look.
        ends: segments that ended in the last seconds of the watch.
        seconds: how many seconds: a minute, or since the first look; 0 at the first look.
    """

    run: RunStatus
    ends: int = 0
    seconds: float = 0.0


class Watch:
    """Shows runs until cancelled; a run of a name, until it has ended.

    Args:
        to: only the runs to this directory.
        name: only the run of this name; None for those that are unfinished, or end meanwhile.
        terminal: where they are drawn. A piped one gets a JSON line for each change of a run.
    """

    def __init__(
        self, journal: Journal, to: To | None, name: str | None, terminal: Terminal
    ) -> None:
        self._journal = journal
        self._to = to
        self._name = name
        self._terminal = terminal
        self._runs: Sequence[RunStatus] = ()
        #: Names of the runs that were unfinished at a look.
        self._seen: set[str] = set()
        #: For each run, the number of ended segments at each look of the last minute.
        self._ends: dict[str, deque[tuple[float, int]]] = {}
        self._trouble: str | None = None
        self._over = False

    async def show(self, found: Sequence[RunStatus]) -> None:
        """Show the runs that were just found, and their changes."""
        self._take(found)
        if self._terminal.piped:
            await self._send_changes()
            return
        async with alongside(self._look_on):
            await draw(self._terminal.people, self._lines, transient=False, over=self._is_over)

    async def _send_changes(self) -> None:
        sent: dict[str, object] = {}
        while True:
            changed = [run for run in self._runs if sent.get(run.name) != _without_clock(run)]
            sent |= {run.name: _without_clock(run) for run in changed}
            await self._terminal.lines.send(*(run.to_dict() for run in changed))
            if self._over:
                return
            await self._look()
            # Nothing may change for hours, and so nothing be sent, to a reader such as `head -1`.
            self._terminal.lines.check_reader()

    async def _look_on(self) -> None:
        while not self._over:
            await self._look()

    async def _look(self) -> None:
        """Wait, and read the journal once."""
        await anyio.sleep(_LOOK)
        before = anyio.current_time()
        try:
            found = await self._journal.runs(self._to)
        except JournalError as error:
            if error.reason not in _PASSING:
                raise
            if self._trouble is None and self._terminal.piped:
                self._terminal.say(f"segments-async: {error}; looking again", style="yellow")
            self._trouble = str(error)
        else:
            self._trouble = None
            self._take(found)
            # Not after an error: it took no processor time, and the journal may be back soon.
            await anyio.sleep(_REST * (anyio.current_time() - before))

    def _take(self, found: Iterable[RunStatus]) -> None:
        now = anyio.current_time()
        self._seen |= {run.name for run in found if run.ended_at is None}
        if self._name is None:
            self._runs = [run for run in found if run.name in self._seen]
        else:
            self._runs = [run for run in found if run.name == self._name]
            # A run that was pruned meanwhile has no end to wait for.
            self._over = all(run.ended_at is not None for run in self._runs)
        for run in self._runs:
            ends = self._ends.setdefault(run.name, deque())
            ends.append((now, _ended(run)))
            while now - ends[0][0] > _RECENTLY:
                ends.popleft()

    def _is_over(self) -> bool:
        return self._over

    def _lines(self, width: int, height: int) -> list[Sequence[Part]]:
        shown = [self._shown(run) for run in self._runs]
        trouble = [] if self._trouble is None else [[(printable(self._trouble), "yellow")]]
        return [*picture(shown, datetime.now(UTC), width, height - 1 - len(trouble)), *trouble]

    def _shown(self, run: RunStatus) -> Shown:
        (began, before), (now, ended) = self._ends[run.name][0], self._ends[run.name][-1]
        return Shown(run, max(0, ended - before), now - began)


def _without_clock(run: RunStatus) -> dict[str, object]:
    """The values whose change is worth a line: not the seconds that are left of a hold."""
    held = None if run.held is None else attrs.evolve(run.held, seconds=None)
    return attrs.evolve(run, held=held).to_dict()


def _ended(run: RunStatus) -> int:
    return run.exported + run.unchanged + run.not_exported


def picture(shown: Sequence[Shown], now: datetime, width: int, height: int) -> list[Sequence[Part]]:
    """The lines of the runs, the latest first: as many whole runs as there is room for.

    Args:
        now: aware.
        width: columns of a line, at most.
        height: lines, at most.
    """
    if not shown:
        return [[("No run is unfinished. Ctrl-C ends.", "dim")]]
    several = len({one.run.destination for one in shown}) > 1
    lines: list[Sequence[Part]] = []
    for index, one in enumerate(shown):
        block = _block(one, now, width, several=several)
        rest = len(shown) - index - 1
        if lines and len(lines) + 1 + len(block) + (rest > 0) > height:
            return [*lines, [(f"and {counted(rest + 1, 'run')} more", "dim")]]
        lines += [[], *block] if lines else block
    return lines


def _block(one: Shown, now: datetime, width: int, *, several: bool) -> list[Sequence[Part]]:
    """The lines of one run: its name and who works, the bar and the counts, what holds it."""
    run = one.run
    parts = [(printable(run.name), "bold"), _who(run)]
    parts.append((in_time(((run.ended_at or now) - run.started_at).total_seconds()), "dim"))
    if several and run.destination is not None:
        parts.append((f"to {relative(to_of(run.destination))}", "dim"))
    lines = packed(parts, width, " · ")
    lines += _bar(one, width)
    if run.held is not None and run.held.until is not None:
        left = max(0.0, (run.held.until - now).total_seconds())
        lines += held_lines(attrs.evolve(run.held, seconds=left), width)
    return lines


def _who(run: RunStatus) -> Part:
    if run.ended_at is not None:
        return "ended", "green"
    if not run.live:
        return "no process works at it", "yellow"
    return f"{counted(run.processes, 'process', 'processes')} at work", "cyan"


def _bar(one: Shown, width: int) -> list[Sequence[Part]]:
    run = one.run
    unknown = run.segments is None
    ended = f"{_ended(run)}" if unknown else f"{_ended(run)} of {run.segments}"
    parts: list[Part] = [(ended, "bold")]
    counts: list[tuple[int, str, str]] = [
        (run.unchanged, "unchanged", "dim"),
        (run.not_exported, "not exported", "red"),
        (run.unfinished, "unfinished or more" if unknown else "unfinished", "dim"),
    ]
    parts += [(f"{count} {what}", style) for count, what, style in counts if count]
    if one.seconds and run.live:
        parts.append((f"{one.ends} in the last {in_time(one.seconds)}", "dim"))
    return with_bar(parts, _ended(run), run.segments, width)
