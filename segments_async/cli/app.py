"""The commands: what they are called, what they take, and how each ends."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Annotated, Literal

import anyio
import attrs
from cyclopts import App, CycloptsError, Group, Parameter, validators
from rich.text import Text

from segments_async.cli import account, lines, summary
from segments_async.cli.choose import Choice
from segments_async.cli.exits import (
    Exit,
    Interrupted,
    UsageError,
    exit_code,
    interruptible,
    sentence,
)
from segments_async.cli.export import ExportCommand, Options
from segments_async.cli.screen import LogLines, Screen
from segments_async.errors import SegmentsError

_PROGRAM = "segments-async"

_ABOUT = """\
Credentials come from SEGMENTS_API_KEY and SEGMENTS_ACCESS_TOKEN, or from a prompt; never from an
argument, which other users of the machine could read. SEGMENTS_BASE_URL names another place than
the vendor's, such as the sandbox's.

Where stdout is not a terminal it carries JSON lines and nothing else; people read stderr then.

Exit codes: 0 all done, 1 something was not, 2 usage, 3 credentials refused, 130 Ctrl-C,
143 SIGTERM, 141 the reader of stdout went away.
"""


def _version() -> str:
    try:
        return f"{_PROGRAM} {metadata.version(_PROGRAM)}"
    except metadata.PackageNotFoundError:  # run from a copy of the sources
        return f"{_PROGRAM} (not installed)"


app: App = App(
    name=_PROGRAM,
    help="Export user segments of mParticle Analytics: many at once, as verified CSV files.",
    help_format="plaintext",
    help_epilogue=_ABOUT,
    version=_version,
    # No `--no-all`, no `--empty-name`; and a default is told in words where it says something.
    default_parameter=Parameter(negative=(), show_default=False),
)

_SELECTION = Group("Which segments", sort_key=1)
_DESTINATION = Group("Where to", sort_key=2)
_PACE = Group("Pace", sort_key=3)
_LIMIT = Group("Limit", sort_key=2)
_FAULTS = Group("Faults", sort_key=3)
_GENERAL = Group("General", sort_key=9)

_Count = Annotated[int, Parameter(validator=validators.Number(gte=0))]
_Positive = Annotated[int, Parameter(validator=validators.Number(gte=1))]
_Seconds = Annotated[float, Parameter(validator=validators.Number(gt=0))]
_Rate = Annotated[float, Parameter(validator=validators.Number(gt=0))]
_Share = Annotated[float, Parameter(validator=validators.Number(gte=0, lte=1))]
_Port = Annotated[int, Parameter(validator=validators.Number(gte=0, lte=65535))]


@Parameter(name="*", group=_GENERAL)
@attrs.frozen(kw_only=True)
class Talk:
    """What every command takes."""

    verbose: Annotated[int, Parameter(alias="-v", count=True)] = 0
    """Log lines on stderr: answers of 429, pauses and retries; twice, everything."""
    no_color: bool = False
    """No colours; so does NO_COLOR in the environment."""

    def screen(self, *, json: bool = False) -> Screen:
        """Open the screen, and let the library's log onto it."""
        screen = Screen.open(no_color=self.no_color, json=json)
        log = logging.getLogger("segments_async")
        log.handlers[:] = [LogLines(screen)]
        log.propagate = False
        log.setLevel({0: logging.WARNING, 1: logging.INFO}.get(self.verbose, logging.DEBUG))
        return screen


_QUIET = Talk()


@app.command(
    name="list",
    help_epilogue="""\
Examples:

  segments-async list
  segments-async list --json | jq -r .segment_id
""",
)
def list_segments(*, json: bool = False, talk: Talk = _QUIET) -> int:
    """List the account's segments.

    Args:
        json: One JSON object per segment and line, as when stdout is not a terminal.
    """
    screen = talk.screen(json=json)
    return _finish(partial(_list, screen), screen)


@app.command(
    usage="segments-async export (SEGMENT... | --all | --name GLOB...) --to DIR [OPTIONS]",
    help_epilogue="""\
Examples:

  segments-async export --all --to exports
  segments-async export --name 'Recent*' --name '*VIP*' --to exports --dry-run
  segments-async export 82200474-c131-4f7b-a35e-381469af31a7 --to exports
  segments-async export --all --to exports | jq -r 'select(.error) | .name'
  segments-async export --sandbox --all --to exports     (needs no account)
""",
)
def export(
    *segments: Annotated[str, Parameter(name="SEGMENT", group=_SELECTION)],
    every: Annotated[bool, Parameter(name="--all", group=_SELECTION)] = False,
    name: Annotated[
        Sequence[str], Parameter(group=_SELECTION, metavar="GLOB", consume_multiple=True)
    ] = (),
    to: Annotated[Path, Parameter(group=_DESTINATION, metavar="DIR")],
    overwrite: Annotated[bool, Parameter(group=_DESTINATION)] = False,
    dry_run: Annotated[bool, Parameter(group=_DESTINATION)] = False,
    timeout: Annotated[_Seconds | None, Parameter(group=_PACE, metavar="SECONDS")] = None,
    rate: Annotated[_Rate | None, Parameter(group=_PACE, metavar="PER_SECOND")] = None,
    downloads: Annotated[_Positive | None, Parameter(group=_PACE, metavar="N")] = None,
    max_pending: Annotated[_Positive | None, Parameter(group=_PACE, metavar="N")] = None,
    poll_share: Annotated[_Share | None, Parameter(group=_PACE, metavar="SHARE")] = None,
    sandbox: Annotated[bool, Parameter(group=_SELECTION)] = False,
    talk: Talk = _QUIET,
) -> int:
    """Export segments as CSV files, many at once.

    Each file appears under its name when it is whole: its length and SHA-256 are checked first.
    Outcomes are also kept in DIR/manifest.jsonl.

    Args:
        segments: Ids of segments.
        every: Every segment of the account.
        name: Segments whose name matches a shell pattern, such as 'Recent*'. A pattern that
            matches nothing is an error.
        to: A directory, made if it doesn't exist.
        overwrite: Replace files that are there already.
        dry_run: Show which segments would be exported to which files, and export nothing.
        timeout: Seconds for the whole run. What is unfinished then goes on at the vendor.
        rate: Requests per second at most; by default the account's limit is found.
        downloads: Files fetched at once; 8 by default.
        max_pending: Exports running at the vendor at once; no limit of ours by default.
        poll_share: Share of the requests that ask for results while exports wait to be
            submitted: 0 for the shortest run, 1 for the earliest results; 0.2 by default.
        sandbox: Export from a stand-in for the vendor that is started for this command, and
            compare each file with what it served.
    """
    screen = talk.screen()
    command = ExportCommand(
        Options(
            choice=Choice(ids=segments, names=name, every=every),
            to=to,
            dry_run=dry_run,
            overwrite=overwrite,
            timeout=timeout,
            downloads=downloads,
            rate=rate,
            max_pending=max_pending,
            poll_share=poll_share,
            sandbox=sandbox,
        ),
        screen,
    )
    return _finish(command.run, screen, command.say_unfinished)


@app.command(
    help_epilogue="""\
Examples:

  segments-async status 8f9fdd71-204c-41e1-a2ab-de7f85002f65
""",
)
def status(
    export_id: Annotated[str, Parameter(name="EXPORT_ID")],
    *,
    json: bool = False,
    talk: Talk = _QUIET,
) -> int:
    """Show where one export stands.

    Args:
        export_id: The export's id, as the manifest and JSON lines have it.
        json: One JSON object, as when stdout is not a terminal.
    """
    screen = talk.screen(json=json)
    return _finish(partial(_status, export_id, screen), screen)


@app.command(
    help_epilogue="""\
Examples:

  segments-async download 8f9fdd71-204c-41e1-a2ab-de7f85002f65 --to recent.csv
""",
)
def download(
    export_id: Annotated[str, Parameter(name="EXPORT_ID")],
    *,
    to: Annotated[Path, Parameter(metavar="FILE")],
    overwrite: bool = False,
    talk: Talk = _QUIET,
) -> int:
    """Fetch the file of one complete export.

    Args:
        export_id: The export's id, as the manifest and JSON lines have it.
        to: The file to write.
        overwrite: Replace the file if it is there already.
    """
    screen = talk.screen()
    return _finish(partial(_download, export_id, to, overwrite, screen), screen)


@app.command(
    help_epilogue="""\
Examples:

  segments-async sandbox
  segments-async sandbox --segments 500 --rate 50 --burst 50 --retry-after seconds
  segments-async sandbox --window 600/60 --failed 0.05 --gateway-errors 0.01
""",
)
def sandbox(
    *,
    port: Annotated[_Port, Parameter(metavar="N")] = 8420,
    files_port: Annotated[_Port, Parameter(metavar="N")] = 0,
    segments: Annotated[_Positive, Parameter(metavar="N")] = 1,
    rows: Annotated[_Count, Parameter(metavar="N")] = 1000,
    seed: Annotated[int, Parameter(metavar="N")] = 0,
    duration: Annotated[
        float, Parameter(metavar="SECONDS", validator=validators.Number(gte=0))
    ] = 4,
    latency: Annotated[float, Parameter(metavar="SECONDS", validator=validators.Number(gte=0))] = 0,
    rate: Annotated[_Rate | None, Parameter(group=_LIMIT, metavar="PER_SECOND")] = None,
    burst: Annotated[
        float, Parameter(group=_LIMIT, metavar="N", validator=validators.Number(gte=1))
    ] = 1,
    window: Annotated[str | None, Parameter(group=_LIMIT, metavar="REQUESTS/SECONDS")] = None,
    retry_after: Annotated[Literal["seconds", "date"] | None, Parameter(group=_LIMIT)] = None,
    failed: Annotated[_Share, Parameter(group=_FAULTS, metavar="SHARE")] = 0,
    internal_errors: Annotated[_Share, Parameter(group=_FAULTS, metavar="SHARE")] = 0,
    gateway_errors: Annotated[_Share, Parameter(group=_FAULTS, metavar="SHARE")] = 0,
    lost_before: Annotated[_Share, Parameter(group=_FAULTS, metavar="SHARE")] = 0,
    lost_after: Annotated[_Share, Parameter(group=_FAULTS, metavar="SHARE")] = 0,
    talk: Talk = _QUIET,
) -> int:
    """Serve a stand-in for the vendor on this machine, to try things on.

    It has the account, the segment and the export of the vendor's page, so that the page's curl
    commands run as they stand but for the host, and prints what to set to use it.

    Args:
        port: Of the API; 8420 by default, 0 for any that is free.
        files_port: Of the files; any that is free by default.
        segments: How many the account has, the page's first; 1 by default, so that the page's
            commands answer as the page prints them.
        rows: Of each file; 1000 by default.
        seed: What is drawn by chance follows from it; 0 by default.
        duration: Seconds an export takes, as a median; 4 by default.
        latency: Seconds an answer takes, as a median; 0 by default.
        rate: Requests per second granted; no limit by default.
        burst: Requests that may be saved up under --rate; 1 by default.
        window: A limit of another kind: so many requests in each window of so many seconds.
        retry_after: Say with a 429 how long to wait, in this form; by default it isn't said.
        failed: Share of exports that end FAILED.
        internal_errors: Share of requests answered 500.
        gateway_errors: Share of requests answered 502, 503 or 504.
        lost_before: Share of requests whose connection breaks before the vendor acts.
        lost_after: Share of requests whose connection breaks after it acted.
    """
    from segments_async.cli import sandbox as stand_in

    screen = talk.screen()
    behaviour = stand_in.Behaviour(
        segments=segments,
        rows=rows,
        seed=seed,
        duration=duration,
        rate=rate,
        burst=burst,
        window=window,
        retry_after=retry_after,
        failed=failed,
        internal_errors=internal_errors,
        gateway_errors=gateway_errors,
        lost_before=lost_before,
        lost_after=lost_after,
        latency=latency,
    )
    return stand_in.run(behaviour, port=port, files_port=files_port, screen=screen)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        command, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
        code: int = command(*bound.args, **bound.kwargs) or Exit.ALL_DONE
        sys.stdout.flush()
    except CycloptsError as error:
        _complain(f"{error} (segments-async --help shows what there is)")
        return Exit.USAGE
    except UsageError as error:
        _complain(str(error))
        return Exit.USAGE
    except BrokenPipeError:
        _forget_stdout()
        return Exit.READER_GONE
    return code


def _finish(
    work: Callable[[], Awaitable[Exit]],
    screen: Screen,
    cut_off: Callable[[], None] = lambda: None,
) -> int:
    """Do a command's work and end as it deserves; `cut_off` tells what a signal left undone."""
    try:
        return anyio.run(interruptible, work)
    except Interrupted as stop:
        screen.say(stop.sentence)
        cut_off()
        return stop.exit_code
    except (SegmentsError, UsageError) as error:
        screen.say(f"{_PROGRAM}: {sentence(error)}", style="red")
        return exit_code(error)
    except BrokenPipeError:
        cut_off()
        raise


async def _list(screen: Screen) -> Exit:
    async with account.from_environment().client() as client:
        segments = await client.list_segments()
    if screen.piped:
        for segment in segments:
            lines.write(lines.segment_line(segment))
    elif segments:
        screen.people.print(summary.segments_table(segments))
    if not segments:
        screen.say("The account has no segments.")
    return Exit.ALL_DONE


async def _status(export_id: str, screen: Screen) -> Exit:
    async with account.from_environment().client() as client:
        found = await client.get_export(export_id)
    if screen.piped:
        lines.write(lines.export_line(found))
    else:
        screen.people.print(summary.export_table(found))
    return Exit.ALL_DONE


async def _download(export_id: str, to: Path, overwrite: bool, screen: Screen) -> Exit:
    async with account.from_environment().client() as client:
        file = await client.download_export(export_id, to, overwrite=overwrite)
    if screen.piped:
        lines.write(lines.file_line(file))
    screen.people.print(Text(summary.file_line(file)), soft_wrap=True)
    return Exit.ALL_DONE


def _complain(what: str) -> None:
    Screen.open().say(f"{_PROGRAM}: {what}", style="red")


def _forget_stdout() -> None:
    """Nobody reads it any more; without this, Python would say so once more on leaving."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
