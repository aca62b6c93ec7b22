"""Claims about the project itself: its README, its front door, and which way its imports point."""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import segments_async

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "segments_async"
MODULES = sorted(PACKAGE.rglob("*.py"))
#: The template, the style and the script of a run's page.
PARTS_OF_THE_PAGE = sorted((PACKAGE / "_run" / "report").glob("page.[chj]*"))

#: From the bottom up: a module imports from its own layer and from those before it.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"models"}),
    frozenset({"errors"}),
    frozenset({"results"}),
    frozenset({"_sansio"}),
    frozenset({"_filesystem", "_http", "_telemetry"}),
    frozenset({"_journal"}),
    frozenset({"_requests", "_files"}),
    frozenset({"_run"}),
    frozenset({"client"}),
    frozenset({"cluster"}),
    frozenset({"__init__"}),
    frozenset({"cli", "testing"}),
    frozenset({"__main__"}),
)

#: Decisions have no clock, no chance, no I/O and no log.
BANNED_IN_SANSIO = frozenset(
    {"anyio", "asyncio", "httpx", "logging", "os", "random", "secrets", "socket", "time", "trio"}
)


def layer_of(module: str) -> str:
    """``segments_async._files.part`` and ``segments_async/_files/part.py`` are of ``_files``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def dotted(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


@cache
def imports(path: Path) -> tuple[str, ...]:
    """The absolute names of the modules that a file imports when it runs, wherever it does so."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    package = dotted(path) if path.name == "__init__.py" else dotted(path).rpartition(".")[0]
    for node in _when_it_runs(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from _imported_from(node, package)


def _when_it_runs(node: ast.AST) -> Iterator[ast.AST]:
    """As `ast.walk`, without what stands under `if TYPE_CHECKING:`."""
    yield node
    children = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        children = iter(node.orelse)
    for child in children:
        yield from _when_it_runs(child)


def _imported_from(node: ast.ImportFrom, package: str) -> Iterator[str]:
    parents = package.split(".")[: len(package.split(".")) - node.level + 1]
    module = ".".join([*(parents if node.level else []), *filter(None, [node.module])])
    yield module
    if module == "segments_async":  # `from segments_async import errors` imports that module too
        stems = {path.stem for path in PACKAGE.iterdir()}
        yield from (f"{module}.{alias.name}" for alias in node.names if alias.name in stems)


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def readme_command(heading: str) -> str:
    """The first fenced block under a heading of the README, as `.ci/run` reads it."""
    _, found, section = (ROOT / "README.md").read_text().partition(f"\n## {heading}\n")
    assert found, f"no heading '## {heading}'"
    blocks = re.findall(r"^```.*\n([^`]*)^```", section.partition("\n## ")[0], re.MULTILINE)
    assert blocks, f"no fenced block under '## {heading}'"
    return str(blocks[0]).strip()


@pytest.mark.parametrize("heading", ["Run it", "Test it"])
def test_readme_has_one_command_of_one_line(heading: str) -> None:
    """The README's "Run it" and "Test it" are one line each, and make their own environment."""
    command = readme_command(heading)
    assert "\n" not in command
    assert command.startswith("python3 -m venv .venv && .venv/bin/pip install -q ")


def test_the_tested_package_is_the_tree() -> None:
    """The imported package has the tree's text (else: a stale install; use `pip install -e`)."""
    installed = Path(segments_async.__file__).parent
    stale = [
        ids(path)
        for path in [*MODULES, *PARTS_OF_THE_PAGE]
        if not (copy := installed / path.relative_to(PACKAGE)).exists()
        or copy.read_bytes() != path.read_bytes()
    ]
    assert stale == []
    assert (installed / "py.typed").exists()


def test_all_is_sorted_and_true() -> None:
    """`__all__` is sorted, constants first; each name exists, and no public one is missing."""
    names = segments_async.__all__
    modules = {path.stem for path in PACKAGE.iterdir()}
    # "@": pytest's own, in the modules of a package that has a plugin.
    public = {name for name in dir(segments_async) if not name.startswith(("_", "@"))}
    assert list(names) == sorted(names, key=lambda name: (not name.isupper(), name))
    assert set(names) == public - modules
    assert all(hasattr(segments_async, name) for name in names)
    assert modules >= public - set(names)
    assert all(hasattr(segments_async, name) for name in public)
    assert not hasattr(segments_async, "SegmentClient")


def test_a_name_is_one_thing_to_programs_and_type_checkers() -> None:
    """A type checker finds each public name in the module from which a program gets the name."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    checked = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert checked == vars(segments_async)["_MODULE_OF"]
    assert checked.keys() == set(segments_async.__all__)


def test_a_module_is_imported_when_it_is_used() -> None:
    """`import segments_async` imports no HTTP client, and an error or a segment needs none."""
    program = (
        "import sys, segments_async\n"
        "from segments_async import APIError, Pacer, Segment\n"
        "assert segments_async.errors.APIError is APIError\n"
        "print(*sorted({'httpx', 'httpcore', 'cattrs', 'segments_async.client'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr


def loaded_by(program: str, names: set[str]) -> set[str]:
    """Which of these modules a new process has imported when the program has ended."""
    program += f"\nimport sys\nprint(*{{*sys.modules}} & {names}, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


HTTP = {"httpx", "httpcore", "segments_async._http.client_maker", "segments_async._http.transport"}
RUNS = {f"segments_async._run.{name}" for name in ("engine", "recorder", "session", "workers")}


def test_a_client_s_name_needs_no_http_client_and_no_engine() -> None:
    """`from segments_async import SegmentsClient` imports no httpx; making a client does."""
    program = "from segments_async import SegmentsClient"
    assert loaded_by(program, HTTP | RUNS) == set()
    assert loaded_by(f"{program}; SegmentsClient('key', 'token')", HTTP | RUNS) == HTTP


def test_the_names_of_a_run_need_no_engine() -> None:
    """`BulkRun` and `BulkReport` import no engine: entering a run does."""
    program = "from segments_async import BulkReport, BulkRun, file_names"
    assert loaded_by(program, HTTP | RUNS) == set()


@pytest.mark.parametrize(
    "arguments", [["--version"], ["--help"], ["export", "--help"], ["completion", "zsh"]], ids=str
)
def test_what_the_command_says_of_itself_needs_no_client(arguments: list[str]) -> None:
    """`--version`, `--help` and completion import no client; `--version` draws nothing either."""
    program = (
        "import sys\n"
        "from segments_async.cli import main\n"
        f"sys.argv[1:] = {arguments}\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code"
    )
    names = {"anyio", "httpx", "rich", "segments_async.client", "segments_async.cli.dispatch"}
    drawn = set() if arguments == ["--version"] else {"rich"}  # cyclopts imports it
    assert loaded_by(program, names) == drawn


def test_core_needs_no_extra() -> None:
    """The package can be imported where nothing of any extra is installed."""
    path = str(Path(segments_async.__file__).parent.parent)
    program = (
        "import sys\n"
        f"sys.path.insert(0, {path!r})\n"
        "for name in 'botocore cyclopts distributed obstore opentelemetry rich sqlalchemy '"
        "'starlette trio uvicorn'.split():\n"
        "    sys.modules[name] = None\n"  # as if it were not installed
        "from segments_async import *"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_core_imports_only_its_dependencies() -> None:
    """The core imports the standard library and httpx, attrs, cattrs, anyio; extras import more.

    And httpcore, httpx's own, in `_http`: only its pools take a network backend of ours. And
    OpenTelemetry's API, in `_telemetry`, where somebody else has imported it already.
    """
    allowed = {"anyio", "attr", "attrs", "cattrs", "httpx", "segments_async", "__future__"}
    extras = {
        "_journal": {"sqlalchemy"},
        "_files": {"obstore"},
        "_http": {"httpcore"},
        "_telemetry": {"opentelemetry"},
        "testing": {"pytest", "trio"},
    }
    foreign = {
        (ids(path), name)
        for path in MODULES
        if layer_of(dotted(path)) not in {"cli", "sandbox"}
        for name in imports(path)
        if (root := name.partition(".")[0])
        not in allowed | extras.get(layer_of(dotted(path)), set())
        and root not in sys.stdlib_module_names
    }
    assert foreign == set()


def test_what_the_core_imports_is_declared() -> None:
    """`pip install segments-async` brings what is imported, and nothing else: by name, five."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.match(r"[\w-]+", line)[0] for line in project["dependencies"]}  # type: ignore[index] # each has a name
    assert declared == {"anyio", "attrs", "cattrs", "httpcore", "httpx"}


@pytest.mark.parametrize("path", sorted((PACKAGE / "_sansio").rglob("*.py")), ids=ids)
def test_decisions_do_nothing(path: Path) -> None:
    """A module of `_sansio` has no coroutine, no clock, no chance, no I/O and no log."""
    waits = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith)
    ]
    banned = {name for name in imports(path) if name.partition(".")[0] in BANNED_IN_SANSIO}
    assert (waits, banned) == ([], set())


@pytest.mark.parametrize(
    "path", [path for path in MODULES if layer_of(dotted(path)) != "sandbox"], ids=ids
)
def test_imports_point_one_way(path: Path) -> None:
    """models, errors, results, _sansio, _http, _journal, _requests, _files, ..., cli: only back."""
    own = layer_of(dotted(path))
    order = {name: height for height, names in enumerate(LAYERS) for name in names}
    assert own in order, f"in which layer is {own}?"
    above = {
        name
        for name in imports(path)
        if name.partition(".")[0] == "segments_async"
        and not _optional_sandbox(own, name)
        and order.get(layer_of(name), len(LAYERS)) > order[own]
    }
    assert above == set()


@pytest.mark.parametrize("path", sorted((PACKAGE / "_sansio").glob("*/*.py")), ids=ids)
def test_decisions_import_one_way(path: Path) -> None:
    """Of the rooms of `_sansio`, each imports from those before it alone."""
    order = ["api", "pace", "files", "jobs"]
    above = {
        name
        for name in imports(path)
        if name.startswith("segments_async._sansio.")
        and (room := name.split(".")[2]) in order
        and order.index(room) > order.index(path.parent.name)
    }
    assert above == set()


@pytest.mark.parametrize("path", sorted((PACKAGE / "_run" / "report").glob("*.py")), ids=ids)
def test_a_report_needs_no_run(path: Path) -> None:
    """A report and its page are made of values: of what `_run` does, they import nothing."""
    above = {
        name
        for name in imports(path)
        if layer_of(name) in {"_files", "_requests", "_run", "client"}
        and not name.startswith("segments_async._run.report")
    }
    assert above == set()


def _optional_sandbox(layer: str, name: str) -> bool:
    return layer in {"cli", "testing"} and layer_of(name) == "sandbox"


@pytest.mark.parametrize("path", sorted((PACKAGE / "cli").rglob("*.py")), ids=ids)
def test_the_command_line_uses_public_names_only(path: Path) -> None:
    """The command line is a user of the library: no private module, name or attribute of it.

    And it has clients, runs, journals and reports from the package itself, as a user has them.
    """
    inner = {
        name
        for name in imports(path)
        if layer_of(name) == "client" and name.startswith("segments_async")
    }
    private = {
        name
        for name in imports(path)
        if name.startswith("segments_async")
        and any(part.startswith("_") and part != "__init__" for part in name.split("."))
    }
    names = {
        alias.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("segments_async")
        for alias in node.names
        if alias.name.startswith("_")
    }
    accesses = {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and ast.unparse(node.value) not in {"self", "cls", "super()", "os"}
    }
    assert private | names | accesses | inner == set()


@pytest.mark.parametrize("path", sorted((PACKAGE / "sandbox").rglob("*.py")), ids=ids)
def test_sandbox_knows_nothing_of_the_client(path: Path) -> None:
    """The sandbox imports nothing of the library: a misreading of the page isn't made twice."""
    ours = {
        name
        for name in imports(path)
        if name.partition(".")[0] == "segments_async" and layer_of(name) != "sandbox"
    }
    assert ours == set()


def test_httpx_is_imported_in_one_place() -> None:
    """Only `_http`, the sandbox's transport, and the account that tests have, import httpx."""
    users = {
        ids(path)
        for path in MODULES
        if any(name.partition(".")[0] == "httpx" for name in imports(path))
    }
    assert {one for one in users if "/_http/" not in one} == {
        "segments_async/sandbox/transport.py",
        "segments_async/testing/account.py",
    }


def test_the_tests_of_the_threats_exist() -> None:
    """Each row of docs/threats.md names tests, and each of them is there."""
    table = [line for line in (ROOT / "docs/threats.md").read_text().splitlines() if "| " in line]
    named = [re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row) for row in table[1:]]
    assert len(named) > 20
    assert all(named), [row for row, tests in zip(table[1:], named, strict=True) if not tests]
    missing = {
        (path, name)
        for path, name in itertools.chain(*named)
        if not re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE)
    }
    assert missing == set()


def test_no_path_of_one_machine() -> None:
    """No file names a path that exists only where it was written."""
    home = re.compile(r"(?<![\w.])/(?:home|root|Users)/[a-z]|[A-Z]:\\Users\\")
    texts = [ROOT / "pyproject.toml", *ROOT.glob("*.md"), *PACKAGE.rglob("*.py")]
    texts += [*(ROOT / "tests").rglob("*.py"), *(ROOT / "docs").rglob("*.md")]
    found = [ids(path) for path in texts if home.search(path.read_text())]
    assert str(ROOT) not in "".join(path.read_text() for path in texts)
    assert found == []
