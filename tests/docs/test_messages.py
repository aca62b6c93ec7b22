"""Claims about the messages that the pages quote."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from .pages import ROOT

#: Messages at the beginning of a paragraph: a reader comes with one, and looks for it.
QUOTED = re.findall(
    r"^\*\*`([^`]{12,})`", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE
)

#: What the source fills in: a number, something in quotes, and what the page leaves out.
_FILLED_IN = re.compile(r"\d+(\.\d+)?|'[^']*'|\.\.\.")

#: Of the rest of a message, the part that one text of the sources has to cover. Names and plurals
#: are filled in, too.
COVERED = 0.6

_RUN = 8  # characters: a shorter run of equal characters is an accident


@cache
def messages() -> list[set[str]]:
    """The words of each text in the sources, what is filled in left out, as runs of characters."""
    return [
        runs
        for path in sorted((ROOT / "segments_async").rglob("*.py"))
        for text in _texts(path)
        if (runs := set(_runs(text)))
    ]


def _texts(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            constants = (part.value for part in node.values if isinstance(part, ast.Constant))
            yield "\0".join(str(value) for value in constants)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _runs(text: str) -> Iterator[str]:
    for start in range(len(text) - _RUN + 1):
        yield text[start : start + _RUN]


def covered(message: str, runs: set[str]) -> float:
    """The share of a message's characters that stand in the runs, but for what is filled in."""
    fixed = [part for part in _FILLED_IN.sub("\0", message).split("\0") if len(part) >= _RUN]
    found = sum(len(_places(part, runs)) for part in fixed)
    return found / sum(map(len, fixed))


def _places(part: str, runs: set[str]) -> set[int]:
    starts = (start for start, run in enumerate(_runs(part)) if run in runs)
    return {start + i for start in starts for i in range(_RUN)}


def is_the_programs(message: str) -> bool:
    own = set(_runs(message))
    candidates = (runs for runs in messages() if not own.isdisjoint(runs))
    return any(covered(message, runs) >= COVERED for runs in candidates)


def test_quoted_messages_are_the_programs() -> None:
    """The messages that troubleshooting.md explains are those of the program, in its words."""
    assert len(QUOTED) > 30
    assert [message for message in QUOTED if not is_the_programs(message)] == []
    assert not is_the_programs("the vendor was asked too often, and 3 exports are lost")
