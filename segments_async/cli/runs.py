"""The commands about runs that were: `runs` shows and prunes them, `resume` goes on with one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio.to_thread

from segments_async._files.destination import absolute
from segments_async._journal.records import RunSummary
from segments_async.cli import account, json_lines, kept, summary
from segments_async.cli.arguments import Hosts, Pace
from segments_async.cli.exit_codes import Exit, UsageError
from segments_async.cli.export import ExportCommand, ExportRequest
from segments_async.cli.journal import Known, place
from segments_async.cli.kept import Kept
from segments_async.cli.selection import Selection
from segments_async.cli.standing import Standing
from segments_async.cli.terminal import Terminal, counted


async def show(journal: str | None, to: Path | None, terminal: Terminal) -> Exit:
    """The runs of a journal, the latest first; with `to`, those to that directory."""
    found = _to(to, await _known(place(journal, to), account.journal_account()))
    standings = await anyio.to_thread.run_sync(lambda: [Standing.of(run) for run in found])
    if terminal.piped:
        await terminal.lines.send(*map(json_lines.run_line, standings))
    elif standings:
        terminal.people.print(summary.runs_table(standings))
    if not standings:
        terminal.say("No runs.")
    return Exit.ALL_DONE


async def prune(journal: str | None, to: Path | None, days: float, terminal: Terminal) -> Exit:
    """Forget the runs to which nothing has happened for so many days."""
    known = await _known(place(journal, to), account.journal_account())
    number = await known.journal.prune(datetime.now(UTC) - timedelta(days=days))
    left = {run.name for run in await known.journal.runs()}
    for run in known.runs.values():
        if run.name not in left and run.destination is not None:
            await anyio.to_thread.run_sync(kept.forget, Path(run.destination), run.name)
    if terminal.piped:
        await terminal.lines.send({"pruned": number})
    terminal.say(f"{counted(number, 'run')} forgotten.")
    return Exit.ALL_DONE


class ResumeCommand:
    """`resume`: an `export` that needn't be told what."""

    def __init__(
        self,
        journal: str | None,
        to: Path | None,
        run: str | None,
        pace: Pace,
        hosts: Hosts,
        terminal: Terminal,
    ) -> None:
        self._place = journal, to
        self._run = run
        self._pace = pace
        self._hosts = hosts
        self._terminal = terminal
        self._export: ExportCommand | None = None

    async def run(self) -> Exit:
        """Find the run and what it was asked for, and go on with it."""
        journal, to = self._place
        where = place(journal, to)
        source = account.from_environment()
        known = await _known(where, source.digest)
        found = self._wanted(_to(to, known))
        if found is None:
            return Exit.ALL_DONE
        directory, asked = await anyio.to_thread.run_sync(_kept, found)
        request = ExportRequest(
            selection=Selection(ids=asked.segments),
            to=directory,
            options=asked.terms,
            pace=self._pace,
            hosts=self._hosts,
            journal=where,
            run=found.name,
            command="resume",
        )
        self._export = ExportCommand(request, self._terminal)
        return await self._export.run_for(source)

    def say_unfinished(self) -> None:
        """Name what a signal cut off."""
        if self._export is not None:
            self._export.say_unfinished()

    def _wanted(self, found: Sequence[RunSummary]) -> RunSummary | None:
        """The run to go on with; None, and a word about it, where there is nothing to do."""
        if self._run is not None:
            found = [run for run in found if run.name == self._run]
            if not found:
                raise UsageError(f"no run is called {self._run!r}: segments-async runs lists them")
        unfinished = [run for run in found if run.ended_at is None]
        if len(unfinished) > 1:
            names = summary.some_names(run.name for run in unfinished)
            raise UsageError(f"which of {len(unfinished)} runs? Give --run: {names}")
        if not unfinished:
            which = "Every run" if self._run is None else f"Run {self._run}"
            self._terminal.say(f"{which} has ended: there is nothing to go on with.")
            return None
        return unfinished[0]


async def _known(where: Path | str, digest: str) -> Known:
    known = await Known.look(where, account=digest)
    if known is None:
        raise UsageError(f"there is no journal at {where}")
    return known


def _to(to: Path | None, known: Known) -> list[RunSummary]:
    directory = None if to is None else str(absolute(to))
    return [run for run in known.runs.values() if directory in (None, run.destination)]


def _kept(run: RunSummary) -> tuple[Path, Kept]:
    """What the run was asked for, and the directory of its files."""
    asked = None
    if run.destination is not None:
        asked = Kept.load(Path(run.destination), run.name)
    if run.destination is None or asked is None:
        raise UsageError(
            f"run {run.name}: nothing says which segments it has; `segments-async export` with "
            "the same segments, directory and journal goes on with it"
        )
    return Path(run.destination), asked
