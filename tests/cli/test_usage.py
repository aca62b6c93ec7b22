"""Help, wrong arguments, missing credentials, missing extras: nothing here sends a request."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from launch import Environment, Run

import segments_async

COMMANDS = [
    "list",
    "export",
    "resume",
    "runs",
    "status",
    "download",
    "report",
    "sandbox",
    "completion",
]
EXPORT = ("export", "--to", "exports")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(run: Run, command: str) -> None:
    """`--help` explains a command with an example, and succeeds."""
    done = run(command, "--help")
    assert done.returncode == 0
    assert f"segments-async {command}" in done.stdout
    assert "Examples:" in done.stdout


def test_help_lists_every_command(run: Run) -> None:
    """Without arguments the commands are listed, and the exit codes explained."""
    done = run()
    assert done.returncode == 0
    for word in [*COMMANDS, "Exit codes"]:
        assert word in done.stdout


def test_version(run_anew: Run) -> None:
    """`--version` names the program, and its version as `segments_async.__version__` has it."""
    done = run_anew("--version")
    assert (done.returncode, done.stdout) == (0, f"segments-async {segments_async.__version__}\n")
    assert metadata.version("segments-async") == segments_async.__version__


def test_the_version_of_a_copy_is_unknown() -> None:
    """Without the package's metadata, `__version__` says so, and the import succeeds."""
    hidden = "import importlib.metadata as m\nm.Distribution.discover = lambda **_: iter(())\n"
    program = f"{hidden}import segments_async\nprint(segments_async.__version__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "0+unknown\n"), done.stderr


@pytest.mark.parametrize("module", ["segments_async", "segments_async.cli"])
def test_it_is_a_module_too(account: Environment, module: str) -> None:
    """`python -m segments_async` is the command, under its own name."""
    command = [sys.executable, "-W", "error", "-m", module, "--help"]
    done = subprocess.run(command, env=account(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: segments-async COMMAND")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["nonsense"], "nonsense"),
        (["list", "--nonsense"], "--nonsense"),
        (["list", "extra"], "extra"),
        (["export", "--all"], "--to"),
        (["status"], "EXPORT_ID"),
        (["download", "some-export"], "--to"),
        ([*EXPORT], "which segments"),
        ([*EXPORT, "--all", "--name", "x*"], "--all"),
        ([*EXPORT, "--all", "--timeout", "0"], "--timeout"),
        ([*EXPORT, "--all", "--timeout", "soon"], "--timeout"),
        ([*EXPORT, "--all", "--rate", "-1"], "--rate"),
        ([*EXPORT, "--all", "--downloads", "0"], "--downloads"),
        ([*EXPORT, "--all", "--max-pending", "0"], "--max-pending"),
        ([*EXPORT, "--all", "--poll-share", "1.5"], "--poll-share"),
        ([*EXPORT, "--all", "--retry-failed", "-1"], "--retry-failed"),
        ([*EXPORT, "--all", "--on-unknown", "ask"], "--on-unknown"),
        ([*EXPORT, "--all", "--on-expired", "ask"], "--on-expired"),
        ([*EXPORT, "--all", "--export-timeout", "0"], "--export-timeout"),
        ([*EXPORT, "--all", "--journal", "x.db", "--no-journal"], "--no-journal"),
        ([*EXPORT, "--all", "--journal", "x.db", "--sandbox"], "--sandbox"),
        ([*EXPORT, "--all", "--run", "x", "--no-journal"], "--run"),
        ([*EXPORT, "--all", "--join"], "--join needs --run"),
        ([*EXPORT, "--all", "--only-changed", "--sandbox"], "--only-changed"),
        ([*EXPORT[:1], "--all", "--to", "s3://me:s3cret@bucket/nightly"], "s3://...: a user"),
        (["export", "--all", "--sandbox", "--to", "ftp://bucket"], "ftp://...: files can't"),
        ([*EXPORT[:1], "--all", "--to", ""], "--to: the path is empty"),
        ([*EXPORT[:1], "--all", "--to", "~/exports"], "begins with '~'"),
        (["resume", "--to", ""], "--to: the path is empty"),
        (["runs", "--journal", ""], "--journal: the path is empty"),
        (["runs", "--to", "s3://bucket/nightly"], "--journal"),
        (["resume"], "--journal"),
        (["report"], "--html"),
        (["report", "--html", "x.html"], "--journal"),
        (["runs"], "--journal"),
        (["runs", "--to", "exports", "--prune", "-1"], "--prune"),
        (["sandbox", "--port", "70000"], "--port"),
        (["sandbox", "--window", "many"], "--window"),
        (["sandbox", "--window", "0/60"], "--window"),
        (["sandbox", "--rate", "5", "--window", "600/60"], "--window"),
        (["sandbox", "--lost-before", "0.6", "--lost-after", "0.6"], "shares"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_wrong_argument_is_one_sentence(run: Run, arguments: list[str], word: str) -> None:
    """A wrong argument ends with 2 and a sentence that names it; stdout stays empty."""
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert word in done.stderr
    assert "s3cret" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        ["status", "x"],
        [*EXPORT, "--all"],
        ["download", "x", "--to", "f"],
        ["runs", "--to", "exports"],
        ["resume", "--to", "exports"],
        ["report", "--to", "exports", "--html", "x.html"],
    ],
)
def test_missing_credentials_are_named(run: Run, arguments: list[str]) -> None:
    """Without credentials and a terminal, the missing variable is named."""
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "SEGMENTS_API_KEY" in done.stderr


@pytest.mark.parametrize(
    ("variables", "word"),
    [
        ({"SEGMENTS_ACCESS_TOKEN": "token\n"}, "SEGMENTS_ACCESS_TOKEN: "),
        ({"SEGMENTS_API_KEY": "a:b"}, "SEGMENTS_API_KEY: "),
        ({"SEGMENTS_BASE_URL": "http://vendor.example"}, "give an https:// URL"),
        ({"SEGMENTS_BASE_URL": "nonsense"}, "SEGMENTS_BASE_URL: not an http"),
    ],
)
def test_malformed_configuration_is_usage(
    run: Run, account: Environment, variables: dict[str, str], word: str
) -> None:
    """Malformed configuration is refused before any request; the message has no secret."""
    secrets = {"SEGMENTS_API_KEY": "key", "SEGMENTS_ACCESS_TOKEN": "s3cret"}
    done = run("list", env=account() | secrets | variables)
    assert (done.returncode, done.stdout) == (2, "")
    assert word in done.stderr
    assert "s3cret" not in done.stderr


@pytest.mark.parametrize("variable", ["--api-key", "--access-token", "--token", "--password"])
def test_credentials_are_no_arguments(run: Run, variable: str) -> None:
    """No option takes a credential: arguments are readable by every user of the machine."""
    done = run("list", variable, "secret")
    assert done.returncode == 2


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:s3cret@localhost/x",
        "postgresql://me:s3cret#@localhost/x",
        "postgresql://me:s3/cret@localhost/x",
        "postgresql://localhost/x?password=s3cret",
        "postgresql://localhost/x?%70assword=s3cret",
        "postgresql://localhost/x?PGPASSWORD=s3cret",
        "postgresql://localhost/x?sslpassword=s3cret",
        "postgresql://localhost/x?conninfo=password%3Ds3cret",
        "postgresql://localhost/x?dbname=password%3Ds3cret",
        "postgresql://localhost/x?options=password%20%3D%20s3cret",
        "postgresql://localhost/x?sslmode=require&oauth_client_secret=s3cret",
        "postgresql://localhost/password%3Ds3cret",
    ],
)
def test_a_password_is_no_argument(run: Run, account: Environment, url: str) -> None:
    """`--journal` refuses a URL with a password, and doesn't repeat the password."""
    done = run(*EXPORT, "--all", "--journal", url, env=account())
    assert (done.returncode, done.stdout) == (2, "")
    assert "PGPASSWORD" in done.stderr
    assert "s3cret" not in done.stderr
    assert "cret@" not in done.stderr


@pytest.mark.parametrize(
    ("missing", "extra", "arguments"),
    [
        ("cyclopts", "cli", ["list"]),
        ("rich", "cli", ["--help"]),
        ("starlette", "sandbox", ["sandbox"]),
        ("uvicorn", "sandbox", [*EXPORT, "--sandbox", "--all"]),
    ],
)
def test_missing_extra_is_named(
    account: Environment, tmp_path: Path, missing: str, extra: str, arguments: list[str]
) -> None:
    """Without an extra's packages, one sentence says which extra to install."""
    program = (
        "import sys\n"
        f"sys.modules[{missing!r}] = None\n"
        f"sys.argv[1:] = {arguments!r}\n"
        "from segments_async.cli import main\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=account(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert f"pip install 'segments-async[{extra}]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
