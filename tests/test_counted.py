"""Claims about the markers by which the README's command has less to do (`counted.py`)."""

from __future__ import annotations

import pytest

_TESTS = """
    import pytest

    pytestmark = pytest.mark.alternating

    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(request):
        return request.param

    @pytest.mark.parametrize("color", ["red", "blue"])
    @pytest.mark.parametrize("number", range(3))
    async def test_many(anyio_backend, number, color): ...

    async def test_single(anyio_backend): ...

    async def test_another_single(anyio_backend): ...

    def test_plain(): ...

    @pytest.mark.whole
    def test_long(): ...

    @pytest.mark.counted(2, 20)
    def test_few_of_many(): ...
"""


def collected(pytester: pytest.Pytester, *options: str) -> list[str]:
    """The tests that pytest would run, without the file's name."""
    pytester.makeini("[pytest]\nmarkers =\n alternating\n whole\n counted")
    if not list(pytester.path.glob("*.py")):
        pytester.makepyfile(_TESTS)
    plugins = [f"-p{name}" for name in ("counted", "no:asyncio", "no:schemathesis")]
    result = pytester.runpytest("--collect-only", "-q", *plugins, *options)
    return [line.partition("::")[2] for line in result.outlines if "::" in line]


def test_each_case_runs_on_one_backend(pytester: pytest.Pytester) -> None:
    """Of an alternating test each case runs once, and every value meets both backends."""
    names = collected(pytester)
    many = [
        name.removeprefix("test_many[")[:-1].split("-")
        for name in names
        if name.startswith("test_many")
    ]
    assert len({(number, color) for _, number, color in many}) == len(many) == 6
    for place in (1, 2):
        values = {case[place] for case in many}
        assert {(case[0], case[place]) for case in many} == {
            (backend, value) for backend in ("asyncio", "trio") for value in values
        }


def test_single_cases_take_turns(pytester: pytest.Pytester) -> None:
    """A test without other parameters runs on one backend, the next one on the other."""
    names = [name for name in collected(pytester) if "single" in name]
    assert names == ["test_single[asyncio]", "test_another_single[trio]"]


def test_without_a_backend_nothing_is_left_out(pytester: pytest.Pytester) -> None:
    """An alternating test that takes no backend runs as it is."""
    assert "test_plain" in collected(pytester)


def test_whole_runs_all(pytester: pytest.Pytester) -> None:
    """Under --whole every case runs on both backends."""
    assert len(collected(pytester, "--whole")) == 2 * 6 + 2 * 2 + 3


def test_alternate_is_for_all_tests(pytester: pytest.Pytester) -> None:
    """Under --alternate a test that isn't marked runs each case on one backend, too."""
    pytester.makeini("[pytest]")
    pytester.makepyfile(_TESTS.replace("pytestmark = pytest.mark.alternating", ""))
    assert len(collected(pytester)) == 2 * 6 + 2 * 2 + 2
    assert len(collected(pytester, "--alternate")) == 6 + 2 + 2


def test_remaining_runs_what_was_left_out(pytester: pytest.Pytester) -> None:
    """Both commands together run all cases; only a counted test is in both, with other numbers."""
    usual, remaining = collected(pytester), collected(pytester, "--remaining")
    assert sorted(usual + remaining) == sorted(
        [*collected(pytester, "--whole"), "test_few_of_many"]
    )
    assert {"test_long", "test_few_of_many"} < set(remaining)
