"""Counted tests: few cases of each in the README's command, all of them under ``--whole``.

A test of schedules, kills, fuzzing, or of every byte of a file says how many cases it tries:

    @pytest.mark.counted(60, 1_000, "schedules")   # and takes the fixture `count`
    @pytest.mark.counted(every=13, of="turns")     # and takes the fixture `every`

Under ``--whole`` it tries the second number, or each one. Counted tests run last. What each of
them tried is printed at the end, and docs/reliability.md has both numbers.

A long test whose claim is tested by a quicker one too, or is none about the library, is marked
``whole``: the README's command leaves it out, and `.ci/run` runs it.

Tests with long cases are marked ``alternating``. The README's command runs each case on one of the
two backends, and about half of a file's cases on each. Under ``--whole`` each case runs on both.

``--remaining`` runs what the README's command leaves out and nothing else: the counted tests with
all their cases, the tests marked ``whole``, and alternating cases on the other backend.

``--alternate`` treats all tests as alternating. `.ci/run` uses it on further versions of Python and
of the dependencies, where nearly each test would say twice what it says of the version.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest

#: Under which a test's report says what it tried.
_PROPERTY = "counted"


@attrs.frozen
class Counted:
    """The arguments of the marker ``counted``.

    Attributes:
        few: cases in the README's command; None where it takes every so many-th.
        whole: cases under ``--whole``.
        of: what is counted, in the plural.
        every: in the README's command, of the cases that there are, each of so many is tried.
    """

    few: int | None = None
    whole: int | None = None
    of: str = "cases"
    every: int | None = None


def marked(item: pytest.Item) -> Counted | None:
    """The test's marker; None where the test isn't counted."""
    marker = item.get_closest_marker("counted")
    return None if marker is None else Counted(*marker.args, **marker.kwargs)


def _marked(request: pytest.FixtureRequest) -> Counted:
    found = marked(request.node)
    if found is None:
        raise pytest.UsageError(f"{request.node.nodeid}: only a counted test can ask how many")
    return found


@pytest.fixture
def count(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> int:
    """The number of cases that this test tries."""
    found = _marked(request)
    number = found.whole if tries_all(request.config) else found.few
    if number is None:
        raise pytest.UsageError(f"{request.node.nodeid}: counted(FEW, WHOLE) has the numbers")
    record_property(_PROPERTY, [number, found.of])
    return number


@pytest.fixture
def every(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> int:
    """This test tries every so many-th case; 1: each of them."""
    found = _marked(request)
    if found.every is None:
        raise pytest.UsageError(f"{request.node.nodeid}: counted(every=...) has the number")
    step = 1 if tries_all(request.config) else found.every
    record_property(_PROPERTY, [None, f"every {_ordinal(step)}of the {found.of}"])
    return step


def _ordinal(number: int) -> str:
    if number == 1:
        return "one "
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10)
    return f"{number}{ending or 'th'} "


def tried(reports: list[Any]) -> list[str]:
    """A line for each counted test that ran: its name, and its number of cases."""
    sums: Counter[tuple[str, str]] = Counter()
    for report in reports:
        name = report.nodeid.partition("[")[0]
        for key, value in report.user_properties:
            if key == _PROPERTY:
                sums[name, value[1]] += value[0] or 0
    return [f"{name}: {f'{number} ' if number else ''}{of}" for (name, of), number in sums.items()]


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--whole`` and ``--remaining``: counted tests try all their cases."""
    parser.addoption(
        "--alternate", action="store_true", help="runs each case on one of the two backends"
    )
    parser.addoption(
        "--remaining",
        action="store_true",
        help="runs only what pytest without options leaves out, and counted tests with all cases",
    )
    parser.addoption(
        "--whole",
        action="store_true",
        help="counted tests try all the cases that docs/reliability.md tells of; long tests run",
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the counted tests last, so that a broken claim shows early. Leave out long items."""
    items.sort(key=lambda item: marked(item) is not None)
    if config.getoption("whole"):
        return
    left_out = {item for item in items if item.get_closest_marker("whole") is not None}
    left_out.update(on_the_other_backend(items))
    if config.getoption("remaining"):
        counted = {item for item in items if marked(item) is not None}
        left_out = set(items) - left_out - counted
    if left_out:
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = [item for item in items if item not in left_out]


def alternates(item: pytest.Item) -> bool:
    """Whether each case of the test runs on one backend, without ``--whole``."""
    marked_so = item.get_closest_marker("alternating") is not None
    return marked_so or bool(item.config.getoption("alternate"))


def tries_all(config: pytest.Config) -> bool:
    """Whether counted tests try all their cases."""
    return bool(config.getoption("whole") or config.getoption("remaining"))


def on_the_other_backend(items: list[pytest.Item]) -> list[pytest.Item]:
    """Of the tests that alternate, the items that this command leaves out.

    A test's n-th item on asyncio and its n-th item on trio are the same case. The cases of a file
    are counted through all its tests, and the parity of the ones in the binary digits of a case's
    number says on which backend it runs. So of two neighbours one runs on each backend, and no
    parameter that changes at an even period always meets the same backend.
    """
    tests: dict[str, dict[str, list[pytest.Item]]] = {}
    for item in items:
        if alternates(item):
            of_backends = tests.setdefault(item.nodeid.partition("[")[0], {})
            of_backends.setdefault(_backend(item), []).append(item)
    numbers: dict[str, Iterator[int]] = {}
    left_out: list[pytest.Item] = []
    for test, of_backends in tests.items():
        number = numbers.setdefault(test.partition("::")[0], itertools.count())
        pairs = zip(of_backends.get("asyncio", ()), of_backends.get("trio", ()), strict=False)
        left_out += [pair[1 - next(number).bit_count() % 2] for pair in pairs]
    return left_out


def _backend(item: pytest.Item) -> str:
    callspec: Any = getattr(item, "callspec", None)
    return "" if callspec is None else str(callspec.params.get("anyio_backend"))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the cases that the counted tests tried."""
    stats = terminalreporter.stats
    calls = [
        report
        for report in itertools.chain(stats.get("passed", []), stats.get("failed", []))
        if getattr(report, "when", None) == "call"
    ]
    if lines := tried(calls):
        which = "all of them" if tries_all(config) else "few cases of each; --whole: all of them"
        terminalreporter.section(f"counted tests: {which}")
        for line in lines:
            terminalreporter.write_line(line)
