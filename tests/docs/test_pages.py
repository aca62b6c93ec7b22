"""Claims about the code in the documentation: all of it runs, or is read by its parser."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from forked import ForkServer
from sybil import Example
from sybil.typing import Evaluator

from segments_async.sandbox import PAGE_ACCESS_TOKEN, PAGE_API_KEY, Sandbox
from segments_async.sandbox.server import SandboxServer
from segments_async.testing import SegmentsSandbox
from segments_async.testing.account import QUICK, SandboxOptions

from . import python
from .formats import PARSERS
from .pages import (
    PAGES,
    ROOT,
    account_options,
    document,
    fences,
    heading_of,
    ids,
    is_hidden,
    is_output,
    language,
    reason_not_to_run,
    unmarked_code,
)
from .python import Program
from .shell import PORTS, Shell, commands, matches, syntax_error

#: Of the account of each page, unless the page says otherwise.
ACCOUNT: SandboxOptions = {"segments": 12, "rows": 10, "durations": QUICK}

#: Programs of the pages' commands that pip can't bring.
PROGRAMS = ("curl", "jq", "sqlite3")

SHELL = frozenset({"sh", "console"})

#: Pages with so many commands that the README's command runs the first of them alone.
LONG = (
    "docs/cli.md",
    "docs/tutorial.md",
    "docs/five-minutes.md",
    "docs/nights.md",
    "docs/executors.md",
    "docs/report.md",
    "docs/scaling-out.md",
    "docs/accounts.md",
)

#: Commands that `.ci/run` runs as they stand, in fresh copies with fresh environments.
RUN_BY_CI = {"README.md": {"Run it", "Test it"}, "CONTRIBUTING.md": {"Set up"}}


class Page:
    """What the rules need to run one page's blocks."""

    def __init__(self, program: Program, shell: Shell) -> None:
        self.program = program
        self.shell = shell

    def rules(self) -> Mapping[str, Evaluator]:
        return {
            "python": self.python,
            "console": self.console,
            "sh": self.script,
            "text": self.text,
            **{name: parsed_by(name) for name in PARSERS},
        }

    def python(self, example: Example) -> str | None:
        if reason_not_to_run(example):
            python.read(example)
            return None
        return self.program.run(example)

    def console(self, example: Example) -> str | None:
        if reason_not_to_run(example):
            return syntax_error("\n".join(each.text for each in commands(example.parsed)))
        return self.shell.console(example)

    def script(self, example: Example) -> str | None:
        if reason_not_to_run(example) or is_run_by_ci(example):
            return syntax_error(example.parsed)
        return self.shell.script(example)

    def text(self, example: Example) -> str | None:
        if not is_output(example) or matches(example.parsed, self.program.printed):
            return None
        return f"printed:\n{self.program.printed}"


def parsed_by(name: str) -> Evaluator:
    def parse(example: Example) -> None:
        PARSERS[name](example.parsed)

    return parse


def is_run_by_ci(example: Example) -> bool:
    return heading_of(example) in RUN_BY_CI.get(ids(Path(example.path)), set())


def examples(page: Path) -> list[Example]:
    return list(document(page, {}))


def pages() -> Iterator[object]:
    """Each other page that has blocks, marked with the programs that its commands need."""
    for page in PAGES:
        if ids(page) in LONG:
            continue
        blocks = examples(page)
        script = "\n".join(each.parsed for each in blocks if language(each.region) in SHELL)
        needed = [name for name in PROGRAMS if re.search(rf"\b{name}\b", script)]
        if blocks:
            yield pytest.param(page, id=ids(page), marks=pytest.mark.needs(*needed))


@pytest.mark.parametrize("page", list(pages()))
def test_code_on_a_page_runs(
    page: Path, fork_server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each block of a page does what the page says, from top to bottom, as a reader runs it."""
    check(page, fork_server, tmp_path, monkeypatch)


@pytest.mark.counted(1, len(LONG), "long pages")
@pytest.mark.needs(*PROGRAMS)
def test_code_on_a_long_page_runs(
    count: int, fork_server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same of pages whose commands take a reader minutes."""
    for name in LONG[:count]:
        check(ROOT / name, fork_server, tmp_path / Path(name).stem, monkeypatch)


def check(
    page: Path, fork_server: ForkServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, state = folder / "page", folder / "state"
    directory.mkdir(parents=True)
    state.mkdir()
    monkeypatch.chdir(directory)
    blocks = document(page, {})
    options = ACCOUNT.copy()
    options.update(account_options(blocks))
    account = SegmentsSandbox(**options)
    with ExitStack() as stack:
        variables = _variables(_base_url(blocks.examples(), options, stack))
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        stack.enter_context(account.answering())
        program = stack.enter_context(Program(account, monkeypatch))
        shell = Shell(directory, state, variables, _free_ports(), fork_server)
        stack.enter_context(shell)
        for example in document(page, Page(program, shell).rules()):
            try:
                example.evaluate()
            except BaseException as error:
                error.add_note(f"{ids(page)}:{example.line}")
                raise
    assert account.problems() == []


def _base_url(blocks: Iterator[Example], options: SandboxOptions, stack: ExitStack) -> str:
    """The address of the page's account: a server's, where a shell needs one.

    In the page's Python it is answered in the process, and so is every other address.
    """
    if not any(language(each.region) in SHELL for each in blocks):
        return "https://sandbox.example.com"
    server = stack.enter_context(SandboxServer(Sandbox(**options)))
    return server.base_url


def _variables(base_url: str) -> dict[str, str]:
    return {
        "SEGMENTS_BASE_URL": base_url,
        "SEGMENTS_API_KEY": PAGE_API_KEY,
        "SEGMENTS_ACCESS_TOKEN": PAGE_ACCESS_TOKEN,
    }


def _free_ports() -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in PORTS]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_block_is_seen(page: Path) -> None:
    """Code stands in fences that name a language; the harness finds each of them."""
    assert unmarked_code(page) == []
    assert len([each for each in examples(page) if not is_hidden(each)]) == fences(page)


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_a_page_says_which_code_is_not_run(page: Path) -> None:
    """A page with a block that is read and not run has the words "read, not run"."""
    if any(reason_not_to_run(each) for each in examples(page)):
        assert "read, not run" in " ".join(page.read_text().split())


@pytest.mark.parametrize("heading", ["Run it", "Test it"])
def test_ci_runs_the_readme_as_it_stands(heading: str) -> None:
    """`.ci/run` reads the whole block under the README's headings, and nothing else."""
    function = re.search(
        r"^readme_command\(\) \{.*?^\}", (ROOT / ".ci/run").read_text(), re.MULTILINE | re.DOTALL
    )
    assert function is not None
    read = subprocess.run(
        ["bash", "-euc", f'{function[0]}\nreadme_command "{heading}"'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    shown = [each.parsed for each in examples(ROOT / "README.md") if heading_of(each) == heading]
    assert [read.stdout] == shown
