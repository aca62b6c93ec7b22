"""What hangs on an error: all that it came from, and the frames with their local variables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast


def chain(exc: BaseException, until: BaseException | None = None) -> Iterator[BaseException]:
    """The error, and all that it came from: hidden contexts and the members of groups, too.

    Args:
        exc: the error.
        until: what its caller was already handling, which is no part of it.
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
