"""How `export` says whether its run is an earlier one, and which other runs it leaves alone."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from segments_async import Journal, RunStatus
from segments_async.cli.destination import To, relative, to_of
from segments_async.cli.journal import place
from segments_async.cli.terminal import Terminal, counted

#: Other unfinished runs that are named, each in a line.
_MOST_NAMED = 3


def say_start(name: str, earlier: RunStatus | None, terminal: Terminal, *, join: bool) -> None:
    """Say how a run that the journal has stands; nothing of a new one."""
    if earlier is None:
        return
    if earlier.ended_at is not None:
        follows = "nothing is sent" if join else "its outcomes are repeated"
        terminal.note(f"Run {name} has ended: {follows}.")
        return
    done = earlier.exported + earlier.unchanged
    of = f" of {earlier.segments}" if earlier.segments else ""
    how = "Joining" if join else "Going on with"
    terminal.note(f"{how} run {name}: {done}{of} are done.")


def name_others(
    name: str, runs: Mapping[str, RunStatus], to: To, journal: Path | str, terminal: Terminal
) -> None:
    """Name the other runs that haven't ended, since no later `export` goes on with them.

    Args:
        name: of the command's own run.
        runs: of the journal, by name.
        to: the directory of the command's files.
        journal: its path or URL.
    """
    others = [run for run in runs.values() if run.ended_at is None and run.name != name]
    for run in others:
        if run.live and run.destination == Journal.location_of(to):
            terminal.say(
                f"Run {run.name} to the same directory is under way in another process. This run "
                "is another one: it requests exports for the same segments again.",
                style="yellow",
            )
    _name_left([run for run in others if not run.live], to, journal, terminal)


def _name_left(left: Sequence[RunStatus], to: To, journal: Path | str, terminal: Terminal) -> None:
    """Name the runs that no process works at."""
    default = isinstance(to, Path) and journal == place(None, to)
    option = [] if default else ["--journal", str(journal)]
    for run in left[:_MOST_NAMED]:
        of = "" if run.segments is None else f" of {run.segments}"
        where = relative(to_of(run.destination) if run.destination else to)
        how = shlex.join([*option, "--to", where, "--run", run.name])
        terminal.say(
            f"Run {run.name} is unfinished, {run.unfinished}{of} segments; "
            f"`segments-async resume {how}` goes on with it, and this run doesn't.",
            style="yellow",
        )
    if len(left) > _MOST_NAMED:
        more = counted(len(left) - _MOST_NAMED, "run")
        terminal.say(f"And {more} more: `segments-async runs` lists them.")
