"""For the tests of code that uses this library: a stand-in for the vendor, and virtual time.

The pytest plugin comes with the package and needs no configuration. Its fixture `segments_sandbox`
is a :class:`SegmentsSandbox`: an account that answers every `SegmentsClient` of the test. A test
marked ``segments_virtual_time`` doesn't wait: its event loop's clock jumps to the next timer.
docs/testing.md has examples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segments_async.testing.account import SegmentsSandbox
    from segments_async.testing.clock import VirtualClock
    from segments_async.testing.loop import VirtualTimeLoop, virtual_time

__all__ = ["SegmentsSandbox", "VirtualClock", "VirtualTimeLoop", "virtual_time"]

_MODULES = {
    "SegmentsSandbox": "account",
    "VirtualClock": "clock",
    "VirtualTimeLoop": "loop",
    "virtual_time": "loop",
}


def __getattr__(name: str) -> Any:
    # Lazily: pytest imports the plugin of this package in every project that has it installed.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
