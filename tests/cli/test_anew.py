"""Each command in a Python of its own, in which nothing was imported before it.

The other tests fork their commands from a process that has imported every module.
"""

from __future__ import annotations

from pathlib import Path

from launch import Environment, Parsed, Run

from segments_async.sandbox import PAGE_SEGMENT_ID, Fault
from segments_async.sandbox.server import SandboxServer

PLACE = ("--to", "exports")


def test_a_command_imports_what_it_needs(
    run: Run,
    run_anew: Run,
    account: Environment,
    server: SandboxServer,
    parsed: Parsed,
    tmp_path: Path,
) -> None:
    """Each of six commands does its work, about a run of which one file was refused at first."""
    sandbox, env = server.sandbox, account(server)
    sandbox.inject(Fault.status(403), origin="files", segment_id=PAGE_SEGMENT_ID)
    assert run("export", "--all", *PLACE, "--run", "night", env=env).returncode == 1
    export_id = sandbox.export_id(PAGE_SEGMENT_ID)
    rows = {}
    for command in (
        ("list",),
        ("runs", *PLACE),
        ("report", *PLACE, "--html", "night.html"),
        ("resume", *PLACE),
        ("status", export_id),
        ("download", export_id, "--to", "one.csv"),
    ):
        done = run_anew(*command, env=env)
        assert done.returncode == 0, done.stderr
        rows[command[0]] = parsed(done.stdout)
    ids = sandbox.segment_ids
    assert [row["segment_id"] for row in rows["list"]] == ids
    assert [(row["run"], row["exported"], row["unfinished"]) for row in rows["runs"]] == [
        ("night", 4, 1)
    ]
    assert [(row["run"], row["html"]) for row in rows["report"]] == [
        ("night", str(tmp_path / "night.html"))
    ]
    assert {row["segment_id"] for row in rows["resume"]} == set(ids)
    assert [(row["export_id"], row["status"]) for row in rows["status"]] == [
        (export_id, "COMPLETE")
    ]
    assert (tmp_path / "one.csv").read_bytes() == sandbox.content(PAGE_SEGMENT_ID)
    assert [row["sha256"] for row in rows["download"]] == [sandbox.sha256(PAGE_SEGMENT_ID)]
    assert len(sandbox.record.submits()) == 5
