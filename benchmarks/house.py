"""The shape of the package: its parts, how they depend on each other, and how long they are.

    python benchmarks/house.py

A *room* is a folder at the package's top, with all that is in it, or a module there. An *arrow* is
a room that imports from another. A *floor* is a room's distance from those that import nothing: 1
for these, else one more than the highest room it imports from. An arrow *up* leads to a room that
is listed above its own in `ORDER`; a *circle* is a group of rooms that can reach each other.
Imports for type checkers alone don't count.
"""

from __future__ import annotations

import ast
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "segments_async"
TESTS = ROOT / "tests"

#: From the lowest room to the highest. The sandbox has no place in it: it imports nothing.
ORDER = (
    "models", "errors", "results", "_sansio", "_filesystem", "_http", "_telemetry",
    "_journal", "_requests", "_files", "_run",
    "client", "cluster", "__init__", "cli", "testing", "__main__",
)  # fmt: skip

#: Lines, and branches in a function (McCabe), above which one is counted.
LONG_FILE = 400
COMPLEX = 12

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@attrs.frozen
class Module:
    """One file of the package, parsed."""

    path: Path
    tree: ast.Module

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the module's name, without the package's."""
        parts = self.path.relative_to(PACKAGE).with_suffix("").parts
        return parts[:-1] if parts[-1] == "__init__" else parts

    @property
    def room(self) -> str:
        return (self.parts or ("__init__",))[0]

    @property
    def lines(self) -> int:
        return len(self.path.read_text().splitlines())


def modules() -> list[Module]:
    return [Module(path, ast.parse(path.read_text())) for path in sorted(PACKAGE.rglob("*.py"))]


def imported(module: Module) -> Iterator[tuple[str, ...]]:
    """The names, in parts, of what a module imports of the package."""
    for node in _when_it_runs(module.tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, *rest = name.split(".")
            if first == PACKAGE.name:
                yield tuple(rest)


def _when_it_runs(node: ast.AST) -> Iterator[ast.AST]:
    """As `ast.walk`, without the imports for type checkers alone, under `if TYPE_CHECKING:`."""
    yield node
    children = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        children = iter(node.orelse)
    for child in children:
        yield from _when_it_runs(child)


def arrows(found: list[Module]) -> set[tuple[str, str]]:
    """Pairs of rooms: the first imports from the second."""
    rooms = {module.parts: module.room for module in found}
    pairs = set()
    for module in found:
        for parts in imported(module):
            # `from segments_async.models import Segment`: the module is the longest known name.
            known = next(rooms[parts[:n]] for n in range(len(parts), -1, -1) if parts[:n] in rooms)
            if known != module.room:
                pairs.add((module.room, known))
    return pairs


def circles(pairs: set[tuple[str, str]]) -> list[set[str]]:
    """Groups of rooms that can reach each other."""
    rooms = {room for pair in pairs for room in pair}
    reach = {room: _reachable(room, pairs) for room in rooms}
    groups: list[set[str]] = []
    for room in sorted(rooms):
        group = {other for other in reach[room] if room in reach[other]}
        if len(group) > 1 and group not in groups:
            groups.append(group)
    return groups


def _reachable(room: str, pairs: set[tuple[str, str]]) -> set[str]:
    seen: set[str] = set()
    todo = [room]
    while todo:
        here = todo.pop()
        for one, other in pairs:
            if one == here and other not in seen:
                seen.add(other)
                todo.append(other)
    return seen


def floors(pairs: set[tuple[str, str]]) -> int:
    """The highest floor; the rooms of a circle are on one."""
    of = {room: 1 for pair in pairs for room in pair}
    for _ in of:
        for one, other in pairs:
            if one not in _reachable(other, pairs):
                of[one] = max(of[one], of[other] + 1)
    return max(of.values())


def leads_up(pair: tuple[str, str]) -> bool:
    one, other = pair
    return one in ORDER and other in ORDER and ORDER.index(one) < ORDER.index(other)


def functions(found: list[Module]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for module in found:
        for node in ast.walk(module.tree):
            if isinstance(node, FUNCTIONS):
                yield node


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The function's lines, without those of its docstring.

    The goals were measured so. A docstring that gives units and errors makes no function harder.
    """
    first = function.body[0]
    has_text = ast.get_docstring(function, clean=False) is not None
    return _lines(function) - (_lines(first) if has_text else 0)


def _lines(node: ast.stmt) -> int:
    return (node.end_lineno or 0) - node.lineno + 1


def complexity(function: ast.AST) -> int:
    """McCabe's number: one, and one for each branch."""
    branches = (
        ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.IfExp, ast.comprehension,
        ast.match_case,
    )  # fmt: skip
    found = 1
    for node in ast.walk(function):
        found += isinstance(node, branches)
        found += len(node.values) - 1 if isinstance(node, ast.BoolOp) else 0
    return found


def private_imports_of_cli(found: list[Module]) -> set[tuple[str, ...]]:
    """The private modules that the command line imports."""
    return {
        parts[: 2 if len(parts) > 1 and parts[0].startswith("_") else 1]
        for module in found
        if module.room == "cli"
        for parts in imported(module)
        if parts and parts[0].startswith("_") and not parts[0].startswith("__")
    }


def private_accesses_of_tests() -> int:
    """Private attributes that tests outside `tests/sansio` read or set.

    An object's own ones don't count, nor does a text that names a private module, nor what other
    packages keep private: no seam of ours could replace it. Notebooks call `_repr_html_`.
    """
    return sum(
        isinstance(node, ast.Attribute)
        and re.match(r"_(?!_|repr_html_$)", node.attr) is not None
        and ast.unparse(node.value) not in ("self", "cls")
        and ast.unparse(node.value).partition(".")[0] not in ("atexit", "os", "threading", "trio")
        for path in TESTS.rglob("*.py")
        if "sansio" not in path.relative_to(TESTS).parts
        for node in ast.walk(ast.parse(path.read_text()))
    )


def rows() -> Iterator[tuple[str, object, object]]:
    """The name of each figure, the count, and the goal."""
    found = modules()
    pairs = arrows(found)
    sizes = sorted(length(node) for node in functions(found))
    classes = {
        node.name: sum(
            isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) for item in node.body
        )
        for module in found
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef) and module.room != "sandbox"
    }
    largest = max(classes, key=lambda name: classes[name])
    long = [module for module in found if module.lines > LONG_FILE]
    complicated = [f.name for f in functions(found) if complexity(f) > COMPLEX]
    lines = sum(m.lines for m in found)
    core = sum(m.lines for m in found if m.room not in ("cli", "sandbox"))
    tests = sum(len(path.read_text().splitlines()) for path in TESTS.rglob("*.py"))
    up = sorted(pair for pair in pairs if leads_up(pair))
    yield "rooms", len({module.room for module in found}), 18
    yield "arrows", len(pairs), 75
    yield "floors", floors(pairs), 12
    yield "arrows up", f"{len(up)} {up or ''}", 0
    yield "circles", f"{len(circles(pairs))} {circles(pairs) or ''}", 0
    yield f"methods of the largest class ({largest})", classes[largest], 20
    yield f"files over {LONG_FILE} lines", f"{len(long)} {[m.path.name for m in long]}", 1
    yield "functions: median lines, without docstrings", statistics.median(sizes), 5
    yield "functions: 90th percentile", sizes[int(0.9 * len(sizes))], 16
    yield "functions: longest", sizes[-1], 60
    yield f"functions of complexity over {COMPLEX}", f"{len(complicated)} {complicated}", 0
    yield "private modules that cli/ imports", len(private_imports_of_cli(found)), 0
    yield "private accesses of tests outside tests/sansio", private_accesses_of_tests(), 0
    yield "lines without cli/ and sandbox/", core, 11_800
    yield "lines of tests for one of the package", round(tests / lines, 2), 1.4


def main() -> None:
    print("| | now | asked |\n|---|---|---|")
    for name, count, asked in rows():
        print(f"| {name} | {count} | {asked} |")


if __name__ == "__main__":
    main()
