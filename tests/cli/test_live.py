"""The drawing of a run's progress, on terminals of three widths."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from segments_async.cli.live import fitted, picture
from segments_async.results import Activity, Held, HeldReason, Progress

NAMES = [
    "VIP",
    "日本のユーザー" * 6,
    "Registrations in the Last 7 Days, all of Europe",
    "👩‍💻 x",
    None,
]
HELD = Held(reason=HeldReason.TICKET_GUARD, seconds=47.0)


def _progress(**facts: object) -> Progress:
    usual: dict[str, object] = {
        "total": 100_000,
        "waiting": 12_345,
        "pending": 6_789,
        "fetching": 8,
        "exported": 70_000,
        "unchanged": 10_858,
        "not_exported": 17,
        "bytes": 123_456_789,
        "requests": 234_567,
        "throttled": 890,
        "rate": 134.1,
        "oldest_link_age": None,
        "eta_seconds": 7_500.0,
        "held": HELD,
    }
    return Progress(**(usual | facts))  # type: ignore[arg-type]


def _drawn(width: int, **facts: object) -> list[str]:
    shown = [
        Activity(f"{number}" * 36, None, name, state, 3_725.0, 45_678)
        for number, (name, state) in enumerate(
            zip(NAMES, ["intent", "submitted", "complete", "fetching", "other"], strict=True)
        )
    ]
    lines = picture(_progress(**facts), shown, 3_700.0, width)
    return ["".join(text for text, _ in line) for line in lines]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    """Nothing wraps, also with wide characters and large figures, and nothing is left out."""
    lines = _drawn(width)
    assert max(map(cell_len, lines)) <= width, "\n".join(lines)
    whole = "\n".join(lines)
    for piece in (
        *("80875 of 100000", "12345 waiting", "6789 pending", "8 fetching", "10858 unchanged"),
        *("17 not exported", "123.5 MB", "234567 requests (134.1/s at most)", "890 throttled"),
        *("1 h 01 min", "about 2 h 05 min left", "and 6792 more under way", "next try in 47 s"),
    ):
        assert piece in whole, piece
    assert len(lines) <= len(NAMES) + 7


@pytest.mark.parametrize("width", [60, 80, 120])
def test_columns_stand_below_each_other(width: int) -> None:
    """The states of all exports begin in one column, whatever the names' characters."""
    rows = zip(_drawn(width), ["submitting", "pending", "ready", "fetching", "other"], strict=False)
    assert len({cell_len(row[: row.index(f"  {state}")]) for row, state in rows}) == 1


def test_a_moment_of_the_rate_limit_is_no_line() -> None:
    """Where the next request goes within a second, no line comes and goes."""
    soon = Held(reason=HeldReason.RATE_LIMIT, seconds=0.4)
    assert not any("Waiting" in line for line in _drawn(80, held=soon))


def test_a_small_run_has_a_whole_bar() -> None:
    """On 80 columns the bar of a small run is in one line with its counts."""
    facts = {"total": 40, "waiting": 0, "exported": 20, "unchanged": 0, "not_exported": 0}
    lines = _drawn(80, pending=12, **facts)
    assert any("━" in line and "20 of 40" in line and "8 fetching" in line for line in lines)


def test_a_share_of_a_run_is_called_a_share() -> None:
    """In a shared run the first figure is this process's, and the whole run's stands beside it."""
    facts = {"total": 40, "waiting": 0, "exported": 20, "unchanged": 0, "not_exported": 0}
    lines = picture(_progress(**facts), [], 1.0, 100, 60)
    assert any("20 of 40 here, of the run's 60" in "".join(t for t, _ in line) for line in lines)


@pytest.mark.parametrize("text", ["a", "abcdef", "日本語", "日本", "👩‍💻👩‍💻👩‍💻", ""])
@pytest.mark.parametrize("width", [3, 4, 5])
def test_a_text_is_as_wide_as_its_column(text: str, width: int) -> None:
    """Filled up or cut, also in the middle of a wide character."""
    assert cell_len(fitted(text, width)) == width
