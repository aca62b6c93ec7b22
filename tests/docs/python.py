"""Blocks of Python: one page is one program, in virtual time, in the test's process."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import os
import subprocess
import sys
import types
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Self

import anyio
import pytest
import trio
from sybil import Example
from sybil.evaluators.python import pad

from segments_async.testing import SegmentsSandbox, VirtualClock, VirtualTimeLoop, virtual_time

from .pages import file_of, is_hidden
from .shell import PATIENCE, PYTEST

#: For hidden blocks alone: a reader's program has no such name.
ACCOUNT = "segments_sandbox"

_PYTEST = [
    *(sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider"),
    *("-o", "asyncio_default_fixture_loop_scope=function"),  # pytest-asyncio warns without
]


class Program:
    """The blocks of a page, from top to bottom: one namespace, one event loop.

    A block without a top-level `await` runs outside of the loop, so that it may start one. The
    loops of `anyio.run`, `asyncio.run` and `trio.run` have virtual time, too.
    """

    def __init__(self, account: SegmentsSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        self._account = account
        self._runner = asyncio.Runner(loop_factory=VirtualTimeLoop)
        self._module = types.ModuleType("__main__")
        self._directory = Path.cwd()
        self._modules = set(sys.modules)
        #: What the last block printed.
        self.printed = ""
        monkeypatch.setitem(sys.modules, "__main__", self._module)
        monkeypatch.syspath_prepend(self._directory)
        _give_virtual_time(monkeypatch)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.close()
        for name in set(sys.modules) - self._modules:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).is_relative_to(self._directory):
                del sys.modules[name]

    def run(self, example: Example) -> str | None:
        """Run a block; None, or the output of its tests that failed."""
        source = str(example.parsed)
        file = file_of(example, self._directory)
        if _has_tests(source):
            if file is None:
                file = self._directory / f"test_line_{example.line}.py"
                file.write_text(source)
            return self._run_tests(file)
        namespace = vars(self._module)
        if is_hidden(example):
            namespace[ACCOUNT] = self._account
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            self._execute(read(example), namespace)
        self.printed = printed.getvalue()
        namespace.pop(ACCOUNT, None)
        return None

    def _execute(self, code: types.CodeType, namespace: dict[str, Any]) -> None:
        if code.co_flags & inspect.CO_COROUTINE:
            coroutine: Coroutine[Any, Any, None] = eval(code, namespace)
            self._runner.run(coroutine)
        else:
            exec(code, namespace)

    def _run_tests(self, file: Path) -> str | None:
        """Run a file of tests with pytest, in a process of its own."""
        tests = subprocess.run(
            [*_PYTEST, str(file)],
            cwd=self._directory,
            env=os.environ | PYTEST,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return tests.stdout + tests.stderr if tests.returncode else None


def read(example: Example) -> types.CodeType:
    """A block's code, with the page's line numbers."""
    source = pad(example.parsed, example.line + example.parsed.line_offset)
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    return compile(source, example.path, "exec", flags=flags, dont_inherit=True)


def _has_tests(source: str) -> bool:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return any(
        isinstance(node, functions) and node.name.startswith("test_")
        for node in ast.parse(source).body
    )


#: As they are before any page replaces them: pages in one process may follow each other.
anyio_run, trio_run = anyio.run, trio.run


def _give_virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def in_asyncio(main: Coroutine[Any, Any, Any], *, debug: bool | None = None) -> Any:
        with asyncio.Runner(debug=debug, loop_factory=VirtualTimeLoop) as runner:
            return runner.run(main)

    def in_anyio(
        function: Callable[..., Awaitable[Any]], *arguments: Any, backend: str = "asyncio"
    ) -> Any:
        name, options = virtual_time(backend)
        return anyio_run(function, *arguments, backend=name, backend_options=options)

    def in_trio(function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        return trio_run(function, *arguments, clock=VirtualClock())

    monkeypatch.setattr(asyncio, "run", in_asyncio)
    monkeypatch.setattr(anyio, "run", in_anyio)
    monkeypatch.setattr(trio, "run", in_trio)
