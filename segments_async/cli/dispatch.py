"""What each command does, from its read arguments to its exit code.

`app` imports this module when a command runs. All that a command needs beyond its arguments is
imported here: the client, the event loop, the terminal.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from segments_async.cli import commands, runs
from segments_async.cli import report as page
from segments_async.cli.arguments import (
    CommonOptions,
    Hosts,
    Names,
    Pace,
    RunOptions,
    RunsOptions,
    Workers,
)
from segments_async.cli.destination import To
from segments_async.cli.ending import finish
from segments_async.cli.exit_codes import UsageError
from segments_async.cli.export import ExportCommand
from segments_async.cli.journal import place
from segments_async.cli.request import ExportRequest
from segments_async.cli.selection import Selection


def list_segments(names: Names, common: CommonOptions) -> int:
    """List the account's segments."""
    terminal = common.terminal()
    return finish(partial(commands.list_segments, names, terminal), terminal)


def export(
    selection: Selection,
    to: To,
    options: RunOptions,
    pace: Pace,
    hosts: Hosts,
    workers: Workers,
    common: CommonOptions,
    *,
    journal: str | None,
    no_journal: bool,
    run: str | None,
    join: bool,
    dry_run: bool,
    sandbox: bool,
) -> int:
    """Export segments.

    Raises:
        UsageError: options contradict each other.
    """
    if journal is not None and (no_journal or sandbox):
        other = "--no-journal" if no_journal else "--sandbox, which keeps none"
        raise UsageError(f"--journal and {other}: give one")
    request = ExportRequest(
        selection=selection,
        to=to,
        options=options,
        pace=pace,
        hosts=hosts,
        # The stand-in is another account each time: no later command could go on there.
        journal=None if no_journal or sandbox else place(journal, to),
        run=run,
        join=join,
        workers=workers,
        dry_run=dry_run,
        sandbox=sandbox,
    )
    terminal = common.terminal()
    command = ExportCommand(request, terminal)
    return finish(command.run, terminal, command.say_unfinished)


def resume(
    journal: str | None,
    to: To | None,
    run: str | None,
    pace: Pace,
    hosts: Hosts,
    common: CommonOptions,
) -> int:
    """Go on with an unfinished run."""
    terminal = common.terminal()
    request = runs.ResumeRequest(journal=journal, to=to, run=run, pace=pace, hosts=hosts)
    command = runs.ResumeCommand(request, terminal)
    return finish(command.run, terminal, command.say_unfinished)


def show_runs(
    journal: str | None, to: To | None, options: RunsOptions, common: CommonOptions
) -> int:
    """List, watch or prune the runs of a journal."""
    terminal = common.terminal()
    shown = runs.command(journal, to, options, terminal)
    return finish(shown, terminal, until_interrupted=options.watch)


def report(
    run: str | None, html: Path, journal: str | None, to: To | None, common: CommonOptions
) -> int:
    """Write the page of a run."""
    terminal = common.terminal()
    return finish(partial(page.write, run, html, journal, to, terminal), terminal)


def status(export_id: str, common: CommonOptions) -> int:
    """Show the state of one export."""
    terminal = common.terminal()
    return finish(partial(commands.status, export_id, terminal), terminal)


def download(export_id: str, to: To, overwrite: bool, hosts: Hosts, common: CommonOptions) -> int:
    """Fetch the file of one complete export."""
    terminal = common.terminal()
    return finish(partial(commands.download, export_id, to, overwrite, hosts, terminal), terminal)
