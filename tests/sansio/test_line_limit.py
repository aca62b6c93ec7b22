"""Which ends of exports get a line of their own in the log."""

from __future__ import annotations

from segments_async._sansio.jobs.line_limit import BURST, EACH_WINDOW, WINDOW, LineLimit


def lines(limit: LineLimit, seconds: range, *, each: int) -> int:
    """How many of the ends, so many in each second, get a line."""
    return sum(
        limit.admits("exported", kind="ok", now=float(now)) for now in seconds for _ in range(each)
    )


def test_a_small_run_has_a_line_for_each_export() -> None:
    """The first hundred ends have lines, however fast they come."""
    limit = LineLimit()
    assert lines(limit, range(1), each=BURST) == BURST
    assert limit.due(0.0, closing=True) is None


def test_a_hundred_thousand_exports_have_a_few_lines_a_minute() -> None:
    """Four hours at seven a second: a burst, then ten lines a minute."""
    limit = LineLimit()
    seconds = 4 * 3600
    told = lines(limit, range(seconds), each=7)
    assert told <= BURST + EACH_WINDOW * seconds / WINDOW + 1


def test_each_end_has_a_line_or_is_counted() -> None:
    """Lines and counts add up to all ends; the counts come once a minute, and at the end."""
    limit = LineLimit()
    told = counted = summaries = 0
    for now in range(600):
        if (untold := limit.due(float(now))) is not None:
            counted += untold.total
            summaries += 1
        told += lines(limit, range(now, now + 1), each=7)
    last = limit.due(600.0, closing=True)
    assert last is not None
    assert told + counted + last.total == 4200
    assert 8 <= summaries <= 10
    assert limit.due(601.0, closing=True) is None


def test_failures_are_not_hidden_by_what_goes_well() -> None:
    """Failures have lines of their own after any number of exports that went well."""
    limit = LineLimit()
    lines(limit, range(10), each=1000)
    assert limit.admits("DownloadError", kind="failed", now=10.0)


def test_a_quiet_hour_brings_the_burst_back() -> None:
    """A run that ends few exports for a long time has a line for each again."""
    limit = LineLimit()
    lines(limit, range(10), each=1000)
    assert lines(limit, range(3600, 3601), each=BURST + 5) == BURST


def test_the_counts_have_the_time_of_their_own_ends() -> None:
    """The seconds are those from the first end to the last, however late the counts are told."""
    limit = LineLimit()
    lines(limit, range(30), each=BURST)
    untold = limit.due(86_400.0)
    assert untold is not None
    assert untold.seconds == 28.0  # of 1 to 29: the ends of second 0 have lines
    assert not limit.has_untold
