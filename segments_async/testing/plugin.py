"""The pytest plugin: the fixture `segments_sandbox`, and virtual time for marked tests.

pytest imports this module in every project in whose environment the package is installed. So it
imports nothing but pytest, and the rest when a test asks for it; and its hooks are of the old style
(`hookwrapper`), which every pluggy has.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import asyncio

    from segments_async.testing.account import SegmentsSandbox

INI = "segments_virtual_time"
MARKER = "segments_virtual_time"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option for projects all of whose async tests have virtual time."""
    parser.addini(INI, "run every async test in virtual time", type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    """Describe the markers."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(on=True): run the async test in virtual time: its event loop's clock jumps to "
        "the next timer when every task waits (segments-async)",
    )
    config.addinivalue_line(
        "markers",
        "segments_sandbox(allow=(), **options): options of the account that the fixture "
        "segments_sandbox makes, and names of checks to switch off (segments-async)",
    )


@pytest.fixture
def segments_sandbox(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SegmentsSandbox]:
    """An account of the vendor's that answers every `SegmentsClient` of the test.

    ``@pytest.mark.segments_sandbox(segments=20, rows=5)`` passes options of
    `segments_async.sandbox.Sandbox`. At the test's end `segments_async.testing.checks` are made;
    ``allow=["duplicate_exports"]`` switches one off.
    """
    from segments_async.testing.account import ENVIRONMENT, SegmentsSandbox

    marker = request.node.get_closest_marker("segments_sandbox")
    options: dict[str, Any] = dict(marker.kwargs) if marker is not None else {}
    allow: Any = options.pop("allow", ())
    checks: Any = [allow] if isinstance(allow, str) else allow
    account = SegmentsSandbox(**options)
    account.allow(*checks)
    monkeypatch.delenv("SEGMENTS_BASE_URL", raising=False)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with account.answering():
        yield account
    if problems := account.problems():
        pytest.fail("The vendor saw what it should not:\n" + "\n".join(problems), pytrace=False)


# --------------------------------------------------------------------- virtual time


def is_virtual(node: pytest.Item | pytest.Collector) -> bool:
    """Whether the node's tests have virtual time, by its closest marker or by the option."""
    marker = node.get_closest_marker(MARKER)
    if marker is None:
        return bool(node.config.getini(INI))
    return bool(marker.args[0] if marker.args else marker.kwargs.get("on", True))


@pytest.hookimpl(hookwrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, object, None]:
    """For anyio's plugin: the backend gets a virtual clock where the test has virtual time."""
    if fixturedef.argname != "anyio_backend" or not is_virtual(request.node):
        yield
        return
    func: Any = fixturedef.func
    if inspect.isgeneratorfunction(func):
        raise pytest.UsageError(f"{MARKER}: anyio_backend has to return its value, not yield it")

    def virtual(**arguments: Any) -> tuple[str, dict[str, Any]]:
        return _in_virtual_time(func(**arguments))

    patched: Any = fixturedef
    patched.func = virtual
    yield
    patched.func = func


def _in_virtual_time(backend: Any) -> tuple[str, dict[str, Any]]:
    """The backend that the fixture `anyio_backend` returned, with a virtual clock."""
    from segments_async.testing.loop import virtual_time

    name, options = _parts_of(backend)
    kept = {key: value for key, value in options.items() if key != "use_uvloop"}
    return name, kept | virtual_time(name)[1]


def _parts_of(backend: Any) -> tuple[str, dict[str, Any]]:
    """The name and the options; anyio's plugin takes a name alone, too."""
    return (backend, {}) if isinstance(backend, str) else backend


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Fail a test whose marker has no effect, since its event loop was made for another scope."""
    marker = item.get_closest_marker(MARKER)
    if marker is None or not inspect.iscoroutinefunction(getattr(item, "function", None)):
        return
    if is_virtual(item) != _has_virtual_loop(item):
        raise pytest.UsageError(
            f"{item.nodeid}: {MARKER} has no effect here. It needs anyio's plugin, or "
            "pytest-asyncio 1.4 or later. Where the fixture anyio_backend, or the scope of the "
            "loop, is wider than the test, mark the module (pytestmark = "
            f"pytest.mark.{MARKER}), or define anyio_backend with the scope of a function"
        )


def _has_virtual_loop(item: pytest.Item) -> bool:
    arguments = getattr(item, "funcargs", {})
    if (backend := arguments.get("anyio_backend")) is not None:
        return _has_virtual_clock(backend)
    callspec: Any = getattr(item, "callspec", None)
    factories = () if callspec is None else callspec.params.values()
    return any(_is_virtual_loop(factory) for factory in factories)


def _has_virtual_clock(backend: Any) -> bool:
    _, options = _parts_of(backend)
    return "clock" in options or _is_virtual_loop(options.get("loop_factory"))


def _is_virtual_loop(factory: Any) -> bool:
    from segments_async.testing.loop import VirtualTimeLoop

    return inspect.isclass(factory) and issubclass(factory, VirtualTimeLoop)


@pytest.hookimpl(hookwrapper=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Generator[None, object, None]:
    """For pytest-asyncio: with the first marked test, its loops come from this plugin.

    A wrapper, so that it runs before pytest-asyncio's own implementation.
    """
    manager, name = metafunc.config.pluginmanager, f"{__name__}.asyncio"
    present = manager.has_plugin("asyncio") and not manager.has_plugin(name)
    if present and is_virtual(metafunc.definition):
        manager.register(_LoopFactories(), name)
    yield


class _LoopFactories:
    """The loops of pytest-asyncio, from 1.4 on. A project's own hook comes first."""

    @pytest.hookimpl(trylast=True, optionalhook=True)
    def pytest_asyncio_loop_factories(
        self, item: pytest.Item
    ) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
        if not is_virtual(item):
            import asyncio

            return {"default": asyncio.new_event_loop}
        from segments_async.testing.loop import VirtualTimeLoop

        return {"virtual": VirtualTimeLoop}
