"""The commands about earlier runs: `runs` lists and prunes them, `resume` goes on with one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs

from segments_async import Journal, RunSpec, RunStatus
from segments_async.cli import account, summary
from segments_async.cli.arguments import Hosts, Pace, RunOptions
from segments_async.cli.exit_codes import Exit, UsageError
from segments_async.cli.export import ExportCommand, ExportRequest
from segments_async.cli.journal import place
from segments_async.cli.selection import Selection
from segments_async.cli.terminal import Terminal, counted


async def show(journal: str | None, to: Path | None, terminal: Terminal) -> Exit:
    """List the runs of a journal, the latest first; with `to`, those to that directory."""
    where = place(journal, to)
    found = await (await account.without_token().journal(where)).runs(to)
    if terminal.piped:
        await terminal.lines.send(*(run.to_dict() for run in found))
    elif found:
        terminal.people.print(summary.runs_table(found))
    if not found:
        terminal.note("No runs.")
    return Exit.ALL_DONE


async def prune(journal: str | None, to: Path | None, days: float, terminal: Terminal) -> Exit:
    """Delete the runs to which nothing has happened for so many days."""
    where = place(journal, to)
    opened = await account.without_token().journal(where)
    number = await opened.prune(datetime.now(UTC) - timedelta(days=days))
    if terminal.piped:
        await terminal.lines.send({"pruned": number})
    terminal.note(f"{counted(number, 'run')} deleted.")
    return Exit.ALL_DONE


@attrs.frozen(kw_only=True)
class ResumeRequest:
    """The arguments of `resume`; see `segments-async resume --help`."""

    journal: str | None
    to: Path | None
    run: str | None
    pace: Pace
    hosts: Hosts


class ResumeCommand:
    """`resume`: an `export` with the segments and options of an unfinished run."""

    def __init__(self, request: ResumeRequest, terminal: Terminal) -> None:
        self._request = request
        self._terminal = terminal
        self._export: ExportCommand | None = None

    async def run(self) -> Exit:
        """Find the run and its spec, and go on with the run."""
        request = self._request
        where = place(request.journal, request.to)
        source = account.from_environment()
        journal = await source.journal(where)
        found = self._wanted(await journal.runs(request.to))
        if found is None:
            return Exit.ALL_DONE
        directory, spec = await _spec(journal, found)
        export = ExportRequest(
            selection=Selection(ids=spec.segments),
            to=directory,
            options=_options(found, spec),
            pace=request.pace,
            hosts=request.hosts,
            journal=where,
            run=found.name,
            join=bool(spec.options.get("shared")),
            command="resume",
        )
        self._export = ExportCommand(export, self._terminal)
        return await self._export.run_for(source)

    def say_unfinished(self) -> None:
        """Name the segments that a signal cut off."""
        if self._export is not None:
            self._export.say_unfinished()

    def _wanted(self, found: Sequence[RunStatus]) -> RunStatus | None:
        """The run to go on with; None, after a message, where every run has ended."""
        name = self._request.run
        if name is not None:
            found = [run for run in found if run.name == name]
            if not found:
                raise UsageError(f"no run is called {name!r}: `segments-async runs` lists them")
        unfinished = [run for run in found if run.ended_at is None]
        if len(unfinished) > 1:
            names = summary.some_names(run.name for run in unfinished)
            raise UsageError(f"which of {len(unfinished)} runs? Give --run: {names}")
        if not unfinished:
            which = "Every run" if name is None else f"Run {name}"
            self._terminal.note(f"{which} has ended: there is nothing to go on with.")
            return None
        return unfinished[0]


async def _spec(journal: Journal, run: RunStatus) -> tuple[Path, RunSpec]:
    """The directory of the run's files, and the run's spec."""
    spec = await journal.spec(run.name)
    if run.destination is None or spec is None:
        raise UsageError(
            f"run {run.name}: nothing says which segments it has; `segments-async export` with "
            "the same segments, directory and journal goes on with the run"
        )
    return Path(run.destination), spec


def _options(run: RunStatus, spec: RunSpec) -> RunOptions:
    options = {name: value for name, value in spec.options.items() if name != "shared"}
    if unknown := options.keys() - attrs.fields_dict(RunOptions).keys():
        raise UsageError(
            f"run {run.name} was started by a later version of segments-async, with options that "
            f"this version doesn't have: {', '.join(sorted(unknown))}. Go on with the run by that "
            "version"
        )
    return RunOptions(**options)
