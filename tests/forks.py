"""For processes that fork sessions or commands: what these import when they need it."""

from __future__ import annotations

import gc
import importlib
import pkgutil

import segments_async

#: What other packages import when a session or a command is at work.
_OTHERS = (
    "anyio._backends._asyncio",
    "rich._emoji_codes",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite.pysqlite",
)


def import_all() -> None:
    """Import it once, before the forks, in each of which the imports take half of the time."""
    for module in pkgutil.walk_packages(segments_async.__path__, "segments_async."):
        if not module.name.endswith(".__main__"):
            importlib.import_module(module.name)
    for name in _OTHERS:
        importlib.import_module(name)
    gc.freeze()  # a collection in a fork would copy the pages of all of it
