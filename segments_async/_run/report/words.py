"""Numbers in words, as the command line's summary has them."""

from __future__ import annotations


def in_time(seconds: float) -> str:
    """``0.4 s``, ``7 s``, ``3 min 20 s``, ``2 h 05 min``, ``3 d 4 h``."""
    if seconds < 9.95 and round(seconds, 1) != round(seconds):
        return f"{max(0.0, seconds):.1f} s"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 2 * 86_400:
        return f"{whole // 3600} h {whole // 60 % 60:02d} min"
    return f"{whole // 86_400} d {whole // 3600 % 24} h"


def number(count: int) -> str:
    """``12 345``, with narrow spaces that don't break."""
    return f"{count:,}".replace(",", "\u202f")


def counted(count: int, one: str, many: str | None = None) -> str:
    """``1 segment``, ``2 segments``."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"
