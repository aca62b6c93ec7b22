"""The checked arguments of `export`, and of `resume` as far as they are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import attrs

from segments_async import Journal
from segments_async.cli.arguments import Hosts, Pace, RunOptions, Workers
from segments_async.cli.destination import To, is_text
from segments_async.cli.exit_codes import UsageError
from segments_async.cli.selection import Selection
from segments_async.errors import printable


@attrs.frozen(kw_only=True)
class ExportRequest:
    """The arguments of the command; see `segments-async export --help`.

    Attributes:
        journal: its path or URL; None for no journal.
        run: the run's name; None for an unnamed run.
        join: whether other processes work at the same run.
        workers: who works at the run in this process's place.
        command: the command that was given.
    """

    selection: Selection
    to: To
    options: RunOptions
    pace: Pace
    hosts: Hosts
    journal: Path | str | None
    run: str | None = None
    join: bool = False
    workers: Workers = attrs.field(factory=Workers)
    dry_run: bool = False
    sandbox: bool = False
    command: Literal["export", "resume"] = "export"

    def check(self) -> None:
        """Refuse contradictions before any request is sent.

        Raises:
            UsageError: arguments contradict each other, or the journal can't store the path.
            ConfigurationError: the directory is a URL.
        """
        self.selection.check()
        Journal.location_of(self.to)
        if self.join and self.run is None:
            raise UsageError(
                "--join needs --run NAME: without a name, a command that starts late would start "
                "a run of its own, and request every export once more"
            )
        self.workers.check(
            run=self.run, join=self.join, journal=self.journal is not None, pace=self.pace
        )
        if self.journal is None:
            if self.options.only_changed or self.run is not None:
                option = "--run" if self.run is not None else "--only-changed"
                raise UsageError(
                    f"{option} needs a journal, and with this command line there is none"
                )
        elif not is_text(self.to):
            raise UsageError(
                f"--to {printable(str(self.to))}: the path is not UTF-8 text, which a journal "
                "needs; give another directory, or --no-journal"
            )
