"""Ctrl-C, SIGTERM, and a reader that goes away: the command leaves cleanly and says so."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from launch import PATIENCE, Environment, Run, Start, Until

from segments_async.sandbox.server import SandboxServer

EXPORT = ("export", "--to", "exports", "--all")
SIGNALS = pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "Interrupted"), (signal.SIGTERM, 143, "Terminated")],
    ids=["SIGINT", "SIGTERM"],
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
    """A signal ends the run with 128 and its number, names what is unfinished, and no traceback."""
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


def test_reader_that_goes_away(start: Start, account: Environment, server: SandboxServer) -> None:
    """`export | head`: the command ends with 141 when nobody reads it, and without a traceback."""
    process = start(*EXPORT, env=account(server))
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    assert process.wait(PATIENCE) == 141
    assert "Traceback" not in err
    assert "Exception ignored" not in err


def test_run_again_after_a_signal_is_possible(
    start: Start, run: Run, account: Environment, slow_server: SandboxServer, until: Until
) -> None:
    """An interrupted export leaves nothing in the way of the next: no file, no lock."""
    env = account(slow_server)
    process = start(*EXPORT, env=env)
    until(slow_server.sandbox.record.submits)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    again = run(*EXPORT, "--dry-run", env=env)
    assert (again.returncode, len(again.stdout.splitlines())) == (0, 5)
