"""examples/several_accounts.py: accounts of two sandboxes at once, neither in the other's way."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import several_accounts
from client.vendor import STEADY, connected
from example_account import QUICK
from forked import Forked, ForkServer
from several_accounts import export_accounts

from segments_async import AuthenticationError, BulkReport
from segments_async.sandbox import (
    FREE_ACCESS_TOKEN,
    FREE_API_KEY,
    PAGE_ACCESS_TOKEN,
    PAGE_API_KEY,
    Sandbox,
    TokenBucket,
)
from segments_async.sandbox.server import SandboxServer

PATIENCE = 300.0  # seconds, for a test that hangs


async def test_each_account_has_its_own_limit(tmp_path: Path) -> None:
    """An account whose limit is low takes its time; the other one isn't slowed down by its 429s."""
    slow = Sandbox(segments=12, rows=1, seed=1, durations=STEADY, limit=TokenBucket(1, 3))
    quick = Sandbox(segments=12, rows=1, seed=2, durations=STEADY)
    async with connected(slow) as eu, connected(quick) as us:
        results = await export_accounts({"eu": eu, "us": us}, tmp_path / "exports")
    assert all(isinstance(result, BulkReport) and result.ok for result in results.values())
    for name, sandbox in (("eu", slow), ("us", quick)):
        files = (tmp_path / "exports" / name).glob("*.csv")
        expected = {sandbox.content(one) for one in sandbox.segment_ids}
        assert {file.read_bytes() for file in files} == expected
        assert sandbox.record.duplicates() == {}
    assert slow.record.throttled()
    assert not quick.record.throttled()
    assert quick.timeline.last < slow.timeline.last / 2


async def test_an_account_that_fails(tmp_path: Path) -> None:
    """Refused credentials end their own account alone, and are its result."""
    sandbox = Sandbox(segments=5, rows=1, durations=STEADY)
    async with (
        connected(sandbox) as us,
        connected(Sandbox(), access_token="another") as eu,
    ):
        results = await export_accounts({"eu": eu, "us": us}, tmp_path)
    assert isinstance(results["eu"], AuthenticationError)
    assert isinstance(results["us"], BulkReport)
    assert results["us"].ok
    assert len(list((tmp_path / "us").glob("*.csv"))) == 5


def test_as_a_program(fork_server: ForkServer, tmp_path: Path) -> None:
    """The program says what became of each account, and exits with 1 where something is missing."""
    with (
        SandboxServer(Sandbox(segments=2, rows=1, durations=QUICK)) as one,
        SandboxServer(Sandbox(segments=3, rows=1, durations=QUICK)) as other,
    ):
        other.sandbox.fail_next(other.sandbox.segment_ids[1])
        account = {
            **credentials("EU", PAGE_API_KEY, PAGE_ACCESS_TOKEN, one),
            **credentials("US", PAGE_API_KEY, PAGE_ACCESS_TOKEN, other),
            **credentials("FREE", FREE_API_KEY, FREE_ACCESS_TOKEN, one),
        }
        code, out, err = program(fork_server, tmp_path, account, "eu", "us", "free")
    assert (code, err) == (1, "")
    assert "eu: 2 of 2 segments\nus: 2 of 3 segments\n    " in out
    assert "free: nothing more was exported: " in out


def test_a_missing_credential(fork_server: ForkServer, tmp_path: Path) -> None:
    """A variable that isn't set is named, and nothing is exported."""
    code, out, err = program(fork_server, tmp_path, {"EU_API_KEY": PAGE_API_KEY}, "eu")
    assert (code, out) == (1, "")
    assert err == "several_accounts.py: EU_ACCESS_TOKEN is not set\n"


def credentials(name: str, key: str, token: str, server: SandboxServer) -> dict[str, str]:
    return {
        f"{name}_API_KEY": key,
        f"{name}_ACCESS_TOKEN": token,
        f"{name}_BASE_URL": server.base_url,
    }


def program(
    fork_server: ForkServer, to: Path, account: dict[str, str], *names: str
) -> tuple[int, str, str]:
    """The program's exit code, and what it printed on stdout and on stderr."""
    process = Forked(
        fork_server,
        *(str(to), *names),
        program=several_accounts.__file__,
        cwd=to,
        env={**os.environ, **account},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = process.communicate(timeout=PATIENCE)
    return process.wait(PATIENCE), out, err
