"""The pause that an answer asks for: RFC 9110's two forms, and all other values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segments_async._sansio.api.retry_after import LONGEST_RETRY_AFTER, retry_after_seconds

MOMENTS = st.datetimes(timezones=st.just(UTC)).filter(lambda moment: moment.year >= 1900)
NOON = "Mon, 23 Nov 2026 12:00:00 GMT"


def seconds(value: str, *, status: int = 429, date: str | None = None) -> float | None:
    headers = {"retry-after": value} | ({} if date is None else {"date": date})
    return retry_after_seconds(status, headers)


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "0",
        "0.0",
        "-1",
        "-0.5",
        "nan",
        "NaN",
        "inf",
        "Infinity",
        "-inf",
        "1e3",
        "1_000",
        "0x10",
        "5s",
        "5 seconds",
        "five",
        "1.2.3",
        ".",
        "\u0665",
        "\u00b2",
        "9" * 400,
        "soon" * 10_000,
        "Mon, 23 Nov 2026",
        "2026-11-23T12:00:00Z",
    ],
    ids=lambda value: value[:24],
)
def test_what_makes_no_sense_asks_for_nothing(value: str) -> None:
    """Past, zero, negative, infinite, NaN and garbage are None: the client's own backoff holds."""
    assert seconds(value, date=NOON) is None


@pytest.mark.parametrize("value", ["30,120", "30, 30", "30.0 ,x"])
def test_of_several_numbers_the_first_counts(value: str) -> None:
    """A gateway and the API behind it may each add one; a decimal comma means the same pause."""
    assert seconds(value) == 30.0


def test_no_header_asks_for_nothing() -> None:
    """Without a Retry-After there is no pause, with any Date."""
    assert retry_after_seconds(429, {"date": NOON}) is None


@given(st.integers(100, 599).filter(lambda status: status not in (429, 503)))
def test_other_codes_ask_for_nothing(status: int) -> None:
    """A 401 with a Retry-After is still a 401: the header counts on 429 and 503 only."""
    assert seconds("30", status=status) is None


@pytest.mark.parametrize("late", [0, 1, 3600, 365 * 86_400])
def test_a_date_that_has_passed_asks_for_nothing(late: int) -> None:
    """A date at or before the answer's own is None."""
    now = datetime(2026, 11, 23, 12, tzinfo=UTC)
    past = format_datetime(now - timedelta(seconds=late), usegmt=True)
    assert seconds(past, date=NOON) is None


def test_a_date_without_a_date_to_read_it_against_asks_for_nothing() -> None:
    """Without the answer's Date, a date is None: this machine's clock isn't the vendor's."""
    assert seconds("Mon, 23 Nov 2026 12:00:30 GMT") is None


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 23 Nov 2026 12:00:00", "\0" * 100])
def test_a_date_against_a_broken_date_asks_for_nothing(date: str) -> None:
    """A date is None too where the answer's Date is garbage, or has no zone."""
    assert seconds("Mon, 23 Nov 2026 12:00:30 GMT", date=date) is None


@given(st.text(), st.none() | st.text())
def test_any_header_is_a_bounded_pause_or_none(value: str, date: str | None) -> None:
    """With any two headers, the pause is None, or above zero and at most the longest."""
    pause = seconds(value, date=date)
    assert pause is None or 0 < pause <= LONGEST_RETRY_AFTER


@given(MOMENTS, MOMENTS)
def test_any_two_dates_are_a_bounded_pause_or_none(until: datetime, date: datetime) -> None:
    """With any two dates, the pause is None, or above zero and at most the longest."""
    pause = seconds(format_datetime(until, usegmt=True), date=format_datetime(date, usegmt=True))
    assert (pause is not None) == (until.replace(microsecond=0) > date.replace(microsecond=0))
    assert pause is None or 0 < pause <= LONGEST_RETRY_AFTER


@pytest.mark.parametrize("value", ["3601", "86400", "999999999"])
def test_a_huge_number_is_the_longest_pause(value: str) -> None:
    """A day, or a typing error, is a pause of at most the longest one."""
    assert seconds(value) == LONGEST_RETRY_AFTER


@pytest.mark.parametrize("late", [7, -7, 0, 86_400])
@pytest.mark.parametrize("unit", [1, 1000], ids=["seconds", "milliseconds"])
def test_a_time_since_1970_is_read_against_the_date(late: int, unit: int) -> None:
    """A number that is a time asks for the seconds from the answer's Date to it, and no hour."""
    until = int(datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()) + late
    expected = min(late, LONGEST_RETRY_AFTER) if late > 0 else None
    assert seconds(str(until * unit), date=NOON) == expected
    assert seconds(str(until * unit)) is None


def test_a_date_far_away_is_the_longest_pause() -> None:
    """A date in another year is the longest pause."""
    assert seconds("Tue, 23 Nov 2027 12:00:00 GMT", date=NOON) == LONGEST_RETRY_AFTER


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("value", "pause"), [("1", 1.0), ("120", 120.0), ("0.25", 0.25), ("007", 7.0), (" 5 ", 5.0)]
)
def test_seconds_and_their_fractions(value: str, pause: float, status: int) -> None:
    """Seconds and fractions are read as they are, on 429 and on 503."""
    assert seconds(value, status=status) == pause


@given(st.integers(1, int(LONGEST_RETRY_AFTER)))
def test_seconds_are_exact(value: int) -> None:
    """Every whole number of seconds up to the longest pause is that pause."""
    assert seconds(str(value)) == value


def test_a_date_is_read_against_the_answers_own() -> None:
    """A date 90 s after the answer's Date is a pause of 90 s, with any clock of this machine."""
    assert seconds("Mon, 23 Nov 2026 12:01:30 GMT", date=NOON) == 90.0


@pytest.mark.parametrize(
    "value", ["Monday, 23-Nov-26 12:00:30 GMT", "Mon, 23 Nov 2026 13:00:30 +0100"]
)
def test_other_forms_of_a_date(value: str) -> None:
    """The obsolete form of RFC 850, which recipients must read, and a numeric zone are dates."""
    assert seconds(value, date=NOON) == 30.0
