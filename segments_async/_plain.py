"""Texts from elsewhere, for people."""

from __future__ import annotations

import unicodedata


def plain(text: str) -> str:
    """The text with control characters escaped: names come from a server, a terminal obeys."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or unicodedata.category(char) == "Zs" else _escaped(char)
        for char in text
    )


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
