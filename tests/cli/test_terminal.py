"""The command in a terminal: progress, tables, colours, prompts, and names that attack it."""

from __future__ import annotations

import io
import json
import logging
import re
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol

import pytest
from launch import Environment, Run, Start, Until
from pseudo_terminal import PseudoTerminal
from rich.console import Console

from segments_async import RunStatus
from segments_async._run.report import BulkReport
from segments_async.cli import summary
from segments_async.cli.terminal import LogLines, Terminal, counted, in_time
from segments_async.errors import ExportFailedError, NotSubmittedError, printable
from segments_async.models import Export, Segment
from segments_async.results import Exported, ExportedFile, NotExported, Progress
from segments_async.sandbox import (
    PAGE_ACCESS_TOKEN,
    PAGE_API_KEY,
    PAGE_SEGMENT_ID,
    Durations,
    Fault,
    Sandbox,
)
from segments_async.sandbox.server import SandboxServer


class InTerminal(Protocol):
    """Start the command in a pseudo-terminal."""

    def __call__(
        self, *arguments: str, env: dict[str, str], stdout: int | None = None
    ) -> PseudoTerminal: ...


@pytest.fixture
def in_terminal(start: Start) -> InTerminal:
    return partial(PseudoTerminal, start)


def test_export_shows_progress_and_a_table(account: Environment, in_terminal: InTerminal) -> None:
    """In a terminal an export is drawn while it goes on, and summed up in a table; no JSON."""
    with SandboxServer(Sandbox(segments=3, durations=Durations(median=0.5, sigma=0))) as server:
        terminal = in_terminal("export", "--all", "--to", "exports", env=account(server))
        code, shown = terminal.end()
    assert code == 0
    assert "pending" in shown
    assert "of 3" in shown
    assert "3 of 3 segments exported" in shown
    assert server.sandbox.sha256(server.sandbox.segment_ids[0])[:12] in shown
    assert '{"run"' not in shown


def test_export_says_why_nothing_moves(
    account: Environment, in_terminal: InTerminal, until: Until
) -> None:
    """While a list or a poll waits after a 500, the terminal says why, and when it goes on."""
    sandbox = Sandbox(segments=3, durations=Durations(median=0.5, sigma=0))
    sandbox.inject(Fault.status(500), path="/list")
    with SandboxServer(sandbox) as server:
        terminal = in_terminal("export", "--all", "--to", "exports", env=account(server))
        terminal.interrupt("Waiting: the vendor answered 500", until)
        _, shown = terminal.end()
    assert "next try in " in shown


def test_list_is_a_table(
    account: Environment, server: SandboxServer, in_terminal: InTerminal
) -> None:
    """In a terminal the list is a table with headings."""
    code, shown = in_terminal("list", env=account(server)).end()
    assert code == 0
    assert "Last run" in shown
    assert "My Segment" in shown


def test_runs_is_a_table(
    account: Environment, server: SandboxServer, in_terminal: InTerminal
) -> None:
    """In a terminal the runs are a table, and of an unchanged segment the summary says so."""
    env = account(server)
    export = ("export", "--all", "--to", "exports", "--only-changed")
    assert in_terminal(*export, env=env).end()[0] == 0
    _, again = in_terminal(*export, env=env).end()
    code, shown = in_terminal("runs", "--to", "exports", env=env).end()
    assert "0 of 5 segments exported to exports, 5 unchanged" in again
    assert code == 0
    for heading in ("Run", "Started", "Segments", "5 unchanged"):
        assert heading in shown


def test_runs_are_watched(
    account: Environment, server: SandboxServer, in_terminal: InTerminal
) -> None:
    """In a terminal an ended run is drawn once, and stays on the screen."""
    env = account(server)
    export = ("export", "--all", "--to", "exports", "--run", "first")
    assert in_terminal(*export, env=env).end()[0] == 0
    watch = ("runs", "--to", "exports", "--run", "first", "--watch", "--no-color")
    code, shown = in_terminal(*watch, env=env).end()
    assert code == 0
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown)
    assert "first · ended" in plain
    assert "5 of 5" in plain
    assert re.search(r"\x1b\[(\d+;)*3[0-7]", shown) is None, "a colour"


def test_a_watch_ends_by_ctrl_c(
    account: Environment, server: SandboxServer, in_terminal: InTerminal, until: Until
) -> None:
    """Without a name the watch goes on until Ctrl-C, which is its success."""
    env = account(server)
    assert in_terminal("export", "--all", "--to", "exports", env=env).end()[0] == 0
    terminal = in_terminal("runs", "--to", "exports", "--watch", env=env)
    terminal.interrupt("No run is unfinished", until)
    code, shown = terminal.end()
    assert code == 0
    assert "Interrupted" not in shown


@pytest.mark.parametrize("how", [["--no-color"], []], ids=["--no-color", "NO_COLOR"])
def test_no_color(
    account: Environment, server: SandboxServer, in_terminal: InTerminal, how: list[str]
) -> None:
    """`--no-color` and NO_COLOR leave out colours."""
    variables = {} if how else {"NO_COLOR": "1"}
    env = account(server, SEGMENTS_API_KEY="wrong", **variables)
    code, shown = in_terminal("list", *how, env=env).end()
    assert code == 3
    assert "\x1b[31m" not in shown


def test_missing_credentials_are_asked_for(
    account: Environment, server: SandboxServer, until: Until, in_terminal: InTerminal
) -> None:
    """In a terminal missing credentials are asked for, and the answers are not shown."""
    env = account(server, SEGMENTS_API_KEY="", SEGMENTS_ACCESS_TOKEN="")
    terminal = in_terminal("list", env=env)
    terminal.answer("API key", PAGE_API_KEY, until)
    terminal.answer("Access token", PAGE_ACCESS_TOKEN, until)
    code, shown = terminal.end()
    assert code == 0
    assert PAGE_ACCESS_TOKEN not in shown
    assert "My Segment" in shown


@pytest.mark.parametrize("command", [["list"], ["export", "--all", "--to", "exports"]])
def test_names_cannot_command_the_terminal(
    account: Environment, server: SandboxServer, in_terminal: InTerminal, command: list[str]
) -> None:
    """Control characters in a segment's name reach the terminal escaped."""

    def rename(body: bytes) -> bytes:
        return body.replace(b'"My Segment"', b'"My \\u001b]0;owned\\u0007\\u202eSegment"')

    server.sandbox.inject(Fault.changed(rename), path="list")
    _, shown = in_terminal(*command, env=account(server)).end()
    assert "\x1b]0;owned" not in shown
    assert "\u202e" not in shown
    assert "\\x1b]0;owned" in shown


def test_json_in_a_terminal_on_demand(
    account: Environment, server: SandboxServer, in_terminal: InTerminal
) -> None:
    """`list --json` is JSON lines in a terminal too."""
    code, shown = in_terminal("list", "--json", env=account(server)).end()
    assert code == 0
    assert all(line.startswith("{") for line in shown.splitlines())


def test_colours_are_not_forced_into_a_pipe(
    run: Run, account: Environment, server: SandboxServer
) -> None:
    """FORCE_COLOR doesn't make a pipe a terminal: stdout stays JSON lines."""
    done = run("list", env=account(server, FORCE_COLOR="1"))
    assert done.stdout.startswith('{"segment_id"')


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Köln & 日本", "Köln & 日本"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("a\u202eb", "a\\u202eb"),
        ("a\u00a0b", "a\u00a0b"),
    ],
)
def test_plain(text: str, shown: str) -> None:
    """Control characters are escaped; readable characters stay."""
    assert printable(text) == shown


def test_values_in_words() -> None:
    """Times and counts as a person would write them."""
    assert [in_time(s) for s in (0.4, 59, 61, 3600, 7500)] == [
        "0 s", "59 s", "1 min 01 s", "1 h 00 min", "2 h 05 min",
    ]  # fmt: skip
    assert [counted(1, "file"), counted(2, "file")] == ["1 file", "2 files"]


def test_a_piped_stdout_gets_its_lines_from_a_terminal_too(
    in_terminal: InTerminal, account: Environment, server: SandboxServer, tmp_path: Path
) -> None:
    """With progress drawn on the terminal, stdout into a file is still JSON lines, all of them."""
    with (tmp_path / "lines").open("wb") as lines:
        terminal = in_terminal(
            *("export", "--all", "--to", "exports"),
            env=account(server),
            stdout=lines.fileno(),
        )
        code, shown = terminal.end()
    written = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
    assert code == 0
    assert len(written) == len(server.sandbox.segment_ids)
    assert '{"run"' not in shown


def test_a_prompt_can_be_interrupted(
    account: Environment, server: SandboxServer, until: Until, in_terminal: InTerminal
) -> None:
    """Ctrl-C at the prompt for credentials ends the command at once, with 130."""
    env = account(server, SEGMENTS_API_KEY="", SEGMENTS_ACCESS_TOKEN="")
    terminal = in_terminal("list", env=env)
    terminal.interrupt("API key", until)
    code, shown = terminal.end()
    assert code == 130
    assert "Traceback" not in shown


def test_what_would_be_exported_cannot_command_the_terminal(
    account: Environment, server: SandboxServer, in_terminal: InTerminal
) -> None:
    """Control characters in an id reach the table of `--dry-run` escaped."""

    def rename(body: bytes) -> bytes:
        return body.replace(b'"segmentId": "', b'"segmentId": "\\u001b]0;o')

    server.sandbox.inject(Fault.changed(rename), path="list")
    arguments = ("export", "--all", "--dry-run", "--to", "exports")
    _, shown = in_terminal(*arguments, env=account(server)).end()
    assert "\x1b]0;" not in shown
    assert "\\x1b]0;o" in shown


def test_tables_fit_into_80_columns() -> None:
    """On 80 columns ids, times and names of runs are in one piece, and no line is longer."""
    text = io.StringIO()
    console = Console(file=text, width=80, no_color=True, markup=False, highlight=False)
    noon = datetime(2026, 11, 23, 12, 0, 3, tzinfo=UTC)
    segment = Segment(PAGE_SEGMENT_ID, "Recent purchasers of VIP shoes", "p", last_run=noon)
    run = RunStatus(
        name="2026-11-23T12-00-03Z",
        destination="/exports",
        started_at=noon,
        ended_at=noon,
        live=False,
        processes=0,
        held=None,
        segments=500,
        exported=300,
        unchanged=190,
        not_exported=9,
        unfinished=1,
    )
    name = f"Recent-purchasers-{PAGE_SEGMENT_ID[:8]}.csv"
    narrow = summary.is_narrow(console)
    console.print(summary.segments_table([segment], width=console.width))
    console.print(summary.runs_table([run]))
    names, files = {PAGE_SEGMENT_ID: "Recent"}, {PAGE_SEGMENT_ID: Path(name)}
    console.print(summary.plan_table(names, files, narrow=narrow))
    shown = text.getvalue()
    assert shown.count(PAGE_SEGMENT_ID) == 2
    for piece in (run.name, name, "300 exported", "9 not exported"):
        assert piece in shown
    assert shown.count("2026-11-23 12:00") == 3
    assert max(map(len, shown.splitlines())) <= 80


def test_a_list_on_60_columns_has_ids_and_names() -> None:
    """A narrow terminal has no room for more, and a name isn't broken into letters."""
    text = io.StringIO()
    console = Console(file=text, width=60, no_color=True, markup=False, highlight=False)
    segment = Segment(PAGE_SEGMENT_ID, "Recent purchasers", "p", last_run=datetime.now(UTC))
    console.print(summary.segments_table([segment], width=console.width))
    assert f"{PAGE_SEGMENT_ID}  Recent purchasers" in text.getvalue()


def test_a_segment_that_nobody_knows_has_its_whole_id() -> None:
    """Of a mistyped id there is no name: a narrow terminal doesn't cut the id."""
    text = io.StringIO()
    console = Console(file=text, width=60, force_terminal=True, color_system=None)
    error = NotSubmittedError("not submitted", segment_id=PAGE_SEGMENT_ID)
    missing = NotExported(PAGE_SEGMENT_ID, None, error, "no", resumable=False)
    names = {PAGE_SEGMENT_ID: PAGE_SEGMENT_ID}
    summary.print_failures([missing], names, console, journal=False)
    assert PAGE_SEGMENT_ID in text.getvalue()


EVIL = "PEN\x1b]0;owned\x07\u202e\nDING"


def _printed(console: Console, terminal: Terminal) -> None:
    """Print every kind of text of the vendor that the commands show."""
    segment = Segment("an\x1bid", EVIL, "a-project", EVIL, category=EVIL)
    export = Export("an\x1bid", segment, EVIL, datetime.now(UTC), filename=f"s3://{EVIL}")
    file = ExportedFile(f"/{EVIL}/{EVIL}.csv", 7, "00" * 32, verified=True, export=export)
    exported = Exported(segment.segment_id, export, file)
    missing = NotExported(
        segment.segment_id, export, ExportFailedError(EVIL), "yes", resumable=False
    )
    names = {segment.segment_id: EVIL}
    report = BulkReport(
        name="a-run",
        exported=[exported],
        not_exported=[missing],
        started_at=datetime.now(UTC),
        ended_at=datetime.now(UTC),
        progress=Progress(2, 0, 0, 0, 1, 0, 1, 0, 0, 0, None, None, None),
    )
    console.print(summary.segments_table([segment], width=console.width))
    console.print(summary.export_table(export))
    console.print(summary.plan_table(names, {segment.segment_id: file.path}))
    console.print(summary.file_line(file))
    console.print(summary.some_names([EVIL]))
    summary.print_report(report, names, terminal, elapsed=1.0, journal=True)
    terminal.say(EVIL)
    LogLines(terminal).emit(logging.makeLogRecord({"levelno": 30, "msg": "%s", "args": (EVIL,)}))


@pytest.mark.parametrize("width", [80, 300])
def test_nothing_that_is_shown_commands_a_terminal(width: int) -> None:
    """Tables, reports, sentences and log lines have a server's text escaped, narrow and wide."""
    text = io.StringIO()
    console = Console(file=text, width=width, no_color=True, markup=False, highlight=False)
    _printed(console, Terminal(console, console, piped=False))
    shown = text.getvalue()
    assert shown.count("\\x1b") >= 10
    assert [char for char in "\x1b\x07\u202e" if char in shown] == []
    assert not any(line.strip().startswith("DING") for line in shown.splitlines())
