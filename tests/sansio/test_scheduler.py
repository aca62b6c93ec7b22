"""The order of queued requests; none is lost, and none comes twice."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segments_async._sansio.pace.scheduler import (
    POLL_GAP_BY_AGE,
    SHORTEST_POLL_GAP,
    Kind,
    PollScheduler,
    QueuedRequest,
    next_poll_at,
)
from segments_async.errors import ConfigurationError

NOW = 100.0
CALL, SUBMIT, POLL = Kind.CALL, Kind.SUBMIT, Kind.POLL


def filled(*kinds: Kind, **options: Any) -> PollScheduler[str]:
    """A scheduler with one request per kind given, all of them due."""
    scheduler: PollScheduler[str] = PollScheduler(**options)
    for n, kind in enumerate(kinds):
        scheduler.add(QueuedRequest(kind, f"{kind.name}{n}"))
    return scheduler


def pop_all(scheduler: PollScheduler[str], now: float = NOW) -> list[str]:
    popped = []
    while (queued := scheduler.pop(now)) is not None:
        popped.append(queued.target)
    return popped


def pop_kinds(scheduler: PollScheduler[str], grants: int) -> list[Kind]:
    """The kinds of the next requests, each of them added again at once."""
    kinds = []
    for _ in range(grants):
        queued = scheduler.pop(NOW)
        assert queued is not None
        kinds.append(queued.kind)
        scheduler.add(queued)
    return kinds


# Refused arguments.


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan, math.inf])
def test_a_share_is_from_0_to_1(share: float) -> None:
    """A poll share below 0, above 1 or NaN is refused."""
    with pytest.raises(ConfigurationError, match="poll_share"):
        PollScheduler[str](poll_share=share)


@pytest.mark.parametrize("cap", [0, -1])
def test_a_cap_is_at_least_1(cap: int) -> None:
    """A cap below 1 is refused: no export could ever be submitted."""
    with pytest.raises(ConfigurationError, match="max_pending"):
        PollScheduler[str](max_pending=cap)


# Empty, and not due.


def test_an_empty_scheduler_wants_nothing() -> None:
    """Without requests there is nothing to pop, now or ever."""
    scheduler: PollScheduler[str] = PollScheduler()
    assert scheduler.pop(NOW) is None
    assert scheduler.next_at(NOW) == math.inf


@pytest.mark.parametrize("kind", [CALL, POLL])
@pytest.mark.parametrize("harmless", [False, True])
def test_nothing_goes_before_its_time(kind: Kind, harmless: bool) -> None:
    """A call or poll that isn't due is not popped, not even if no other request is queued."""
    scheduler: PollScheduler[str] = PollScheduler()
    scheduler.add(QueuedRequest(kind, "later", NOW + 0.001))
    assert scheduler.pop(NOW, harmless=harmless) is None
    assert scheduler.next_at(NOW) == NOW + 0.001


def test_a_call_that_is_not_due_holds_nobody() -> None:
    """A call that isn't due doesn't delay a poll that is."""
    scheduler = filled(POLL)
    scheduler.add(QueuedRequest(CALL, "later", NOW + 1))
    assert pop_all(scheduler) == ["POLL0"]


# Cancelling, and adding again.


@pytest.mark.parametrize("kind", Kind)
def test_what_is_discarded_does_not_come(kind: Kind) -> None:
    """A cancelled request is neither popped nor waited for."""
    scheduler: PollScheduler[str] = PollScheduler()
    queued = QueuedRequest(kind, "dropped")
    scheduler.add(queued)
    scheduler.cancel(queued)
    assert scheduler.next_at(NOW) == math.inf
    assert scheduler.pop(NOW) is None


def test_a_discarded_submit_is_not_pending() -> None:
    """Only a submit that was popped counts against max_pending."""
    scheduler = filled(SUBMIT, max_pending=1)
    queued: QueuedRequest[str] = QueuedRequest(SUBMIT, "dropped", -1000.0)
    scheduler.add(queued)
    scheduler.cancel(queued)
    assert pop_all(scheduler) == ["SUBMIT0"]


def test_discarding_what_is_not_queued_does_nothing() -> None:
    """A request that was never added, or was popped already, may be cancelled too."""
    scheduler = filled(POLL)
    scheduler.cancel(QueuedRequest(POLL, "stranger"))
    popped = scheduler.pop(NOW)
    assert popped is not None
    scheduler.cancel(popped)
    assert scheduler.pop(NOW) is None


def test_what_is_discarded_may_come_back() -> None:
    """A request that is added again after it was cancelled comes once."""
    scheduler = filled()
    queued: QueuedRequest[str] = QueuedRequest(POLL, "back")
    for _ in range(3):
        scheduler.add(queued)
        scheduler.cancel(queued)
    scheduler.add(queued)
    assert pop_all(scheduler) == ["back"]


def test_adding_again_replaces() -> None:
    """A request that is added twice, with two times, is sent once, at the later call's time."""
    scheduler = filled()
    queued: QueuedRequest[str] = QueuedRequest(POLL, "moved", NOW)
    scheduler.add(queued)
    queued.key = NOW + 5
    scheduler.add(queued)
    assert scheduler.next_at(NOW) == NOW + 5
    assert pop_all(scheduler) == []
    assert pop_all(scheduler, NOW + 5) == ["moved"]


def test_a_submit_that_comes_back_goes_last_among_its_equals() -> None:
    """After a 429, a submit goes after the queued ones with the same expected seconds."""
    scheduler = filled(SUBMIT, SUBMIT, SUBMIT)
    first = scheduler.pop(NOW)
    assert first is not None
    scheduler.add(first)
    assert pop_all(scheduler) == ["SUBMIT1", "SUBMIT2", "SUBMIT0"]


# The order.


@given(st.lists(st.floats(0, 1e5), max_size=30))
def test_longest_expected_first(seconds: list[float]) -> None:
    """Submits go by expected duration, longest first, and equals in the order they came."""
    scheduler = filled()
    for n, expected in enumerate(seconds):
        scheduler.add(QueuedRequest(SUBMIT, str(n), -expected))
    order = sorted(range(len(seconds)), key=lambda n: (-seconds[n], n))
    assert pop_all(scheduler) == [str(n) for n in order]


@given(st.lists(st.floats(0, NOW), max_size=30))
def test_polls_by_due_time(times: list[float]) -> None:
    """Polls go by the time they are due, the most overdue first."""
    scheduler = filled()
    for n, due in enumerate(times):
        scheduler.add(QueuedRequest(POLL, str(n), due))
    order = sorted(range(len(times)), key=lambda n: (times[n], n))
    assert pop_all(scheduler) == [str(n) for n in order]


def test_calls_in_the_order_they_came() -> None:
    """Calls that may go at once go first come, first served."""
    scheduler = filled()
    for n in range(10):
        scheduler.add(QueuedRequest(CALL, str(n), -math.inf))
    assert pop_all(scheduler) == [str(n) for n in range(10)]


@pytest.mark.parametrize("others", [(SUBMIT,), (POLL,), (SUBMIT, POLL)])
def test_a_call_goes_first(others: tuple[Kind, ...]) -> None:
    """A call that comes while submits or polls wait is the next to go."""
    scheduler = filled(*others)
    scheduler.add(QueuedRequest(CALL, "call"))
    assert pop_kinds(scheduler, 1) == [CALL]


@pytest.mark.parametrize("others", [(SUBMIT,), (POLL,), (SUBMIT, POLL)])
def test_calls_never_starve_others(others: tuple[Kind, ...]) -> None:
    """However many calls wait, at least every other grant is a submit's or a poll's."""
    kinds = pop_kinds(filled(*[CALL] * 5, *others), 100)
    assert kinds.count(CALL) == 50
    assert all(CALL in pair and pair != (CALL, CALL) for pair in itertools.pairwise(kinds))


@pytest.mark.parametrize("share", [0, 0.2, 1])
def test_calls_never_starve(share: float) -> None:
    """However many submits and polls wait, every other grant is a call's, whatever the share."""
    kinds = pop_kinds(filled(CALL, *[SUBMIT, POLL] * 50, poll_share=share), 100)
    assert kinds.count(CALL) == 50


def test_calls_alone_go_one_after_another() -> None:
    """If only calls are queued, they are sent one after another without a turn for polls."""
    assert pop_kinds(filled(CALL, CALL), 10) == [CALL] * 10


# The poll share.


@pytest.mark.parametrize("share", [n / 20 for n in range(21)])
def test_shares_are_exact(share: float) -> None:
    """While submits wait, of 2 000 grants the polls get exactly their share."""
    kinds = pop_kinds(filled(SUBMIT, POLL, poll_share=share), 2000)
    assert kinds.count(POLL) == round(2000 * share)


@given(st.floats(0, 1), st.integers(1, 500))
def test_shares_are_spread_evenly(share: float, grants: int) -> None:
    """After any number of grants, the polls have had their share of them, rounded down."""
    polls = pop_kinds(filled(SUBMIT, POLL, poll_share=share), grants).count(POLL)
    assert share * grants - 1 <= polls + 1e-6
    assert polls <= share * grants + 1e-6


def test_every_fifth_grant_is_a_polls() -> None:
    """With the default share, four submits are followed by a poll."""
    assert pop_kinds(filled(SUBMIT, POLL), 10) == ([SUBMIT] * 4 + [POLL]) * 2


def test_calls_take_nothing_of_the_polls_share() -> None:
    """The share is of the grants that aren't calls."""
    kinds = pop_kinds(filled(CALL, SUBMIT, POLL), 400)
    assert Counter(kinds) == {CALL: 200, SUBMIT: 160, POLL: 40}


def test_polls_alone_take_every_grant() -> None:
    """With nothing to submit, polls go whatever their share."""
    assert pop_kinds(filled(POLL, poll_share=0), 10) == [POLL] * 10


def test_submits_alone_take_every_grant() -> None:
    """With nothing to poll, submits go whatever the polls' share."""
    assert pop_kinds(filled(SUBMIT, poll_share=1), 10) == [SUBMIT] * 10


def test_no_credit_is_saved_while_no_poll_waits() -> None:
    """Polls that become due after a hundred submits have no claim to the grants before."""
    scheduler = filled(SUBMIT)
    pop_kinds(scheduler, 100)
    for n in range(100):
        scheduler.add(QueuedRequest(POLL, str(n)))
    assert pop_kinds(scheduler, 100).count(POLL) == 20


# The cap.


def test_no_more_are_pending_than_the_cap() -> None:
    """With max_pending exports at work, no submit is popped, and `next_at` ignores submits."""
    scheduler = filled(*[SUBMIT] * 5, max_pending=2)
    assert pop_all(scheduler) == ["SUBMIT0", "SUBMIT1"]
    assert scheduler.next_at(NOW) == math.inf


def test_each_end_lets_one_in() -> None:
    """An export that ends makes room for the next submit, and for one only."""
    scheduler = filled(*[SUBMIT] * 5, max_pending=2)
    pop_all(scheduler)
    scheduler.ended()
    assert scheduler.next_at(NOW) <= NOW
    assert pop_all(scheduler) == ["SUBMIT2"]


def test_capped_submits_leave_the_grants_to_polls() -> None:
    """Submits that may not go don't count as waiting: polls take every grant, with any share."""
    scheduler = filled(SUBMIT, SUBMIT, *[POLL] * 5, max_pending=1, poll_share=0)
    kinds = [queued.kind for _ in range(6) if (queued := scheduler.pop(NOW))]
    assert kinds == [SUBMIT] + [POLL] * 5


# The guard's probe.


@pytest.mark.parametrize(
    ("others", "kind"), [([CALL], CALL), ([POLL], POLL), ([CALL, POLL], POLL), ([], SUBMIT)]
)
def test_a_harmless_request_is_preferred(others: list[Kind], kind: Kind) -> None:
    """For the guard's probe a poll goes first, then a call, then a submit."""
    scheduler = filled(SUBMIT, *others, poll_share=0)
    for _ in range(3):
        queued = scheduler.pop(NOW, harmless=True)
        assert queued is not None
        assert queued.kind is kind
        scheduler.add(queued)


# Any history.

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from(Kind), st.floats(-100, 100)),
        st.tuples(st.just("pop"), st.booleans(), st.floats(0, 5)),
        st.tuples(st.just("cancel"), st.integers(0, 200), st.just(0.0)),
        st.tuples(st.just("again"), st.integers(0, 200), st.floats(-100, 100)),
        st.tuples(st.just("ended"), st.none(), st.just(0.0)),
    ),
    max_size=120,
)


@given(OPERATIONS, st.floats(0, 1), st.none() | st.integers(1, 5))
def test_nothing_is_lost_and_nothing_comes_twice(
    operations: list[tuple[str, Any, float]], share: float, cap: int | None
) -> None:
    """Every request comes once unless cancelled, when due, under the cap, as `next_at` says."""
    scheduler: PollScheduler[int] = PollScheduler(poll_share=share, max_pending=cap)
    requests: list[QueuedRequest[int]] = []
    expected: set[int] = set()
    now, pending = 0.0, 0

    def pop(*, harmless: bool) -> bool:
        nonlocal pending
        due = scheduler.next_at(now) <= now
        queued = scheduler.pop(now, harmless=harmless)
        assert (queued is not None) == due
        if queued is None:
            return False
        expected.remove(queued.target)  # KeyError where it comes twice, or was cancelled
        if queued.kind is SUBMIT:
            pending += 1
            assert pending <= (cap or math.inf)
        else:
            assert queued.key <= now
        return True

    def end_all() -> None:
        nonlocal pending
        for _ in range(pending):
            scheduler.ended()
        pending = 0

    for operation, what, number in operations:
        if operation == "add":
            requests.append(QueuedRequest(what, len(requests), number))
            scheduler.add(requests[-1])
            expected.add(requests[-1].target)
        elif operation == "pop":
            now += number
            pop(harmless=what)
        elif operation == "ended" and pending:
            pending -= 1
            scheduler.ended()
        elif operation in ("cancel", "again") and requests:
            queued = requests[what % len(requests)]
            if operation == "cancel":
                scheduler.cancel(queued)
                expected.discard(queued.target)
            else:
                queued.key = number
                scheduler.add(queued)
                expected.add(queued.target)
    now += 1000.0
    end_all()
    while pop(harmless=False):
        end_all()
    assert expected == set()


# How long a poll waits.


@given(
    st.lists(st.floats(0, NOW), min_size=1, max_size=40),
    st.integers(0, 60),
    st.floats(0.05, 1),
    st.booleans(),
)
def test_a_poll_waits_for_those_due_before_it(
    times: list[float], submits: int, share: float, calling: bool
) -> None:
    """The k-th poll by due time gets one of the next k/share grants, twice as many beside calls."""
    scheduler = filled(*[SUBMIT] * submits, poll_share=share)
    if calling:
        scheduler.add(QueuedRequest(CALL, "call"))
    for time in times:
        scheduler.add(QueuedRequest(POLL, "poll", time))
    seen = 0
    for grant in itertools.count(1):
        queued = scheduler.pop(NOW)
        assert queued is not None
        if queued.kind is POLL:
            seen += 1
            most = math.ceil(seen / share + 1e-6) * (2 if calling else 1) + calling
            assert grant <= most
        else:
            scheduler.add(queued)  # the stream of submits and calls never ends
        if seen == len(times):
            break


@given(st.lists(st.floats(0, 4), min_size=2, max_size=30), st.floats(0.5, 50))
def test_every_export_is_polled_again(ages: list[float], rate: float) -> None:
    """Each of n waiting exports is polled again within its least gap and n + 1 grants."""
    scheduler: PollScheduler[tuple[float, int]] = PollScheduler()
    asked: dict[tuple[float, int], float] = {}
    for number, age in enumerate(ages):
        submitted_at = NOW - age - number * 1e-3
        target = (submitted_at, number)  # two may have been submitted at once
        scheduler.add(QueuedRequest(POLL, target, next_poll_at(NOW, submitted_at)))
        asked[target] = NOW
    now = NOW
    for _ in range(10 * len(ages)):
        now = max(now + 1 / rate, scheduler.next_at(now))
        queued = scheduler.pop(now)
        assert queued is not None
        last = asked[queued.target]
        floor = max(SHORTEST_POLL_GAP, POLL_GAP_BY_AGE * (last - queued.target[0]))
        assert floor - 1e-6 <= now - last <= floor + (len(ages) + 1) / rate + 1e-6
        asked[queued.target] = now
        queued.key = next_poll_at(now, queued.target[0])
        scheduler.add(queued)


# When to poll again.


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_the_gap_between_polls_grows_with_age(submitted_at: float, age: float) -> None:
    """The next poll is half a second away, or a fiftieth of the export's age where that is more."""
    now = submitted_at + age
    gap = next_poll_at(now, submitted_at) - now
    assert gap >= SHORTEST_POLL_GAP - 1e-6
    assert gap == pytest.approx(max(SHORTEST_POLL_GAP, POLL_GAP_BY_AGE * age), abs=1e-6)


def test_a_long_export_takes_few_polls() -> None:
    """An export of an hour, polled as early as allowed, takes some hundred polls."""
    now, polls = 0.0, 0
    while now < 3600:
        now, polls = next_poll_at(now, 0.0), polls + 1
    assert polls < 400
