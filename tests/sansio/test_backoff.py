"""Jitter, the quota of retries, the ticket guard, and outages."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segments_async._sansio.pace.backoff import (
    FIRST_BACKOFF,
    LONGEST_BACKOFF,
    RetryQuota,
    TicketGuard,
    full_jitter,
)
from segments_async._sansio.pace.outage import AWAY_IN_A_ROW, LONGEST_OUTAGE, Outage
from segments_async._sansio.pace.submit_hold import (
    FIRST_HOLD,
    LONGEST_HOLD,
    UNKNOWN_IN_A_ROW,
    SubmitHold,
)

CHANCES = st.floats(0, 1, exclude_max=True)


# Full jitter.


@given(st.integers(0, 10_000), CHANCES)
def test_jitter_has_bounds(attempt: int, chance: float) -> None:
    """No backoff is negative, above 30 s, or above 1 s doubled once per attempt before."""
    pause = full_jitter(attempt, chance)
    assert 0 <= pause <= LONGEST_BACKOFF == 30.0
    assert pause <= FIRST_BACKOFF * 2 ** min(attempt, 100)


@given(st.integers(0, 100), CHANCES, CHANCES)
def test_jitter_is_full(attempt: int, one: float, other: float) -> None:
    """The pause is spread evenly from zero: it grows with the chance, and is 0 where that is."""
    assert full_jitter(attempt, 0.0) == 0.0
    assert (full_jitter(attempt, one) <= full_jitter(attempt, other)) or one > other


def test_jitter_doubles() -> None:
    """The upper ends are 1, 2, 4, 8, 16 s, and 30 s from then on."""
    assert [2 * full_jitter(n, 0.5) for n in range(7)] == [1, 2, 4, 8, 16, 30, 30]


# The retry quota.


def test_a_quota_ends() -> None:
    """Where no call succeeds, there are as many retries as the bucket holds, and no more."""
    quota = RetryQuota(size=3)
    assert [quota.take() for _ in range(5)] == [True, True, True, False, False]


def test_a_refused_retry_takes_nothing() -> None:
    """A refused retry doesn't put the bucket into debt."""
    quota = RetryQuota(size=1, refill=1.0)
    quota.take()
    for _ in range(100):
        quota.take()
    quota.on_success()
    assert quota.take()


def test_nine_successes_are_no_retry() -> None:
    """A success gives back a tenth: nine successes allow no retry."""
    quota = RetryQuota(size=1)
    quota.take()
    for _ in range(9):
        quota.on_success()
    assert not quota.take()


@pytest.mark.parametrize("size", [1, 2, 50])
def test_ten_successes_are_a_retry(size: int) -> None:
    """Ten successes allow a retry, though ten tenths don't add up to one in binary."""
    quota = RetryQuota(size=size)
    while quota.take():
        pass
    for _ in range(10):
        quota.on_success()
    assert quota.take()


def test_successes_are_not_saved_up() -> None:
    """A full bucket doesn't grow, after any number of successes."""
    quota = RetryQuota(size=2)
    for _ in range(1000):
        quota.on_success()
    assert [quota.take() for _ in range(3)] == [True, True, False]


@given(st.integers(1, 50), st.lists(st.booleans(), max_size=300))
def test_retries_are_bounded_by_successes(size: int, events: list[bool]) -> None:
    """In any history, the retries are at most the size and a tenth of the successes."""
    quota = RetryQuota(size=size)
    taken = successes = 0
    for success in events:
        if success:
            quota.on_success()
            successes += 1
        else:
            taken += quota.take()
        assert taken <= size + successes / 10 + 1e-6


# The ticket guard.


def test_a_new_guard_is_open_to_all() -> None:
    """Before any 500, no request is delayed, and none is a probe."""
    guard = TicketGuard()
    assert guard.next_at() == -math.inf
    assert not guard.on_sent()


def test_a_500_holds_everything_for_a_minute() -> None:
    """After the first 500, the next request may go after 60 s."""
    guard = TicketGuard()
    guard.on_internal_error(100.0)
    assert guard.next_at() == 160.0


def test_a_burst_of_500s_counts_once_for_the_pause() -> None:
    """500s to requests that were on the wire at the first one don't lengthen the pause."""
    guard = TicketGuard()
    for late in range(10):
        guard.on_internal_error(100.0 + late)
    assert guard.next_at() == 160.0


def test_every_500_is_counted() -> None:
    """The pause counts a burst of 500s once; the run's budget of 500s counts each."""
    guard = TicketGuard()
    for _ in range(10):
        guard.on_internal_error(100.0)
    assert guard.internal_errors == 10


def test_one_probe_at_a_time() -> None:
    """While the probe is on the wire, no other request may go, however late it gets."""
    guard = TicketGuard()
    guard.on_internal_error(0.0)
    assert guard.on_sent()
    assert guard.next_at() == math.inf


def test_the_pause_doubles_up_to_15_minutes() -> None:
    """Each probe that gets a 500 doubles the pause: 1, 2, 4, 8 and then 15 minutes."""
    guard = TicketGuard()
    now, pauses = 0.0, []
    for _ in range(7):
        guard.on_internal_error(now)
        pauses.append(guard.next_at() - now)
        now = guard.next_at()
        guard.on_sent()
    assert pauses == [60, 120, 240, 480, 900, 900, 900]


def test_a_lost_probe_leaves_the_guard_armed() -> None:
    """A probe whose answer was lost says nothing: the next one goes after half a minute."""
    guard = TicketGuard()
    guard.on_internal_error(0.0)
    guard.on_sent()
    guard.on_probe_answer(60.0, passed=False)
    assert guard.armed
    assert guard.next_at() == 90.0
    assert guard.on_sent()


def test_a_passed_probe_closes_the_guard() -> None:
    """After a probe that passed, all requests may go."""
    guard = TicketGuard()
    guard.on_internal_error(0.0)
    guard.on_sent()
    guard.on_probe_answer(60.0, passed=True)
    assert not guard.armed
    assert guard.next_at() == -math.inf
    assert not guard.on_sent()


def test_a_closed_guard_begins_anew() -> None:
    """The next 500 after a passed probe delays all requests for one minute, not for two."""
    guard = TicketGuard()
    guard.on_internal_error(0.0)
    guard.on_sent()
    guard.on_probe_answer(60.0, passed=True)
    guard.on_internal_error(1000.0)
    assert guard.next_at() == 1060.0


def test_an_answer_to_what_is_no_probe_closes_nothing() -> None:
    """A success of a request that was sent before the 500 doesn't end the pause."""
    guard = TicketGuard()
    guard.on_internal_error(0.0)
    guard.on_probe_answer(60.0, passed=True)
    assert guard.armed
    assert guard.next_at() == 60.0


@given(st.lists(st.sampled_from(["500", "send", "pass", "lose"]), max_size=60))
def test_a_guard_never_admits_two_requests_while_armed(events: list[str]) -> None:
    """In any history, an armed guard admits one request at a time, and a 500 begins its pause."""
    guard, now, flying = TicketGuard(), 0.0, 0
    for event in events:
        if event == "send":
            if guard.next_at() == math.inf:
                assert flying == 1
                continue
            now = max(now, guard.next_at())
            if guard.on_sent():
                flying += 1
                assert flying == 1
        elif event == "500":
            guard.on_internal_error(now)
            flying = 0
            assert guard.armed
            assert guard.next_at() <= now + 900
        elif flying:
            guard.on_probe_answer(now, passed=event == "pass")
            flying = 0
            assert guard.armed == (event == "lose")


# An outage.


def test_no_outage_holds_nothing() -> None:
    """Before any failure, no request is delayed, and no outage is hopeless."""
    outage = Outage()
    assert outage.next_at() == -math.inf
    assert not outage.hopeless(1e9)


@given(CHANCES)
def test_failures_together_count_as_one(chance: float) -> None:
    """64 requests that fail at the same moment make the pause of one."""
    one, many = Outage(), Outage()
    one.on_unsent(0.0, chance)
    for _ in range(64):
        many.on_unsent(0.0, chance)
    assert many.next_at() == one.next_at()


@given(st.lists(CHANCES, min_size=1, max_size=40))
def test_an_outages_pause_is_never_short_nor_long(chances: list[float]) -> None:
    """With any draws, a pause is between half the doubled one and 30 s: no busy loop."""
    outage, now = Outage(), 0.0
    for n, chance in enumerate(chances):
        outage.on_unsent(now, chance)
        full = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2 ** min(n, 30))
        assert full / 2 - 1e-6 <= outage.next_at() - now <= full + 1e-6
        now = outage.next_at()


@given(st.lists(CHANCES, min_size=1, max_size=20))
def test_any_answer_ends_an_outage(chances: list[float]) -> None:
    """After an answer no request is delayed, and the next pause is the shortest again."""
    outage, now = Outage(), 0.0
    for chance in chances:
        outage.on_unsent(now, chance)
        now = outage.next_at()
    outage.on_answer(now + 0.1, now, 0.1)
    assert outage.next_at() == -math.inf
    assert not outage.hopeless(now + 10 * LONGEST_OUTAGE)
    outage.on_unsent(now, 0.0)
    assert outage.next_at() <= now + FIRST_BACKOFF


def test_hope_ends_after_ten_minutes() -> None:
    """An outage is hopeless once it has lasted longer than 600 s since its first failure."""
    outage = Outage()
    outage.on_unsent(100.0, 0.5)
    outage.on_unsent(500.0, 0.5)
    assert not outage.hopeless(700.0)
    assert outage.hopeless(700.1)


# A vendor that takes requests and answers none.


@given(st.floats(0.01, 20), st.integers(4, 64))
def test_silence_is_told_from_slowness(seconds: float, under_way: int) -> None:
    """No answer for three times as long as answers take is silence; for once as long it isn't."""
    outage = Outage()
    outage.on_sent(0.0, 0)
    outage.on_answer(seconds, 0.0, seconds)
    assert not outage.is_silent(2 * seconds, under_way)
    assert outage.is_silent(seconds + max(0.25, 3 * seconds) + 1e-6, under_way)


def test_a_few_requests_are_never_held_for_silence() -> None:
    """With fewer than four on the wire, no request is delayed for silence: few can be lost."""
    outage = Outage()
    outage.on_sent(0.0, 0)
    assert not outage.is_silent(1e6, 3)


def test_idleness_is_no_silence() -> None:
    """After an idle hour, silence counts from the first request."""
    outage = Outage()
    outage.on_answer(0.1, 0.0, 0.1)
    for under_way in range(5):
        outage.on_sent(3600.0 + under_way / 100, under_way)
    assert not outage.is_silent(3600.2, 5)
    assert outage.is_silent(3601.0, 5)


@given(st.lists(CHANCES, min_size=3, max_size=20))
def test_lost_answers_in_a_row_are_an_outage(chances: list[float]) -> None:
    """Two lost answers may be an accident; after the third, one request goes at a time."""
    outage, now = Outage(), 0.0
    for n, chance in enumerate(chances, 1):
        outage.on_lost(now, now, chance)
        assert outage.armed == (n >= 3)
        now = max(now, outage.next_at())
        outage.on_sent(now, 0)
        assert (outage.next_at() == math.inf) == (n >= 3)
    assert outage.on_answer(now + 0.1, now, 0.1)
    assert outage.next_at() == -math.inf


def test_an_answer_between_two_losses_is_no_outage() -> None:
    """While other requests are answered, lost answers delay no request."""
    outage = Outage()
    for n in range(100):
        outage.on_lost(float(n), float(n), 0.5)
        outage.on_answer(n + 0.2, n + 0.1, 0.1)
    assert not outage.armed


def test_an_answer_to_an_older_request_says_nothing() -> None:
    """An answer to a request that was sent before the first failure doesn't end the outage."""
    outage = Outage()
    outage.on_away(10.0, 9.0, 0.5, retry_after=None)
    outage.on_answer(10.1, 8.0, 0.1)
    outage.on_away(10.2, 9.1, 0.5, retry_after=None)
    assert outage.armed
    assert not outage.on_answer(10.3, 8.5, 0.1)
    assert outage.armed


@given(st.lists(CHANCES, min_size=2, max_size=20))
def test_a_gateways_answers_in_a_row_are_an_outage(chances: list[float]) -> None:
    """A single answer of a gateway holds nothing; after the second, requests go one at a time."""
    outage, now = Outage(), 0.0
    for n, chance in enumerate(chances, 1):
        outage.on_away(now, now, chance, retry_after=None)
        assert outage.armed == (n >= 2)
        assert outage.lasted == (n >= 3)
        now = max(now, outage.next_at())
        outage.on_sent(now, 0)
    assert outage.on_answer(now, now, 0.1)
    assert not outage.armed


@given(st.floats(0.1, 3600))
def test_a_gateway_that_names_a_time_is_believed(seconds: float) -> None:
    """One answer with Retry-After delays all requests by that time; a longer time delays more."""
    outage = Outage()
    outage.on_away(0.0, 0.0, 0.5, retry_after=seconds)
    assert outage.armed
    assert outage.next_at() >= seconds
    outage.on_away(0.05, 0.0, 0.5, retry_after=2 * seconds)
    assert outage.next_at() >= 0.05 + 2 * seconds


# Submits whose fate nobody knows.


def test_submits_are_held_after_some_of_an_unknown_fate() -> None:
    """Three lost, or two that a gateway answered, and the next one goes alone, later each time."""
    for enough in (UNKNOWN_IN_A_ROW, AWAY_IN_A_ROW):
        hold, now = SubmitHold(), 0.0
        for n in range(1, enough + 1):
            hold.on_unknown(now, now, enough=enough)
            assert (hold.next_at() > now) == (n == enough)
        gaps = []
        for _ in range(12):
            gaps.append(hold.next_at() - now)
            now = hold.next_at()
            hold.on_sent(now)
            assert hold.next_at() == math.inf
            hold.on_unknown(now, now)
        assert gaps == [min(LONGEST_HOLD, FIRST_HOLD * 2**n) for n in range(12)]


def test_a_submit_whose_fate_is_known_lets_all_go() -> None:
    """Once the single submit is accepted or refused, the other submits follow."""
    hold = SubmitHold()
    for _ in range(3):
        hold.on_unknown(0.0, 0.0)
    hold.on_known(-1.0)
    assert hold.next_at() == FIRST_HOLD, "it was sent before"
    hold.on_sent(FIRST_HOLD)
    hold.on_known(FIRST_HOLD)
    assert hold.next_at() == -math.inf
    hold.on_unknown(9.0, 9.0)
    hold.on_unknown(9.0, 9.0)
    assert hold.next_at() == -math.inf


def test_those_on_the_wire_dont_lengthen_the_hold() -> None:
    """Thirty that were on their way when the vendor went away are one event."""
    hold = SubmitHold()
    for n in range(30):
        hold.on_unknown(n / 100, 0.0)
    assert hold.next_at() == 0.02 + FIRST_HOLD


def test_a_vendor_that_is_back_gets_one_submit_at_once() -> None:
    """The hold of a long outage doesn't outlast it."""
    hold, now = SubmitHold(), 0.0
    for _ in range(3):
        hold.on_unknown(now, now)
    for _ in range(5):
        now = hold.next_at()
        hold.on_sent(now)
        hold.on_unknown(now, now)
    hold.on_vendor_back(now + 1)
    assert hold.next_at() == now + 1


def test_a_held_submit_that_came_to_nothing_is_followed_by_another() -> None:
    """After a held submit whose caller was cancelled, another submit is sent."""
    hold = SubmitHold()
    for _ in range(3):
        hold.on_unknown(0.0, 0.0)
    hold.on_sent(5.0)
    hold.on_no_word(5.0)
    assert hold.next_at() <= 5.0


def test_a_probe_that_came_to_nothing_is_followed_by_another() -> None:
    """After a probe whose caller was cancelled, another probe is sent."""
    outage = Outage()
    outage.on_unsent(0.0, 0.5)
    outage.on_sent(10.0, 0)
    assert outage.next_at() == math.inf
    outage.on_no_word()
    assert outage.next_at() <= 10.0
