"""How processes divide an account's limit."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segments_async import Pacer
from segments_async._sansio.pace.shared_limit import (
    DEEPEST_CUT,
    WORTH_A_CHANGE,
    GroupView,
    Own,
    Report,
    Share,
)

RATES = st.floats(0.1, 500.0)
SUM = "one sum"


def refused(pacer: Pacer, now: float = 0.0) -> None:
    """A 429, which begins a block."""
    pacer.on_throttled(now, pacer.take(now), retry_after=None, chance=0.0)


def knowing(granted: float) -> Pacer:
    pacer = Pacer()
    pacer.on_share(granted)
    return pacer


def exchanged(share: Share, pacer: Pacer, group: GroupView) -> Report:
    """One exchange of reports between a process and the others."""
    own = share.own(pacer)
    report = own.tell(group)
    share.took(pacer, own, report)
    return report


# Not shared.


def test_a_rate_that_was_told_is_nobodys_part() -> None:
    """A rate given by the caller is no evidence of the limit, and isn't changed by the others."""
    pacer = Pacer(rate=5)
    report = exchanged(Share(), pacer, GroupView(100.0, 1, SUM))
    assert report == Report(100.0, None, False, SUM)
    assert pacer.granted == 5.0


def test_no_part_is_taken_while_a_429_holds_everybody() -> None:
    """In a block no part is adopted: the estimate at its end is reported first."""
    pacer, share = knowing(10.0), Share()
    exchanged(share, pacer, GroupView(None, 0, SUM))
    refused(pacer)
    assert exchanged(share, pacer, GroupView(100.0, 3, SUM)).part is None
    assert not share.took(pacer, share.own(pacer), Report(100.0, 25.0, True, SUM))
    assert pacer.granted == 10.0


def test_who_seeks_the_limit_goes_on_alone() -> None:
    """A process with 429s and no estimate adopts no part: the part would pass for the limit."""
    pacer = Pacer()
    refused(pacer)
    pacer.on_accepted(0.5, pacer.take(0.4))
    assert pacer.granted is None
    assert not pacer.blocked
    assert exchanged(Share(), pacer, GroupView(100.0, 1, SUM)).part is None


def test_what_was_found_meanwhile_comes_first() -> None:
    """A part is not adopted if the process has found another rate since its report."""
    pacer, share = knowing(10.0), Share()
    own = share.own(pacer)
    pacer.on_share(4.0)
    assert not share.took(pacer, own, Report(40.0, 20.0, True, SUM))
    assert pacer.granted == 4.0


def test_a_change_too_small_ends_no_measurement() -> None:
    """A part near the present one doesn't end the pacer's interval."""
    pacer, share = knowing(10.0), Share()
    near = 10.0 * (1 + WORTH_A_CHANGE / 2)
    assert not share.took(pacer, share.own(pacer), Report(20.0, near, True, SUM))
    assert pacer.granted == 10.0


def test_processes_that_start_together_add_what_each_was_granted() -> None:
    """The first rate that one of them finds is not the limit: the others got theirs beside."""
    pacer, share = Pacer(), Share()
    for number in range(11):
        at = 0.1 * number
        pacer.on_waiting()
        pacer.on_accepted(at, pacer.take(at))
    assert share.own(pacer).passing == pytest.approx(10.0)
    report = exchanged(share, pacer, GroupView(6.0, 1, SUM))
    assert report.limit == pytest.approx(16.0)
    assert report.part == pytest.approx(8.0)
    # Counted once: what it sends from now on is its part.
    assert exchanged(share, pacer, GroupView(16.0, 1, SUM)).limit == pytest.approx(16.0)


@pytest.mark.parametrize("processes", [1, 8])
def test_a_sum_that_is_too_low_is_outgrown_by_all_together(processes: int) -> None:
    """Before its first 429, a process waits for its part of a plateau, and not for all of it."""
    pacer = Pacer()
    pacer.on_share(1.0, processes=processes)
    requests, now = 0, 0.0
    while pacer.granted is not None and (pacer.rate or 0.0) < 2.0:
        now, requests = now + 1.0, requests + 1
        pacer.on_waiting()
        pacer.on_accepted(now, pacer.take(now))
    assert requests > 150 if processes == 1 else requests < 80


def test_a_429_shows_that_the_sum_is_not_too_low() -> None:
    """From then on the rate is kept for the whole plateau, in each of the processes."""
    rates: list[float] = []
    for processes in (1, 8):
        pacer = Pacer()
        refused(pacer)
        pacer.on_accepted(0.5, pacer.take(0.4))
        pacer.on_share(1.0, processes=processes)
        for number in range(100):
            pacer.on_waiting()
            pacer.on_accepted(1.0 + number, pacer.take(1.0 + number))
        rates.append(pacer.rate or 0.0)
    assert rates[0] == rates[1] < 1.1


def test_what_was_told_to_a_forgotten_sum_is_told_again() -> None:
    """A process reports its rate again to a new sum."""
    pacer, share = knowing(10.0), Share()
    exchanged(share, pacer, GroupView(None, 0, SUM))
    assert share.own(pacer).tell(GroupView(10.0, 1, SUM)).limit == 10.0
    assert share.own(pacer).tell(GroupView(7.0, 1, "another")).limit == 17.0


def test_parts_told_twice_dont_ruin_the_sum() -> None:
    """Four processes that reported the same part, and are all cut, each subtract one cut at most.

    Without the rule each process would subtract its whole part from the sum.
    """
    limit = 100.0
    for _ in range(4):
        limit = Own(10.0, 100.0, SUM, False, True).tell(GroupView(limit, 0, SUM)).limit or 0.0
    assert limit == pytest.approx(100.0 * DEEPEST_CUT**4)


# Shared.


def test_a_new_process_begins_with_its_part() -> None:
    """A new process begins with its third of 90/s, without a search."""
    pacer = Pacer()
    assert exchanged(Share(), pacer, GroupView(90.0, 2, SUM)) == Report(90.0, 30.0, True, SUM)
    assert pacer.granted == 30.0
    assert pacer.rate == pytest.approx(30.0 * 0.97)


def test_the_others_get_what_one_leaves() -> None:
    """When a process leaves, the next request of the others goes at the new pace at once."""
    pacer, share = knowing(0.1), Share()
    exchanged(share, pacer, GroupView(None, 0, SUM))
    pacer.take(0.0)
    assert pacer.next_at() > 10.0
    exchanged(share, pacer, GroupView(90.0, 0, SUM))
    assert pacer.granted == pytest.approx(90.0)
    assert pacer.next_at() < 0.1


def test_who_leaves_is_not_counted() -> None:
    """A process that leaves doesn't wait, though a request waited there a moment ago."""
    pacer, share = knowing(10.0), Share()
    pacer.on_waiting()
    assert share.own(pacer, leaves=True).tell(GroupView(20.0, 1, SUM)).waits is False


def test_who_still_waits_is_counted_again() -> None:
    """In a long block a process counts as waiting in each exchange, until no request waits."""
    pacer, share = knowing(10.0), Share()
    pacer.on_waiting()
    assert [share.own(pacer).waits for _ in range(3)] == [True] * 3
    pacer.on_idle()
    assert [share.own(pacer).waits for _ in range(2)] == [True, False]


# Remembered.


def test_a_process_begins_at_what_others_found_that_are_gone() -> None:
    """The first process uses the whole remembered limit, and reports it to later ones."""
    pacer, share = Pacer(), Share()
    report = exchanged(share, pacer, GroupView(None, 0, SUM, learnt=40.0))
    assert report == Report(40.0, 40.0, True, SUM, remembered=True)
    assert pacer.granted == 40.0
    assert exchanged(Share(), Pacer(), GroupView(report.limit, 1, SUM)).part == 20.0


def test_what_is_found_replaces_a_memory() -> None:
    """A limit that a process finds replaces the remembered one, and isn't added to it."""
    assert exchanged(Share(), knowing(10.0), GroupView(None, 0, SUM, learnt=40.0)).limit == 10.0


def test_a_memory_that_is_too_high_falls_for_all() -> None:
    """A process that finds a quarter of its part lowers the sum at once, not by 15 % each time."""
    pacer, share = Pacer(), Share()
    exchanged(share, pacer, GroupView(None, 1, SUM, learnt=80.0))
    assert pacer.granted == 40.0
    pacer.on_share(10.0)
    assert share.own(pacer).tell(GroupView(80.0, 1, SUM)).limit == 20.0


@pytest.mark.parametrize("pacer", [Pacer(rate=5), Pacer(rate=math.inf)])
def test_a_rate_that_was_told_goes_by_no_memory(pacer: Pacer) -> None:
    """A rate given by the caller uses no memory, and doesn't refresh it."""
    report = exchanged(Share(), pacer, GroupView(None, 0, SUM, learnt=40.0))
    assert report == Report(None, None, False, SUM)


def test_a_memory_of_hardly_anything_is_not_gone_by() -> None:
    """A remembered limit below 0.5/s isn't used: a search takes seconds, growth minutes."""
    pacer = Pacer()
    assert exchanged(Share(), pacer, GroupView(None, 0, SUM, learnt=0.1)).part is None
    assert pacer.granted is None


@given(
    limit=st.none() | RATES,
    others=st.integers(0, 20),
    found=st.none() | RATES,
    report=st.none() | RATES,
    alone=st.booleans(),
    waits=st.booleans(),
)
def test_a_part_is_of_the_sum(
    limit: float | None,
    others: int,
    found: float | None,
    report: float | None,
    alone: bool,
    waits: bool,
) -> None:
    """All parts together are the limit, which is above zero; or no process has a part."""
    answer = Own(found, report, SUM, alone, waits).tell(GroupView(limit, others, SUM))
    if answer.part is None:
        assert answer.limit == limit
    else:
        assert answer.limit is not None
        assert math.isfinite(answer.limit)
        assert answer.part * (1 + others) == pytest.approx(answer.limit)
        assert answer.part > 0


@given(parts=st.lists(RATES, min_size=1, max_size=8), grown=st.lists(RATES, max_size=8))
def test_the_sum_is_what_all_found(parts: list[float], grown: list[float]) -> None:
    """In any order of reports, the sum has each process's last estimate once."""
    limit: float | None = None
    report: list[float | None] = [None] * len(parts)
    last = dict(enumerate(parts))
    more = [(n % len(parts), growth) for n, growth in enumerate(grown)]
    for n, growth in [*((n, 0.0) for n in last), *more]:
        last[n] += growth
        limit = Own(last[n], report[n], SUM, False, True).tell(GroupView(limit, 0, SUM)).limit
        report[n] = last[n]
    assert limit == pytest.approx(sum(last.values()))
