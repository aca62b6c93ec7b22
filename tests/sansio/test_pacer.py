"""When the next request may go: claims about the pacer that hold for any constants.

The vendor is simulated: a limiter, a fixed time per answer, and requests that always wait.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segments_async._sansio.pace.pacer import CATCH_UP, Pacer
from segments_async.errors import ConfigurationError
from segments_async.sandbox import ContendedLimit, FixedWindow, TokenBucket

SLOTS = 64
CHANCES = st.floats(0, 1, exclude_max=True)


class Bucket:
    """A token bucket: `rate` tokens/s up to `burst`; a refused request takes none."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate, self.burst = rate, burst
        self._level, self._at = burst, 0.0

    def admit(self, now: float) -> bool:
        self._level = min(self.burst, self._level + (now - self._at) * self.rate)
        self._at = now
        if self._level < 1 - 1e-9:
            return False
        self._level -= 1
        return True

    def wait(self) -> float:
        return (1 - self._level) / self.rate


@attrs.define
class Record:
    """When each request was sent, and when it was accepted or refused."""

    sent: list[float] = attrs.field(factory=list)
    accepted: list[float] = attrs.field(factory=list)
    throttled: list[float] = attrs.field(factory=list)

    def between(self, start: float, end: float) -> tuple[int, int]:
        return (
            sum(start <= at < end for at in self.accepted),
            sum(start <= at < end for at in self.throttled),
        )


def drive(
    pacer: Pacer,
    admit: Callable[[float], bool],
    *,
    start: float = 0.0,
    until: float,
    latency: float = 0.1,
    retry_after: Callable[[], float] | None = None,
    seed: int = 0,
    enough: float = math.inf,
) -> Record:
    """Requests that always wait, and a vendor that answers each after `latency` seconds.

    Until `until`, or until `enough` requests were accepted.
    """
    record, chance = Record(), random.Random(seed)
    flying: deque[tuple[float, int, bool, float | None]] = deque()
    now = start
    while now < until and len(record.accepted) < enough:
        at = pacer.next_at() if len(flying) < SLOTS else math.inf
        answered = flying[0][0] if flying else math.inf
        if at <= now and answered > now:
            epoch = pacer.take(now)
            admitted = admit(now)
            pause = None if admitted or retry_after is None else retry_after()
            flying.append((now + latency, epoch, admitted, pause))
            record.sent.append(now)
            continue
        if len(flying) < SLOTS:
            pacer.on_waiting()
        else:
            pacer.on_idle()
        assert min(at, answered) < math.inf, "nobody will ever send again"
        now = max(now, min(at, answered))
        if now == answered:
            _, epoch, admitted, pause = flying.popleft()
            if admitted:
                record.accepted.append(now)
                pacer.on_accepted(now, epoch)
            else:
                record.throttled.append(now)
                pacer.on_throttled(now, epoch, retry_after=pause, chance=chance.random())
    return record


def least_seconds(limit: ContendedLimit, requests: int) -> float:
    """The least seconds in which the limit grants so many requests."""
    low, high = 0.0, 1.0
    while limit.admitted_by(high) < requests:
        high *= 2
    while high - low > 0.01:
        middle = (low + high) / 2
        low, high = (low, middle) if limit.admitted_by(middle) >= requests else (middle, high)
    return high


def most_in(times: list[float], seconds: float) -> int:
    """The most of these times within any span of so many seconds."""
    most = first = 0
    for n, at in enumerate(times):
        while at - times[first] > seconds:
            first += 1
        most = max(most, n - first + 1)
    return most


def throttle(
    pacer: Pacer, now: float, epoch: int, *, retry_after: float | None = None, chance: float = 0.5
) -> None:
    pacer.on_throttled(now, epoch, retry_after=retry_after, chance=chance)


# Refused arguments.


@pytest.mark.parametrize("rate", [0, 0.0, -0.0, -1, -0.5, math.nan, -math.inf])
def test_a_rate_is_above_zero(rate: float) -> None:
    """Zero, a negative rate and NaN are refused."""
    with pytest.raises(ConfigurationError, match="rate"):
        Pacer(rate=rate)


# A 429.


@given(
    st.lists(st.tuples(st.floats(0, 5), st.none() | st.floats(0.01, 3600), CHANCES), max_size=30),
    st.sampled_from([None, 1.0, 20.0, math.inf]),
)
def test_everybody_waits_for_the_longest_retry_after(
    refusals: list[tuple[float, float | None, float]], rate: float | None
) -> None:
    """After any 429s of any epoch, no request goes before the end of each Retry-After."""
    pacer, now, hold = Pacer(rate=rate), 0.0, -math.inf
    epochs = [pacer.take(now)]
    for n, (later, retry_after, chance) in enumerate(refusals):
        now += later
        throttle(pacer, now, epochs[n // 2], retry_after=retry_after, chance=chance)
        hold = max(hold, now + (retry_after or 0.0))
        assert pacer.next_at() >= hold
        epochs.append(pacer.take(now))


def test_a_success_does_not_end_a_retry_after() -> None:
    """Answers that come during the pause, also of requests sent after the 429, don't end it."""
    pacer = Pacer(rate=10)
    old = pacer.take(0.0)
    throttle(pacer, 1.0, old, retry_after=30.0)
    new = pacer.take(1.0)
    pacer.on_accepted(2.0, old)
    pacer.on_accepted(3.0, new)
    assert pacer.next_at() >= 31.0


@pytest.mark.parametrize("rate", [None, 0.5, 20.0, math.inf])
def test_a_429_without_retry_after_holds_too(rate: float | None) -> None:
    """A 429 without Retry-After delays all requests too, by a time that depends on chance."""
    ends = set()
    for chance in (0.0, 0.9):
        pacer = Pacer(rate=rate)
        throttle(pacer, 100.0, pacer.take(99.9), chance=chance)
        ends.add(pacer.next_at())
    assert min(ends) > 100.0
    assert len(ends) == 2


@given(st.integers(0, 63), CHANCES)
def test_a_burst_cuts_once(more: int, chance: float) -> None:
    """429s of requests that were sent before the first one came don't cut again."""
    one, many = Pacer(), Pacer()
    for pacer, refusals in ((one, 1), (many, 1 + more)):
        epochs = [pacer.take(n / 100) for n in range(64)]
        for epoch in epochs[:refusals]:
            throttle(pacer, 1.0, epoch, chance=chance)
        at = pacer.next_at()
        pacer.on_accepted(at + 0.1, pacer.take(at))
    assert many.rate == one.rate
    assert many.next_at() == one.next_at()


def test_every_429_is_counted() -> None:
    """`throttled` counts answers, not cuts."""
    pacer = Pacer()
    epochs = [pacer.take(0.0) for _ in range(10)]
    for epoch in epochs:
        throttle(pacer, 1.0, epoch)
    assert pacer.throttled == 10


def test_a_block_has_one_probe() -> None:
    """Between a 429 and the first success after it, one request is on the wire at a time."""
    pacer = Pacer(rate=1000)
    throttle(pacer, 0.0, pacer.take(0.0))
    probed = pacer.next_at()
    pacer.take(probed)
    assert pacer.next_at() > probed + 1.0


@given(st.integers(1, 40), st.booleans(), CHANCES)
def test_a_lost_probe_does_not_stop_it_for_ever(probes: int, told: bool, chance: float) -> None:
    """Whether a probe's loss is reported or the probe just hangs, another goes within 10 s."""
    pacer = Pacer()
    throttle(pacer, 0.0, pacer.take(0.0))
    now = pacer.next_at()
    for _ in range(probes):
        epoch = pacer.take(now)
        if told:
            pacer.on_lost(now + 0.1, epoch, chance)
        after = pacer.next_at()
        assert now < after <= now + 10.0
        now = after


def test_a_lost_request_is_no_evidence() -> None:
    """Outside of a block, a lost answer changes neither the rate nor the next time."""
    pacer, twin = Pacer(), Pacer()
    pacer.on_lost(1.0, pacer.take(0.0), 0.5)
    twin.take(0.0)
    assert (pacer.rate, pacer.next_at()) == (twin.rate, twin.next_at())


def test_never_at_once_after_a_block() -> None:
    """The first success after a 429 lets the next request go at the new spacing, not at once."""
    pacer = Pacer()
    throttle(pacer, 0.0, pacer.take(0.0))
    at = pacer.next_at()
    pacer.on_accepted(at + 0.1, pacer.take(at))
    assert pacer.rate is not None
    assert pacer.next_at() == pytest.approx(at + 0.1 + 1 / pacer.rate)


# Growth.


@given(st.lists(st.floats(0.001, 10), min_size=1, max_size=200), st.sampled_from([None, 5.0]))
def test_it_never_grows_while_nobody_waits(gaps: list[float], rate: float | None) -> None:
    """The rate stays where it is, for any number of accepted requests, while none waits."""
    pacer, now = Pacer(rate=rate), 0.0
    pacer.on_waiting()
    pacer.on_accepted(0.0, pacer.take(0.0))
    before = pacer.rate
    pacer.on_idle()
    for gap in gaps:
        now = max(now + gap, pacer.next_at())
        pacer.on_accepted(now, pacer.take(now))
        assert pacer.rate == before


def test_it_grows_while_somebody_waits() -> None:
    """While requests wait and no 429 comes, the rate is tenfold within 20 s."""
    pacer = Pacer()
    first = pacer.rate
    drive(pacer, lambda _: True, until=20.0)
    assert first is not None
    assert pacer.rate is not None
    assert pacer.rate > 10 * first


# Spacing.


def test_idleness_saves_up_no_burst() -> None:
    """After an idle hour, requests are as far apart as before, but for a timer's lateness."""
    pacer = Pacer(rate=10)
    pacer.take(0.0)
    record = drive(pacer, lambda _: True, start=3600.0, until=3610.0)
    assert most_in(record.sent, 1.0) <= 12


def test_a_late_timer_is_caught_up() -> None:
    """Timers that are a little late each time don't lower the mean rate."""
    pacer, now = Pacer(rate=20), 0.0
    for _ in range(1000):
        now = max(now, pacer.next_at()) + 0.01
        pacer.take(now)
    assert now <= 1000 / 20 * 1.01


@settings(deadline=None, max_examples=60)
@given(
    rate=st.floats(0.3, 200),
    limit=st.floats(0.2, 300),
    burst=st.integers(1, 100),
    latency=st.floats(0.001, 2),
    pause=st.none() | st.floats(0.1, 20),
    seed=st.integers(0, 1000),
)
def test_a_told_rate_is_never_exceeded(
    rate: float, limit: float, burst: int, latency: float, pause: float | None, seed: int
) -> None:
    """In no span do more requests go than a given rate allows, with any answers."""
    record = drive(
        Pacer(rate=rate),
        Bucket(limit, burst).admit,
        until=min(300 / rate, 120),
        latency=latency,
        retry_after=None if pause is None else lambda: pause,
        seed=seed,
    )
    for window in (1 / rate, 1.0, 10.0, 60.0):
        assert most_in(record.sent, window) <= rate * (window + CATCH_UP) + 1 + 1e-6


def test_a_told_rate_does_not_grow() -> None:
    """A given rate stays the upper bound, however long requests wait without a 429."""
    pacer = Pacer(rate=20)
    record = drive(pacer, lambda _: True, until=500.0)
    assert pacer.rate is not None
    assert pacer.rate <= 20
    assert most_in(record.sent, 60.0) <= 20 * (60.0 + CATCH_UP) + 1


@given(st.floats(0.1, 1000))
def test_a_told_rate_is_used(rate: float) -> None:
    """On a vendor without a limit, a given rate is used to within 5 %."""
    until = 500 / rate
    latency = min(0.1, 10 / rate)  # 64 slots would be the limit else
    record = drive(Pacer(rate=rate), lambda _: True, until=until, latency=latency)
    assert len(record.sent) >= 0.95 * rate * until - 1


def test_a_told_rate_is_shown() -> None:
    """`rate` is the rate sent at most now: at first, the given one."""
    assert Pacer(rate=20).rate == 20


@given(st.lists(st.floats(0, 1), max_size=200))
def test_no_pacing_before_the_first_429(gaps: list[float]) -> None:
    """With `rate=math.inf`, every request may go at once, and no rate is shown."""
    pacer, now = Pacer(rate=math.inf), 0.0
    for gap in gaps:
        now += gap
        assert pacer.next_at() <= now
        pacer.on_accepted(now, pacer.take(now))
        assert pacer.rate is None


def test_the_first_429_ends_unpaced_sending() -> None:
    """With `rate=math.inf`, a 429 makes the rate a finite one from then on."""
    pacer = Pacer(rate=math.inf)
    throttle(pacer, 1.0, pacer.take(0.0))
    assert pacer.rate is not None
    assert pacer.rate < math.inf


# Learning.

LIMITS = [(1, 5), (10, 20), (23, 46), (50, 100), (100, 200)]


@pytest.mark.parametrize(("rate", "burst"), LIMITS)
@pytest.mark.parametrize("retry_after", [False, True])
def test_the_limit_is_found_and_used(rate: int, burst: int, retry_after: bool) -> None:
    """After some hundred requests, at least 0.9 of a token bucket's limit is used."""
    bucket, learnt = Bucket(rate, burst), 600 / rate
    pause = bucket.wait if retry_after else None
    record = drive(Pacer(), bucket.admit, until=3 * learnt, retry_after=pause)
    accepted, _ = record.between(learnt, 3 * learnt)
    assert accepted >= 0.9 * rate * 2 * learnt


@pytest.mark.parametrize(("rate", "burst"), LIMITS)
@pytest.mark.parametrize("retry_after", [False, True])
def test_the_limit_is_kept(rate: int, burst: int, retry_after: bool) -> None:
    """After some hundreds of requests, at most every twentieth is refused."""
    bucket, learnt = Bucket(rate, burst), 600 / rate
    pause = bucket.wait if retry_after else None
    record = drive(Pacer(), bucket.admit, until=3 * learnt, retry_after=pause)
    accepted, throttled = record.between(learnt, 3 * learnt)
    assert throttled <= 0.05 * (accepted + throttled)


@given(st.integers(2, 100), st.floats(0.5, 2.0), st.integers(0, 2**16))
def test_once_learnt_no_window_has_more_than_is_granted(rate: int, saved: float, seed: int) -> None:
    """After the search no second, and no ten seconds, have over 1.1 times the rate and a burst.

    Refused requests are included, since the vendor has to answer them, too.
    """
    burst = max(2.0, saved * rate)
    learnt = 5 + 600 / rate
    record = drive(Pacer(), Bucket(rate, burst).admit, until=2 * learnt, seed=seed)
    sent = [at for at in record.sent if at >= learnt]
    for seconds in (1.0, 10.0):
        assert most_in(sent, seconds) <= 1.1 * rate * seconds + burst


@pytest.mark.parametrize("start", [5.0, 400.0, math.inf])
def test_any_start_finds_the_limit(start: float) -> None:
    """A given rate below the limit is kept; a rate far above it, or none, leads to the limit."""
    bucket = Bucket(50, 100)
    record = drive(Pacer(rate=start), bucket.admit, until=60.0)
    accepted, throttled = record.between(20.0, 60.0)
    assert accepted >= 0.85 * min(50, start) * 40
    assert throttled <= 0.05 * (accepted + throttled)


@pytest.mark.parametrize(("before", "after"), [(50, 10), (10, 50)])
def test_a_limit_that_moves_is_followed(before: int, after: int) -> None:
    """Two minutes after the limit has fallen or risen fivefold, 0.8 of the new limit is used."""
    pacer, bucket = Pacer(), Bucket(before, 2 * before)
    drive(pacer, bucket.admit, until=120.0)
    bucket.rate, bucket.burst = after, 2 * after
    record = drive(pacer, bucket.admit, start=120.0, until=420.0)
    accepted, _ = record.between(240.0, 420.0)
    assert accepted >= 0.8 * after * 180


def test_an_idle_hour_is_not_taken_for_a_limit() -> None:
    """After an idle hour, a second run uses at least 0.9 of the limit from its beginning."""
    pacer, bucket = Pacer(), Bucket(50, 100)
    drive(pacer, bucket.admit, until=60.0)
    pacer.on_idle()
    record = drive(pacer, bucket.admit, start=3660.0, until=3720.0)
    assert len(record.accepted) >= 0.9 * 50 * 60


# A limit that another user has used up.


def seconds_for(
    requests: int, limit: ContendedLimit, *, seed: int, stop: float, told: float | None = None
) -> tuple[float, int]:
    """The seconds until so many requests were accepted, and the number of 429s until then.

    Args:
        requests: how many.
        limit: what admits or refuses.
        seed: of chance.
        stop: seconds after which nobody waits any longer.
        told: the Retry-After of each 429, in seconds; None for none.
    """
    counter = limit.counter()
    record = drive(
        Pacer(),
        lambda now: counter.admit(now) is None,
        until=stop,
        retry_after=None if told is None else lambda: told,
        seed=seed,
        enough=requests,
    )
    assert len(record.accepted) >= requests, f"{len(record.accepted)} accepted in {stop} s"
    return record.accepted[requests - 1], len(record.throttled)


@pytest.mark.parametrize("seconds", [10, 30, 60, 90])
@pytest.mark.parametrize("left", [0, 20])
@pytest.mark.parametrize("requests", [20, 120, 600])
def test_a_window_that_is_used_up_is_waited_for_and_no_longer(
    seconds: int, left: int, requests: int
) -> None:
    """After a used-up window, a run takes at most a quarter, a window and 10 s more than the least.

    The same holds for a window with twenty requests left.
    """
    window = FixedWindow(10 * seconds, seconds, seconds / 6)
    limit = ContendedLimit(window, used=((0.0, window.limit - left),))
    asked = 1.25 * least_seconds(limit, requests) + seconds + 10.0
    for seed in range(3):
        seconds_for(requests, limit, seed=seed, stop=asked)


@pytest.mark.parametrize("after", [None, TokenBucket(20, 20)])
@pytest.mark.parametrize("seconds", [4.0, 30.0, 90.0])
@pytest.mark.parametrize("requests", [20, 120, 600])
def test_429s_at_the_start_leave_no_low_belief(
    after: TokenBucket | None, seconds: float, requests: int
) -> None:
    """429s at the start leave no low estimate: all pass within 1.25 of the time and 10 s."""
    limit = ContendedLimit(after, used_up=((0.0, seconds),))
    asked = 1.25 * least_seconds(limit, requests) + 10.0
    for seed in range(3):
        seconds_for(requests, limit, seed=seed, stop=asked)


@pytest.mark.parametrize("accepted", [5, 15, 30, 100])
@pytest.mark.parametrize("seconds", [5.0, 50.0])
def test_a_block_after_few_requests_leaves_no_low_belief(accepted: int, seconds: float) -> None:
    """Another user uses the limit up after a few requests: the next hundred are no slower."""
    begins = accepted / 10
    limit = ContendedLimit(TokenBucket(10, 20), used_up=((begins, begins + seconds),))
    requests = accepted + 100
    asked = 1.25 * least_seconds(limit, requests) + 10.0
    for seed in range(3):
        seconds_for(requests, limit, seed=seed, stop=asked)


@given(
    rate=st.floats(2, 100),
    first=st.lists(st.tuples(st.floats(0.1, 5), st.floats(0.1, 60)), min_size=1, max_size=5),
    told=st.none() | st.sampled_from([0.1, 1.0, 10.0]),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=40)
def test_whatever_was_refused_before_the_rate_comes_back(
    rate: float, first: list[tuple[float, float]], told: float | None, seed: int
) -> None:
    """A minute after others have stopped using the limit up, at least half of it is used.

    Where Retry-After is far longer than the limiter needs, an eighth is used: finding out is dear
    then. In most of these cases nearly all of the limit is used.
    """
    spans, end = [], 0.0
    for free, refused in first:
        spans.append((end + free, end + free + refused))
        end = spans[-1][1]
    counter = ContendedLimit(TokenBucket(rate, 2 * rate + 1), used_up=spans).counter()
    record = drive(
        Pacer(),
        lambda now: counter.admit(now) is None,
        until=end + 120.0,
        retry_after=None if told is None else lambda: told,
        seed=seed,
    )
    accepted, _ = record.between(end + 60.0, end + 120.0)
    assert accepted >= rate * 60.0 * (1 / 8 if told == 10.0 else 1 / 2) - 1


@pytest.mark.parametrize(
    ("rate", "told", "used_up"),
    [
        # Two full buckets that happened to hold nearly the same number of requests, no window.
        (92.1, None, [(2.4, 5.9), (9.8, 62.4)]),
        (14.5, None, [(5.0, 17.4), (21.1, 49.6)]),
        (69.0, 10.0, [(3.4, 12.1), (16.0, 18.8), (19.8, 49.7), (53.3, 102.0), (105.8, 143.3)]),
        (14.3, 0.1, [(1.7, 4.8), (9.7, 53.5), (57.6, 60.9), (63.4, 63.7)]),
        # Few requests each time: no estimate that is worth keeping to.
        (69.0, None, [(4.3, 31.9), (36.6, 38.6), (42.5, 44.2), (48.0, 50.6), (55.3, 56.7)]),
        (2.0, None, [(4.7, 9.1), (13.6, 15.7), (20.6, 21.3), (23.9, 25.2)]),
        # The rate had grown far above the mean of its interval.
        (69.0, 10.0, [(4.0, 35.0), (36.0, 55.0)]),
    ],
)
def test_coincidence_leaves_no_low_belief(
    rate: float, told: float | None, used_up: list[tuple[float, float]]
) -> None:
    """Others' use that looks like a window or a low limit: a minute later, the limit is used."""
    end = used_up[-1][1]
    for seed in range(3):
        counter = ContendedLimit(TokenBucket(rate, 2 * rate + 1), used_up=used_up).counter()
        record = drive(
            Pacer(),
            lambda now, counter=counter: counter.admit(now) is None,
            until=end + 120.0,
            retry_after=None if told is None else lambda: told,
            seed=seed,
        )
        accepted, _ = record.between(end + 60.0, end + 120.0)
        assert accepted >= rate * 60.0 * (0.35 if told == 10.0 else 0.8)


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("rate", [2, 10, 50])
def test_somebody_else_from_time_to_time_drives_no_spiral(rate: int, share: float) -> None:
    """Another user who empties the bucket every 30 s, or holds it for 9 s, causes no spiral.

    The pacer uses a good part of the remaining limit, in the last of ten minutes as in the first.
    """
    spans = [(30.0 * k + 15.0, 30.0 * (k + share) + 15.0) for k in range(20)]
    counter = ContendedLimit(TokenBucket(rate, 2 * rate), used_up=spans).counter()
    record = drive(Pacer(), lambda now: counter.admit(now) is None, until=600.0)
    for start in (60.0, 540.0):
        accepted, _ = record.between(start, start + 60.0)
        assert accepted >= 0.4 * (1 - share) * rate * 60.0


@pytest.mark.parametrize(("rate", "told"), [(10, 60.0), (20, 89.0)])
def test_a_retry_after_that_is_far_too_long_is_met_rarely(rate: int, told: float) -> None:
    """A vendor that asks for a minute or more with each 429 gives few 429s.

    Each interval then begins with a bucket's saved-up burst, which must not count as the rate.
    """
    limit = ContendedLimit(TokenBucket(rate, 2 * rate))
    seconds_for(3000, limit, seed=0, stop=3000 / rate + 6 * told, told=told)


@pytest.mark.parametrize("window", [FixedWindow(100, 10, 2), FixedWindow(300, 30, 7)])
def test_a_window_costs_few_429s(window: FixedWindow) -> None:
    """A thousand requests in windows cost at most 15 refusals, and 15 more to find the window."""
    for seed in range(3):
        limit = ContendedLimit(window)
        asked = 1.3 * least_seconds(limit, 6000) + window.seconds
        _, refused = seconds_for(6000, limit, seed=seed, stop=asked)
        assert refused <= 0.015 * 6000 + 15


@pytest.mark.parametrize("window", [FixedWindow(22, 10), FixedWindow(30, 30)])
def test_a_small_window_is_recognised_wherever_in_it_the_run_begins(window: FixedWindow) -> None:
    """A window that isn't recognised costs some 100 refusals of 600: ten in each window."""
    refused = 0
    for tenth in range(10):
        phase = window.seconds * tenth / 10
        limit = ContendedLimit(attrs.evolve(window, phase=phase))
        stop = 1.3 * least_seconds(limit, 600) + window.seconds
        refused += seconds_for(600, limit, seed=tenth, stop=stop)[1]
    assert refused / 10 <= 0.1 * 600


# A remembered limit.


@pytest.mark.parametrize(("rate", "burst"), [(10, 20), (100, 200)])
@pytest.mark.parametrize("empty", [False, True])
def test_a_limit_that_is_remembered_is_kept_from_the_start(
    rate: int, burst: int, empty: bool
) -> None:
    """A remembered limit: at most five 429s in the first minute, 1.03 of the least time."""
    limit = ContendedLimit(TokenBucket(rate, burst), used_up=((0.0, 0.0),) if empty else ())
    for seed in range(3):
        pacer, counter = Pacer(), limit.counter()
        pacer.on_share(rate, remembered=True)
        requests = 100 * rate
        record = drive(
            pacer,
            lambda now, counter=counter: counter.admit(now) is None,  # type: ignore[misc]
            until=1.03 * least_seconds(limit, requests) + 0.2,
            seed=seed,
        )
        assert len(record.accepted) >= requests
        assert record.between(0.0, 60.0)[1] <= 5


@pytest.mark.parametrize("factor", [0.1, 0.5, 2.0, 10.0])
@pytest.mark.parametrize("rate", [10, 100])
def test_a_wrong_memory_is_corrected(rate: int, factor: float) -> None:
    """Two minutes after the start, nine tenths of the limit are used, after any memory."""
    pacer, bucket = Pacer(), Bucket(rate, 2 * rate)
    pacer.on_share(rate * factor, remembered=True)
    record = drive(pacer, bucket.admit, until=180.0)
    accepted, throttled = record.between(120.0, 180.0)
    assert accepted >= 0.9 * rate * 60
    assert throttled <= 0.05 * (accepted + throttled) + 5


def test_what_has_been_exceeded_is_not_believed() -> None:
    """If the rate is far above the estimate, three quarters of the rate count as granted."""
    pacer = Pacer()
    pacer.on_share(10.0)
    drive(pacer, lambda _: True, until=120.0)
    assert pacer.rate is not None
    assert pacer.granted == pytest.approx(0.75 * pacer.rate)


# Any history.


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["take", "accepted", "throttled", "lost", "waiting", "idle"]),
            st.floats(0, 20),
            CHANCES,
            st.none() | st.floats(0.01, 3600),
        ),
        max_size=80,
    ),
    st.sampled_from([None, 0.01, 3.0, 500.0, math.inf]),
)
def test_any_history_leaves_a_rate_and_a_time(
    events: list[tuple[str, float, float, float | None]], rate: float | None
) -> None:
    """After any history, the rate is above zero and at most the given one, the next time finite."""
    pacer, now, epochs = Pacer(rate=rate), 0.0, [0]
    for event, later, chance, pause in events:
        now += later
        epoch = epochs[int(chance * len(epochs))]
        if event == "take":
            now = max(now, pacer.next_at())
            epochs.append(pacer.take(now))
        elif event == "accepted":
            pacer.on_accepted(now, epoch)
        elif event == "throttled":
            throttle(pacer, now, epoch, retry_after=pause, chance=chance)
        elif event == "lost":
            pacer.on_lost(now, epoch, chance)
        elif event == "waiting":
            pacer.on_waiting()
        else:
            pacer.on_idle()
        assert pacer.next_at() < math.inf
        assert pacer.rate is None or 0 < pacer.rate <= (rate or math.inf)
