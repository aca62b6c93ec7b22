"""Signals, and a reader that goes away or stalls: the command closes everything, and says so."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from launch import PATIENCE, Environment, Run, Start, StartAnew, Until

from segments_async.cli import ending
from segments_async.sandbox import Fault
from segments_async.sandbox.server import SandboxServer

EXPORT = ("export", "--to", "exports", "--all")
pytestmark = pytest.mark.usefixtures("hangups_count")

SIGNALS = pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGINT, 130, "Interrupted"),
        (signal.SIGTERM, 143, "Terminated"),
        (signal.SIGHUP, 129, "terminal was closed"),
    ],
    ids=["SIGINT", "SIGTERM", "SIGHUP"],
)


@SIGNALS
def test_signal_ends_an_export(
    start: Start,
    account: Environment,
    slow_server: SandboxServer,
    until: Until,
    tmp_path: Path,
    number: signal.Signals,
    code: int,
    word: str,
) -> None:
    """A signal ends the run with 128 plus its number and the unfinished segments; no traceback."""
    process = start(*EXPORT, env=account(slow_server))
    until(lambda: len(slow_server.sandbox.record.submits()) == 5)
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (code, "")
    assert word in err
    assert "unfinished: " in err
    assert "My Segment" in err
    assert "The same command goes on" in err
    assert "Traceback" not in err
    assert list((tmp_path / "exports").glob("*.csv")) == []


@SIGNALS
def test_signal_ends_the_sandbox(
    start: Start, number: signal.Signals, code: int, word: str
) -> None:
    """The sandbox is ended by the same signals with the same codes, and no traceback."""
    process = start("sandbox", "--port", "0")
    assert process.stdout is not None
    process.stdout.readline()  # it listens
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, word in err) == (code, True)
    assert "Traceback" not in err


def test_reader_that_goes_away(
    start_anew: StartAnew, account: Environment, server: SandboxServer
) -> None:
    """`export | head`: the command ends with 141 when its reader has ended; no traceback."""
    process = start_anew(*EXPORT, env=account(server))
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    assert process.wait(PATIENCE) == 141
    assert "Traceback" not in err
    assert "Exception ignored" not in err


def test_run_again_after_a_signal_is_possible(
    start_anew: StartAnew,
    run: Run,
    account: Environment,
    slow_server: SandboxServer,
    until: Until,
) -> None:
    """An interrupted export leaves nothing in the way of the next: no file, no lock."""
    env = account(slow_server)
    process = start_anew(*EXPORT, env=env)
    until(slow_server.sandbox.record.submits)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, "Traceback" in err) == (130, False)
    again = run(*EXPORT, "--dry-run", env=env)
    assert (again.returncode, len(again.stdout.splitlines())) == (0, 5)


def test_no_post_is_unknown_after_a_closed_terminal(
    start: Start, run: Run, account: Environment, server: SandboxServer, until: Until
) -> None:
    """After SIGHUP, twice as from a shell and the kernel, no POST on the wire is unknown."""
    server.sandbox.inject(Fault.slow(0.5), method="POST", times=5)
    env = account(server)
    process = start(*EXPORT, "--rate", "100", env=env)
    until(lambda: len(server.sandbox.record.submits()) >= 2)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGHUP)
    assert process.wait(PATIENCE) == 129
    again = run(*EXPORT, env=env)
    assert again.returncode == 0, again.stdout
    assert server.sandbox.record.duplicates() == {}


def test_reader_that_stalls(
    start: Start, account: Environment, server: SandboxServer, until: Until, tmp_path: Path
) -> None:
    """`export | less`: one SIGINT ends the command though its reader stalls; stderr says so."""
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    while True:
        try:
            os.write(theirs, b"x" * 4096)
        except BlockingIOError:
            break
    os.set_blocking(theirs, True)
    process = start(*EXPORT, env=account(server), stdout=theirs)
    os.close(theirs)
    manifest = tmp_path / "exports" / "manifest.jsonl"
    until(lambda: manifest.exists() and len(manifest.read_text().splitlines()) == 5)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=PATIENCE)[1]
    os.close(ours)
    assert process.returncode == 130
    assert "The reader of stdout didn't take the last lines" in err
    assert "Traceback" not in err


@pytest.fixture
def handlers() -> Iterator[None]:
    """Restores the handlers of the signals that end a command."""
    before = {number: signal.getsignal(number) for number in ending.ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_second_signal_ends_the_process_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second signal, of whatever kind, ends the process with its code; an echo does nothing."""
    codes: list[int] = []
    clock = 7.0
    monkeypatch.setattr(os, "_exit", codes.append)
    monkeypatch.setattr(ending, "monotonic", lambda: clock)
    monkeypatch.setattr("segments_async.cli.streams.leave", lambda: None)
    signals = ending.Signals()
    signals.count()
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)  # as `timeout` does
    assert (signals.first, codes) == (signal.SIGTERM, [])
    clock += 1
    os.kill(os.getpid(), signal.SIGHUP)
    assert codes == [129]


@pytest.mark.usefixtures("handlers")
def test_nohup_stays_nohup() -> None:
    """SIGHUP that is ignored when the command starts stays ignored."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    ending.Signals().count()
    os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
