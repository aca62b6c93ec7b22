"""An error with its causes, contexts, and the members of exception groups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast


def chain(exc: BaseException, until: BaseException | None = None) -> Iterator[BaseException]:
    """The error and all errors that led to it, suppressed contexts included.

    Args:
        until: an exception that the caller was handling before; left out, with all before it.
    """
    todo: list[BaseException | None] = [exc]
    while todo:
        if (error := todo.pop()) is None or error is until:
            continue
        yield error
        if isinstance(error, BaseExceptionGroup):
            todo.extend(cast(BaseExceptionGroup[BaseException], error).exceptions)
        todo.append(error.__context__)
        if error.__cause__ is not error.__context__:
            todo.append(error.__cause__)
