"""What a machine may say that isn't true: that a lock is free, that it is another time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, tzinfo
from typing import Any, Self

from segments_async._journal import postgresql, sqlite

_WITHOUT_CLOCK = ("segments_async._sansio", "segments_async.models", "segments_async.results")


class _Lock:
    """A lock that excludes no other process."""

    unclean = False

    def confirm(self, connection: object) -> None: ...
    def is_held(self, connection: object) -> bool:
        return True

    def reacquire(self, connection: object) -> bool:
        return True

    def release(self) -> None: ...


def of_locks() -> Iterator[tuple[Any, str, Callable[..., Any]]]:
    """A class, a method of it, and the lie: every process gets every lock, and sees none."""
    for backend in (sqlite.Sqlite, postgresql.PostgreSQL):
        yield backend, "try_lock", lambda *_: _Lock()
        yield backend, "locked", lambda *_: ()


def shift_clock(seconds: float) -> None:
    """From now on this process's wall clock is so many seconds fast.

    Of modules that ask for the time. Others name the class as the type of stored values.
    """

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return super().now(tz) + timedelta(seconds=seconds)

    for name, module in list(sys.modules.items()):
        asks = name.startswith("segments_async.") and not name.startswith(_WITHOUT_CLOCK)
        if asks and getattr(module, "datetime", None) is datetime:
            module.datetime = Shifted  # type: ignore[attr-defined]
