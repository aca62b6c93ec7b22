"""Claims about dividing an account's limit between its processes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segments_async import Pacer
from segments_async._sansio.sharing import WORTH_A_CHANGE, Common, Mine, Share, Told

RATES = st.floats(0.1, 500.0)


def refused(pacer: Pacer, now: float = 0.0) -> None:
    """A 429, which holds everybody."""
    pacer.on_throttled(now, pacer.take(now), retry_after=None, chance=0.0)


def knowing(granted: float) -> Pacer:
    pacer = Pacer()
    pacer.on_share(granted)
    return pacer


# What is not shared.


def test_a_rate_that_was_told_is_nobodys_part() -> None:
    """The caller's word is no evidence of the account's limit, and isn't overruled."""
    share = Share(Pacer(rate=5))
    told = share.mine().tell(Common(100.0, others=1))
    assert told == Told(100.0, None, waits=False)
    assert not share.took(share.mine(), told)


def test_no_part_is_taken_while_a_429_holds_everybody() -> None:
    """What a block teaches is of the rate before it: that is told first."""
    pacer = knowing(10.0)
    share = Share(pacer)
    share.took(mine := share.mine(), mine.tell(Common(None, others=0)))
    refused(pacer)
    mine = share.mine()
    assert mine.tell(Common(100.0, others=3)).part is None
    assert not share.took(mine, Told(100.0, 25.0, waits=True))
    assert pacer.granted == 10.0


def test_who_seeks_the_limit_goes_on_alone() -> None:
    """Refused once and nothing found yet, he'd take the part of another for all there is."""
    pacer = Pacer()
    epoch = pacer.take(0.0)
    refused(pacer)
    pacer.on_accepted(0.5, pacer.take(0.4))
    assert epoch == 0
    assert pacer.granted is None
    assert not pacer.blocked
    assert Share(pacer).mine().tell(Common(100.0, others=1)).part is None


def test_what_was_found_meanwhile_comes_first() -> None:
    """A part that was told for another estimate is not gone by."""
    pacer = knowing(10.0)
    share = Share(pacer)
    mine = share.mine()
    pacer.on_share(4.0)
    assert not share.took(mine, Told(40.0, 20.0, waits=True))
    assert pacer.granted == 4.0


def test_a_change_too_small_ends_no_measurement() -> None:
    """The pacer goes on with what it is at."""
    pacer = knowing(10.0)
    share = Share(pacer)
    assert not share.took(share.mine(), Told(20.0, 10.0 * (1 + WORTH_A_CHANGE / 2), waits=True))
    assert pacer.granted == 10.0


def test_a_sum_that_was_forgotten_is_begun_anew() -> None:
    """What this process told before is in the new sum only if it is told again."""
    share = Share(knowing(10.0))
    share.took(mine := share.mine(), mine.tell(Common(None, others=0)))
    assert share.mine().tell(Common(None, others=0)).limit == 10.0


# What is.


def test_a_new_process_begins_with_its_part() -> None:
    """It needn't find anything, and a third of 90/s is not exceeded while it would."""
    pacer = Pacer()
    share = Share(pacer)
    told = share.mine().tell(Common(90.0, others=2))
    assert told == Told(90.0, 30.0, waits=True)
    assert share.took(share.mine(), told)
    assert pacer.granted == 30.0
    assert pacer.rate == pytest.approx(30.0 * 0.97)


def test_the_others_get_what_one_leaves() -> None:
    """At once, and without finding it."""
    pacer = knowing(30.0)
    share = Share(pacer)
    share.took(mine := share.mine(), mine.tell(Common(60.0, others=2)))
    mine = share.mine()
    assert share.took(mine, mine.tell(Common(90.0, others=0)))
    assert pacer.granted == pytest.approx(90.0)


def test_who_leaves_is_not_counted() -> None:
    """Though somebody waited a moment ago."""
    pacer = knowing(10.0)
    share = Share(pacer)
    pacer.on_waiting()
    assert share.waits
    assert share.mine(leaves=True).tell(Common(20.0, others=1)).waits is False


@given(
    limit=st.none() | RATES,
    others=st.integers(0, 20),
    found=st.none() | RATES,
    told=st.none() | RATES,
    alone=st.booleans(),
    waits=st.booleans(),
)
def test_a_part_is_of_the_sum(
    limit: float | None,
    others: int,
    found: float | None,
    told: float | None,
    alone: bool,
    waits: bool,
) -> None:
    """All parts together are the limit, which is a number above zero, or nothing is told."""
    answer = Mine(found, told, alone, waits).tell(Common(limit, others))
    if answer.part is None:
        assert answer.limit == limit
    else:
        assert answer.limit is not None
        assert math.isfinite(answer.limit)
        assert answer.part * (1 + others) == pytest.approx(answer.limit)
        assert answer.part > 0


@given(parts=st.lists(RATES, min_size=1, max_size=8), found=st.lists(RATES, max_size=8))
def test_the_sum_is_what_all_found(parts: list[float], found: list[float]) -> None:
    """Whoever tells first, and however often: each one's last estimate is in it once."""
    limit: float | None = None
    told: list[float | None] = [None] * len(parts)
    last = dict(enumerate(parts))
    for n, estimate in [*enumerate(parts), *((n % len(parts), f) for n, f in enumerate(found))]:
        limit = Mine(estimate, told[n], alone=False, waits=True).tell(Common(limit, 0)).limit
        told[n] = last[n] = estimate
    assert limit == pytest.approx(sum(last.values()))
