"""The guard around the caller's code that hears of exports: providers, and handlers of the log.

Such code is called in the middle of an export, in whichever task changes the export's state. It may
raise anything. An error of it must not become an export's error, so every call goes through here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

logger: logging.Logger = logging.getLogger("segments_async")

_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")

#: Providers that raised, by their ids. They are kept, so that the id is no other object's.
_left_alone: dict[int, object] = {}

#: Says on stderr that a handler raised, as logging does for its own handlers.
_STDERR = logging.NullHandler()


def is_left_alone(provider: object) -> bool:
    """Whether the provider raised before: it is called no more."""
    return id(provider) in _left_alone


def ask(
    provider: object, call: Callable[_Args, _Result], *args: _Args.args, **options: _Args.kwargs
) -> _Result | None:
    """Call the code of a provider. None where it raises, now or at an earlier call.

    Args:
        provider: the one whose code is called.
        call: the function that calls it.
        args: of `call`.
        options: of `call`.
    """
    if is_left_alone(provider):
        return None
    try:
        return call(*args, **options)
    except Exception as exc:  # noqa: BLE001 - a caller's provider may raise anything
        _left_alone[id(provider)] = provider
        # The class alone: the error's text may be anything.
        log(
            logging.WARNING,
            "%s raised %s, and is not called again; the exports go on",
            getattr(provider, "__name__", type(provider).__name__),
            type(exc).__name__,
        )
        return None


def log(
    level: int,
    text: str,
    *arguments: object,
    extra: Mapping[str, object] | None = None,
    exc_info: BaseException | None = None,
) -> None:
    """Write a line. If a handler or filter raises, stderr says so, and the caller goes on.

    logging's own handlers never raise. One of the caller's may, and its error would come out of the
    line that logs.
    """
    try:
        logger.log(level, text, *arguments, extra=extra, exc_info=exc_info, stacklevel=2)
    except Exception:  # noqa: BLE001 - as above
        _STDERR.handleError(logging.makeLogRecord({"msg": text, "args": arguments}))
