"""The command `report`: the page of a run, in a file."""

from __future__ import annotations

from pathlib import Path

from launch import Environment, Parsed, Run

from segments_async.sandbox import PAGE_ACCESS_TOKEN
from segments_async.sandbox.server import SandboxServer

EXPORT = ("export", "--all", "--to", "exports")
PLACE = ("--to", "exports")


def test_the_page_of_a_run(
    run: Run, account: Environment, server: SandboxServer, parsed: Parsed, tmp_path: Path
) -> None:
    """`report RUN --html FILE` writes the run's page, without a request and without a token."""
    env = account(server)
    run(*EXPORT, "--run", "first", env=env)
    run(*EXPORT, "--only-changed", "--run", "second", env=env)
    sent = len(server.sandbox.record)
    page = tmp_path / "first.html"
    done = run(
        *("report", "first", *PLACE, "--html", page.name), env=env | {"SEGMENTS_ACCESS_TOKEN": ""}
    )
    assert done.returncode == 0, done.stderr
    html = page.read_text()
    size = page.stat().st_size
    assert parsed(done.stdout) == [{"run": "first", "html": str(page), "size": size}]
    assert "the page of run first" in done.stderr
    assert "All 5 segments are done" in html
    assert all(segment_id in html for segment_id in server.sandbox.segment_ids)
    assert PAGE_ACCESS_TOKEN not in html
    assert len(server.sandbox.record) == sent


def test_the_latest_run_is_reported_by_default(
    run: Run, account: Environment, server: SandboxServer, tmp_path: Path
) -> None:
    """Without a name, the page is of the latest run. A page that is replaced keeps its mode."""
    env = account(server)
    for name in ("first", "second"):
        run(*EXPORT, "--run", name, env=env)
        done = run("report", *PLACE, "--html", "run.html", env=env)
        assert done.returncode == 0, done.stderr
        assert f"<title>Run {name}</title>" in (tmp_path / "run.html").read_text()
        (tmp_path / "run.html").chmod(0o600)
    run("report", *PLACE, "--html", "run.html", env=env)
    assert (tmp_path / "run.html").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exports", "run.html"]


def test_a_file_that_is_no_page_is_kept(
    run: Run, account: Environment, server: SandboxServer, tmp_path: Path
) -> None:
    """A file that this command did not make is not replaced; nor is what is no file."""
    env = account(server)
    run(*EXPORT, "--run", "first", env=env)
    (tmp_path / "mine.html").write_text("<!doctype html><p>mine")
    for target in ("mine.html", "exports", "/dev/null", "nowhere/run.html"):
        done = run("report", "first", *PLACE, "--html", target, env=env)
        assert (done.returncode, done.stdout) == (2, ""), target
        assert target in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert (tmp_path / "mine.html").read_text() == "<!doctype html><p>mine"


def test_a_link_to_a_page_stays_a_link(
    run: Run, account: Environment, server: SandboxServer, tmp_path: Path
) -> None:
    """The page is written to the file that a symbolic link names, there already or not."""
    env = account(server)
    (tmp_path / "site").mkdir()
    (tmp_path / "run.html").symlink_to("site/index.html")
    for name in ("first", "second"):
        run(*EXPORT, "--run", name, env=env)
        done = run("report", name, *PLACE, "--html", "run.html", env=env)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "run.html").is_symlink()
        [page] = (tmp_path / "site").iterdir()
        assert f"<title>Run {name}</title>" in page.read_text()


def test_a_run_that_is_not_there(
    run: Run, account: Environment, server: SandboxServer, tmp_path: Path
) -> None:
    """A name that no run has, or no journal, ends with 2 and a sentence; no file is made."""
    env = account(server)
    done = run("report", "first", *PLACE, "--html", "run.html", env=env)
    assert done.returncode == 2
    assert "no journal" in done.stderr
    run(*EXPORT, "--run", "first", env=env)
    done = run("report", "third", *PLACE, "--html", "run.html", env=env)
    assert done.returncode == 2
    assert "`segments-async runs` lists them" in done.stderr
    assert not (tmp_path / "run.html").exists()
