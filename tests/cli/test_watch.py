"""`runs --watch`: what is drawn on terminals of three widths, and the lines of a pipe."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime, timedelta

import attrs
import pytest
from launch import PATIENCE, Environment, Parsed, Run, Start, Until
from rich.cells import cell_len

from segments_async import Held, HeldReason, RunStatus
from segments_async._journal.at_work import held_by
from segments_async._sansio.pace.shared_outage import REQUESTS, CommonOutage, GuardNews, News
from segments_async.cli.watch import Shown, picture
from segments_async.sandbox import Durations, Fault, Sandbox
from segments_async.sandbox.server import SandboxServer

NOW = datetime(2026, 11, 23, 2, 1, 5, tzinfo=UTC)
EXPORT = ("export", "--to", "exports", "--all", "--run", "ours")
WATCH = ("runs", "--to", "exports", "--watch")


def _run(**facts: object) -> RunStatus:
    usual: dict[str, object] = {
        "name": "2026-11-23",
        "destination": "/srv/exports",
        "started_at": NOW - timedelta(seconds=65),
        "ended_at": None,
        "live": True,
        "processes": 4,
        "held": None,
        "segments": 100_000,
        "exported": 70_000,
        "unchanged": 10_858,
        "not_exported": 17,
        "unfinished": 19_125,
    }
    return RunStatus(**(usual | facts))  # type: ignore[arg-type]


def _drawn(*shown: Shown, width: int, height: int = 20) -> list[str]:
    lines = picture(shown, NOW, width, height)
    return ["".join(text for text, _ in line) for line in lines]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_nothing_wraps_and_nothing_is_left_out(width: int) -> None:
    """Who works at a run, how far it is and what holds it stand there, whatever the width."""
    held = Held(reason=HeldReason.TICKET_GUARD, seconds=50.0, until=NOW + timedelta(seconds=47))
    lines = _drawn(Shown(_run(held=held), 1_234, 60.0), width=width)
    assert max(map(cell_len, lines)) <= width, "\n".join(lines)
    whole = "\n".join(lines)
    for piece in (
        *("2026-11-23", "4 processes at work", "1 min 05 s", "80875 of 100000"),
        *("10858 unchanged", "17 not exported", "19125 unfinished", "1234 in the last 1 min"),
        *("the vendor answered 500", "next try in 47 s"),
    ):
        assert piece in whole, piece


def test_a_run_without_a_process_is_told_from_one_at_work() -> None:
    """An unfinished run at which no process works says so, and an ended one that it has ended."""
    (idle, *_) = _drawn(Shown(_run(live=False, processes=0)), width=80)
    ended = _run(live=False, processes=0, ended_at=NOW - timedelta(seconds=5))
    (over, *_) = _drawn(Shown(ended), width=80)
    assert "no process works at it" in idle
    assert over == "2026-11-23 · ended · 1 min 00 s"


def test_as_many_runs_as_there_is_room_for() -> None:
    """The latest runs are drawn whole; the number of the others is said."""
    runs = [Shown(_run(name=f"night-{n}", destination=f"/srv/{n}")) for n in range(9)]
    lines = _drawn(*runs, width=80, height=10)
    assert len(lines) <= 10
    assert lines[0].endswith("to /srv/0")
    assert lines[-1] == "and 6 runs more"


def test_a_pipe_gets_a_line_for_each_change(
    start: Start, account: Environment, parsed: Parsed, until: Until
) -> None:
    """The first line is the run as it is found, the last one its end; no two are the same."""
    steady = Durations(median=2.0, sigma=0.5)
    with SandboxServer(Sandbox(segments=5, rows=20, durations=steady)) as server:
        env = account(server)
        export = start(*EXPORT, env=env)
        until(lambda: server.sandbox.record.polls())
        watch = start(*WATCH, "--run", "ours", env=env)
        out, err = watch.communicate(timeout=PATIENCE)
        export.communicate(timeout=PATIENCE)
    rows = parsed(out)
    assert (watch.returncode, err) == (0, "")
    assert (rows[-1]["exported"], rows[-1]["live"]) == (5, False)
    assert rows[-1]["ended_at"] is not None
    assert len({json.dumps(row) for row in rows}) == len(rows)
    assert rows[0] == rows[-1] or (rows[0]["processes"], rows[0]["unfinished"] > 0) == (1, True)


def test_a_reader_that_has_read_enough_ends_the_watch(
    start: Start, account: Environment, until: Until
) -> None:
    """`runs --watch | head -1` ends at the next look, though nothing changes any more."""
    forever = Durations(median=3600, sigma=0, longest=3600)
    with SandboxServer(Sandbox(segments=2, durations=forever)) as server:
        env = account(server)
        start(*EXPORT, env=env)
        until(lambda: len(server.sandbox.record.submits()) == 2)
        watch = start(*WATCH, env=env)
        assert watch.stdout is not None
        assert watch.stderr is not None
        assert json.loads(watch.stdout.readline())["run"] == "ours"
        watch.stdout.close()
        assert watch.wait(PATIENCE) == 141
        assert watch.stderr.read() == ""


def test_processes_of_a_shared_run_are_counted(
    start: Start, account: Environment, until: Until
) -> None:
    """A shared run is one line, with both processes; Ctrl-C ends the watch with 0."""
    forever = Durations(median=3600, sigma=0, longest=3600)
    with SandboxServer(Sandbox(segments=80, durations=forever)) as server:
        env = account(server)
        for _ in range(2):
            start(*EXPORT, "--join", env=env)
        until(lambda: server.sandbox.record.submits())
        watch = start(*WATCH, env=env)
        assert watch.stdout is not None
        row = {"processes": 0}
        while row["processes"] != 2:
            row = json.loads(watch.stdout.readline())
            assert row["run"] == "ours"
        watch.send_signal(signal.SIGINT)
        rest, err = watch.communicate(timeout=PATIENCE)
    assert (watch.returncode, err) == (0, "")
    assert {json.loads(line)["run"] for line in rest.splitlines()} <= {"ours"}


def test_a_hold_of_the_account_is_told(
    start: Start, run: Run, account: Environment, until: Until, parsed: Parsed
) -> None:
    """After a 500, a run at work is held by the ticket guard, whose end is in the journal."""
    sandbox = Sandbox(segments=2, durations=Durations(median=3600, sigma=0, longest=3600))
    sandbox.inject(Fault.status(500), path="/export/")
    with SandboxServer(sandbox) as server:
        env = account(server)
        start(*EXPORT, env=env)
        until(lambda: parsed(run("runs", "--to", "exports", env=env).stdout)[-1:])
        until(lambda: parsed(run("runs", "--to", "exports", env=env).stdout)[0]["held"])
        (row,) = parsed(run("runs", "--to", "exports", env=env).stdout)
    assert row["held"]["reason"] == "ticket_guard"
    assert row["held"]["seconds"] > 0


def test_what_cannot_be_watched_is_usage(
    run: Run, account: Environment, server: SandboxServer
) -> None:
    """A wrong name, and options that contradict each other, end the command with 2."""
    env = account(server)
    run(*EXPORT, env=env)
    for more, sentence in (
        (("--watch", "--prune", "3"), "--prune and --watch: give one"),
        (("--run", "ours", "--prune", "3"), "--prune and --run: give one"),
        (("--watch", "--run", "nowhere"), "no run is called 'nowhere'"),
        (("--run", "nowhere"), "no run is called 'nowhere'"),
    ):
        done = run("runs", "--to", "exports", *more, env=env)
        assert (done.returncode, done.stdout) == (2, "")
        assert sentence in done.stderr
    assert len(parsed_names(run("runs", "--to", "exports", env=env).stdout)) == 1


def parsed_names(output: str) -> list[str]:
    return [json.loads(line)["run"] for line in output.splitlines()]


def _news(**facts: object) -> News:
    usual: dict[str, object] = {
        "name": "a", "version": "b", "due": 12.0, "age": 3.0, "lasts": 9.0, "member": "m",
        "turn": False, "failures": 1,
    }  # fmt: skip
    return News({REQUESTS: CommonOutage(**(usual | facts))})  # type: ignore[arg-type]


def test_an_outage_that_the_processes_share_holds_them() -> None:
    """An outage is a hold while the processes heed its row; the ticket guard comes first."""
    away = held_by(_news(), NOW)
    assert away is not None
    assert (away.reason, away.until) == (HeldReason.VENDOR_AWAY, NOW + timedelta(seconds=12))
    assert held_by(_news(age=61.0), NOW) is None
    guarded = held_by(attrs.evolve(_news(), guard=GuardNews(40.0, 60.0, "v")), NOW)
    assert guarded is not None
    assert (guarded.reason, guarded.seconds) == (HeldReason.TICKET_GUARD, 40.0)
