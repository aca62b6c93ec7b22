"""The commands about earlier runs: `runs` lists and prunes them, `resume` goes on with one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import attrs

from segments_async import Journal, RunSpec, RunStatus
from segments_async.cli import account, summary
from segments_async.cli.arguments import Hosts, Pace, RunOptions, RunsOptions
from segments_async.cli.destination import To, relative, to_of
from segments_async.cli.exit_codes import Exit, UsageError, unknown_run
from segments_async.cli.export import ExportCommand
from segments_async.cli.journal import place
from segments_async.cli.request import ExportRequest
from segments_async.cli.selection import Selection
from segments_async.cli.terminal import Terminal, counted
from segments_async.cli.watch import Watch


def command(
    journal: str | None, to: To | None, options: RunsOptions, terminal: Terminal
) -> Callable[[], Awaitable[Exit]]:
    """The work that `runs` is to do by its options.

    Raises:
        UsageError: the options contradict each other.
    """
    if options.prune is None:
        work = watch if options.watch else show
        return partial(work, journal, to, options.run, terminal)
    if options.watch or options.run is not None:
        raise UsageError(
            f"--prune and {'--watch' if options.watch else '--run'}: give one. Nothing was deleted"
        )
    return partial(prune, journal, to, options.prune, terminal)


async def show(journal: str | None, to: To | None, name: str | None, terminal: Terminal) -> Exit:
    """List the runs of a journal, the latest first; with `to`, those to that directory."""
    found = await (await _opened(journal, to)).runs(to)
    if name is not None:
        found = [_named(found, name)]
    if terminal.piped:
        await terminal.lines.send(*(run.to_dict() for run in found))
    elif found:
        terminal.people.print(summary.runs_table(found))
    if not found:
        terminal.note("No runs.")
    return Exit.ALL_DONE


async def watch(journal: str | None, to: To | None, name: str | None, terminal: Terminal) -> Exit:
    """Show the unfinished runs until cancelled, or the run of this name until it has ended."""
    opened = await _opened(journal, to)
    found = await opened.runs(to)
    if name is not None:
        _named(found, name)
    await Watch(opened, to, name, terminal).show(found)
    return Exit.ALL_DONE


async def _opened(journal: str | None, to: To | None) -> Journal:
    where = place(journal, to)  # before a credential is asked for
    return await account.without_token().journal(where)


def _named(found: Sequence[RunStatus], name: str) -> RunStatus:
    for run in found:
        if run.name == name:
            return run
    raise unknown_run(name)


async def prune(journal: str | None, to: To | None, days: float, terminal: Terminal) -> Exit:
    """Delete the runs to which nothing has happened for so many days."""
    opened = await _opened(journal, to)
    number = await opened.prune(datetime.now(UTC) - timedelta(days=days))
    if terminal.piped:
        await terminal.lines.send({"pruned": number})
    terminal.note(f"{counted(number, 'run')} deleted.")
    return Exit.ALL_DONE


@attrs.frozen(kw_only=True)
class ResumeRequest:
    """The arguments of `resume`; see `segments-async resume --help`."""

    journal: str | None
    to: To | None
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
        runs = await journal.runs(request.to)
        if not runs and request.run is None:
            self._say_none(await journal.runs())
            return Exit.ALL_DONE
        found = self._wanted(runs)
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

    def _say_none(self, others: Sequence[RunStatus]) -> None:
        """Say that the journal has no run to the directory, and which it has to others.

        A copied directory has the original's journal, whose runs go on in the original.
        """
        which = "" if self._request.to is None else " to this directory"
        self._terminal.note(f"The journal has no run{which}: there is nothing to go on with.")
        for run in others:
            if run.ended_at is None and run.destination is not None:
                self._terminal.note(
                    f"Run {run.name} to {relative(to_of(run.destination))} is unfinished."
                )

    def _wanted(self, found: Sequence[RunStatus]) -> RunStatus | None:
        """The run to go on with; None, after a message, where every run has ended."""
        name = self._request.run
        if name is not None:
            found = [_named(found, name)]
        unfinished = [run for run in found if run.ended_at is None]
        if len(unfinished) > 1:
            names = summary.some_names(run.name for run in unfinished)
            raise UsageError(f"which of {len(unfinished)} runs? Give --run: {names}")
        if not unfinished:
            which = "Every run" if name is None else f"Run {name}"
            self._terminal.note(f"{which} has ended: there is nothing to go on with.")
            return None
        return unfinished[0]


async def _spec(journal: Journal, run: RunStatus) -> tuple[To, RunSpec]:
    """The directory of the run's files, and the run's spec."""
    spec = await journal.spec(run.name)
    if run.destination is None or spec is None:
        raise UsageError(
            f"run {run.name}: the journal doesn't have its list of segments; `segments-async "
            "export` with the same segments, directory and journal goes on with the run"
        )
    return to_of(run.destination), spec


def _options(run: RunStatus, spec: RunSpec) -> RunOptions:
    options = {name: value for name, value in spec.options.items() if name != "shared"}
    if unknown := options.keys() - attrs.fields_dict(RunOptions).keys():
        raise UsageError(
            f"run {run.name} was started by a later version of segments-async, with options that "
            f"this version doesn't have: {', '.join(sorted(unknown))}. Go on with the run by that "
            "version"
        )
    return RunOptions(**options)
