"""The commands: their names, options and help. `arguments` has the options of several commands.

What the commands do is in `dispatch`, which the first command that does anything imports: `--help`,
`--version` and shell completion need no HTTP client, no event loop and no terminal.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from cyclopts import App, Parameter

import segments_async
from segments_async.cli import environment
from segments_async.cli.arguments import (
    AGAIN,
    DESTINATION,
    SELECTION,
    CommonOptions,
    Hosts,
    Names,
    Pace,
    Port,
    RunOptions,
    RunsOptions,
    SandboxOptions,
    Workers,
)
from segments_async.cli.destination import To, place_of_file, place_of_files
from segments_async.cli.selection import Selection

PROGRAM = "segments-async"
_Function = TypeVar("_Function", bound=Callable[..., Any])

_ABOUT = """\
Credentials come from SEGMENTS_API_KEY and SEGMENTS_ACCESS_TOKEN, or from a
prompt; never from an argument, which other users of the machine could read.
SEGMENTS_BASE_URL names another API than the vendor's, such as the sandbox's.

Settings can come from the environment, too: --rate of `export` from
SEGMENTS_EXPORT_RATE, --only-changed from SEGMENTS_EXPORT_ONLY_CHANGED=true.
An argument counts more than a variable.

Where stdout is not a terminal it carries JSON lines and nothing else; the
summary for people goes to stderr then.

Exit codes: 0 all done, 1 something failed, 2 usage, 3 credentials refused,
130 Ctrl-C, 143 SIGTERM, 129 the terminal was closed, 141 the reader of stdout
went away.
"""


def _reflowed(text: str) -> str:
    """The text, each paragraph in one line: the terminal breaks it. Indented lines stay."""
    return re.sub(r"(?<=\S)\n(?=\S)", " ", text)


def version() -> str:
    """The text of `--version`."""
    return f"{PROGRAM} {segments_async.__version__}"


app: App = App(
    name=PROGRAM,
    help="Export user segments of mParticle Analytics: many at once, as verified CSV files.",
    help_format="plaintext",
    help_epilogue=_reflowed(_ABOUT),
    version=version,
    # No `--no-all`, no `--empty-name`. The help texts say the defaults that matter, in words.
    default_parameter=Parameter(negative=(), show_default=False),
    config=environment.options,
)


def _command(
    examples: str, *, name: str | None = None, usage: str | None = None
) -> Callable[[_Function], _Function]:
    """Register a command, whose help has these examples, and is as wide as the terminal."""

    def register(function: _Function) -> _Function:
        function.__doc__ = _reflowed(inspect.cleandoc(function.__doc__ or ""))
        app.command(function, name=name, usage=usage, help_epilogue=_reflowed(examples))
        return function

    return register


_COMMON, _PACE, _RUN_OPTIONS = CommonOptions(), Pace(), RunOptions()
_RUNS_OPTIONS = RunsOptions()
_HOSTS = Hosts()
_WORKERS = Workers()
_SANDBOX_OPTIONS = SandboxOptions()


@_command(
    name="list",
    examples="""\
Examples:

  segments-async list
  segments-async list --name 'Recent*'
  segments-async list --json | jq -r .segment_id
""",
)
def list_segments(*, name: Names = (), common: CommonOptions = _COMMON) -> int:
    """List the account's segments.

    Args:
        name: Only segments whose name matches a shell pattern; an error if none does.
    """
    from segments_async.cli import dispatch

    return dispatch.list_segments(name, common)


@_command(
    usage="segments-async export (SEGMENT... | --all | --name GLOB...) --to DIR [OPTIONS]",
    examples="""\
Examples:

  segments-async export --all --to exports
  segments-async export --name 'Recent*' --name '*VIP*' --to exports --dry-run
  segments-async export 82200474-c131-4f7b-a35e-381469af31a7 --to exports
  segments-async export --all --to exports | jq -r 'select(.error) | .name'
  segments-async export --all --to exports --only-changed
  segments-async export --all --to exports --run nightly --join    (several times at once)
  segments-async export --sandbox --all --to exports     (needs no account)

A journal in DIR/.segments-async/ stores what was requested: after a kill,
Ctrl-C, a --timeout or an outage, the same command goes on, and no export is
requested twice. With --sandbox there is no journal.
""",
)
def export(
    *segments: Annotated[str, Parameter(name="SEGMENT", group=SELECTION)],
    every: Annotated[bool, Parameter(name="--all", group=SELECTION)] = False,
    name: Annotated[Names, Parameter(group=SELECTION)] = (),
    to: Annotated[To, Parameter(group=DESTINATION, metavar="DIR", converter=place_of_files)],
    dry_run: Annotated[bool, Parameter(group=DESTINATION)] = False,
    journal: Annotated[str | None, Parameter(group=AGAIN, metavar="PATH_OR_URL")] = None,
    no_journal: Annotated[bool, Parameter(group=AGAIN)] = False,
    run: Annotated[str | None, Parameter(group=AGAIN, metavar="NAME")] = None,
    join: Annotated[bool, Parameter(group=AGAIN)] = False,
    workers: Workers = _WORKERS,
    sandbox: Annotated[bool, Parameter(group=SELECTION)] = False,
    options: RunOptions = _RUN_OPTIONS,
    pace: Pace = _PACE,
    hosts: Hosts = _HOSTS,
    common: CommonOptions = _COMMON,
) -> int:
    """Export segments as CSV files, many at once.

    Each file appears under its name when it is whole: its length and SHA-256 are checked first.
    Outcomes are also kept in DIR/manifest.jsonl.

    Args:
        segments: Ids of segments.
        every: Every segment of the account.
        name: Segments whose name matches a shell pattern, such as 'Recent*'; an error if none does.
        to: A directory, made if it doesn't exist, or s3://BUCKET/PREFIX (gs://, az://).
        dry_run: Show which segments would be exported to which files, and export nothing.
        journal: Another place for the journal: a file, or postgresql://HOST/DATABASE.
        no_journal: Keep no journal. After the process has ended, no command can go on.
        run: Start, or go on with, the run of this name; of an ended run, repeat the outcomes.
        join: Share the run with other processes of the same command, on this or other machines.
        sandbox: Export from a stand-in for the vendor, started for this command; compare each file.
    """
    from segments_async.cli import dispatch

    return dispatch.export(
        Selection(ids=segments, names=name, every=every),
        to,
        options,
        pace,
        hosts,
        workers,
        common,
        journal=journal,
        no_journal=no_journal,
        run=run,
        join=join,
        dry_run=dry_run,
        sandbox=sandbox,
    )


@_command(
    """\
Examples:

  segments-async resume --to exports
  segments-async resume --to exports --run 2026-11-23 --timeout 3600

The run keeps the segments and options that it was started with, such as
--only-changed. Where every run has ended, there is nothing to do, and that is
a success.
""",
)
def resume(
    *,
    to: Annotated[To | None, Parameter(metavar="DIR", converter=place_of_files)] = None,
    journal: Annotated[str | None, Parameter(metavar="PATH_OR_URL")] = None,
    run: Annotated[str | None, Parameter(metavar="NAME")] = None,
    pace: Pace = _PACE,
    hosts: Hosts = _HOSTS,
    common: CommonOptions = _COMMON,
) -> int:
    """Go on with an unfinished export, without naming its segments again.

    Args:
        to: The directory of its files, and of its journal.
        journal: The place of the journal, if it is another one.
        run: The run, where several are unfinished.
    """
    from segments_async.cli import dispatch

    return dispatch.resume(journal, to, run, pace, hosts, common)


@_command(
    name="runs",
    examples="""\
Examples:

  segments-async runs --to exports
  segments-async runs --to exports --json | jq -r 'select(.unfinished > 0).run'
  segments-async runs --to exports --watch
  segments-async runs --to exports --prune 90

--prune deletes unfinished runs too, except those that a process has open, and
of every directory that shares the journal. With a run goes what --only-changed
needs to know of its files.
""",
)
def show_runs(
    *,
    to: Annotated[To | None, Parameter(metavar="DIR", converter=place_of_files)] = None,
    journal: Annotated[str | None, Parameter(metavar="PATH_OR_URL")] = None,
    options: RunsOptions = _RUNS_OPTIONS,
    common: CommonOptions = _COMMON,
) -> int:
    """List the runs of a journal, the latest first, or watch them.

    Args:
        to: The directory of their files, and of their journal.
        journal: The place of the journal, if it is another one.
    """
    from segments_async.cli import dispatch

    return dispatch.show_runs(journal, to, options, common)


@_command(
    """\
Examples:

  segments-async report --to exports --html report.html
  segments-async report 2026-11-23T02-00-00Z --to exports --html report.html

The page is one file, for a browser. It requests nothing from anywhere, and
holds no link and no credential: it can be mailed and kept. A page that is
there already is replaced; any other file is kept.
"""
)
def report(
    run: Annotated[str | None, Parameter(name="RUN")] = None,
    /,
    *,
    html: Annotated[Path, Parameter(metavar="FILE")],
    to: Annotated[To | None, Parameter(metavar="DIR", converter=place_of_files)] = None,
    journal: Annotated[str | None, Parameter(metavar="PATH_OR_URL")] = None,
    common: CommonOptions = _COMMON,
) -> int:
    """Write a page about a run: totals, timeline, pace, failures, and every export.

    Args:
        run: The run's name, as `runs` lists it; the latest run by default.
        html: The file to write.
        to: The directory of the run's files, and of its journal.
        journal: The place of the journal, if it is another one.
    """
    from segments_async.cli import dispatch

    return dispatch.report(run, html, journal, to, common)


@_command(
    """\
Examples:

  jq -r .export_id exports/manifest.jsonl           (the ids of your exports)
  segments-async status EXPORT_ID
""",
)
def status(
    export_id: Annotated[str, Parameter(name="EXPORT_ID")],
    /,
    *,
    common: CommonOptions = _COMMON,
) -> int:
    """Show the state of one export.

    Args:
        export_id: The export's id, as the manifest and JSON lines have it.
    """
    from segments_async.cli import dispatch

    return dispatch.status(export_id, common)


@_command(
    """\
Examples:

  jq -r .export_id exports/manifest.jsonl           (the ids of your exports)
  segments-async download EXPORT_ID --to recent.csv
""",
)
def download(
    export_id: Annotated[str, Parameter(name="EXPORT_ID")],
    /,
    *,
    to: Annotated[To, Parameter(metavar="FILE", converter=place_of_file)],
    overwrite: bool = False,
    hosts: Hosts = _HOSTS,
    common: CommonOptions = _COMMON,
) -> int:
    """Fetch the file of one complete export.

    Args:
        export_id: The export's id, as the manifest and JSON lines have it.
        to: The file to write, or s3://BUCKET/KEY (gs://, az://).
        overwrite: Replace the file if it is there already.
    """
    from segments_async.cli import dispatch

    return dispatch.download(export_id, to, overwrite, hosts, common)


@_command(
    """\
Examples:

  segments-async sandbox
  segments-async sandbox --segments 500 --rate 50 --retry-after seconds
  segments-async sandbox --window 600/60 --failed 0.05 --gateway-errors 0.01
""",
)
def sandbox(
    *,
    port: Annotated[Port, Parameter(metavar="N")] = 8420,
    files_port: Annotated[Port, Parameter(metavar="N")] = 0,
    options: SandboxOptions = _SANDBOX_OPTIONS,
    common: CommonOptions = _COMMON,
) -> int:
    """Serve a stand-in for the vendor on this machine, to try things on.

    It has the account, the segment and the export of the vendor's page, so that the page's curl
    commands run as they stand but for the host, and prints what to set to use it.

    Args:
        port: Of the API; 8420 by default, 0 for any that is free.
        files_port: Of the files; any that is free by default.
    """
    from segments_async.cli import sandbox as stand_in

    return stand_in.run(options, port=port, files_port=files_port, terminal=common.terminal())


@_command(
    """\
Examples:

  eval "$(segments-async completion bash)"
  segments-async completion zsh --install
  segments-async completion fish > ~/.config/fish/completions/segments-async.fish
"""
)
def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(name="SHELL")],
    /,
    *,
    install: bool = False,
) -> int:
    """Print a script that completes commands and options in a shell.

    Args:
        shell: The shell.
        install: Write the script to where the shell finds it, and the line that loads it into the
            shell's startup file, instead of printing it.
    """
    from segments_async.cli import completion as script

    return script.install(app, shell) if install else script.show(app, shell)
