"""How processes tell each other of an outage of the vendor."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segments_async._sansio.pace.backoff import FIRST_GUARD, GUARD_TOLD, LONGEST_GUARD, TicketGuard
from segments_async._sansio.pace.outage import Cause, Outage
from segments_async._sansio.pace.outage_news import KnownOutage, OutageNews
from segments_async._sansio.pace.shared_outage import (
    GRACE,
    HEEDED,
    REFRESH,
    REQUESTS,
    SUBMITS,
    TURN,
    WORTH,
    YIELD,
    Agreed,
    CommonOutage,
    GuardNews,
    News,
    OwnOutage,
    Word,
    agree,
    agree_all,
)
from segments_async._sansio.pace.submit_hold import (
    FAILED_LISTS,
    ListCounts,
    ListProbes,
    SubmitHold,
)

ANSWERED = OwnOutage("me", armed=True, cause=Cause.ANSWERED, fresh=True, due=0.8, failures=1)
UNREACHED = OwnOutage("me", armed=True, cause=Cause.UNREACHED, fresh=True, due=0.8, failures=1)
IDLE = OwnOutage("me")
WANTS = OwnOutage("me", wants=True)

#: Another process's outage, whose next turn is in a second.
ROW = CommonOutage("an outage", "1", 1.0, 0.0, 5.0, "other", turn=False, failures=2)
TURN_OF_ME = attrs.evolve(ROW, member="me", turn=True, due=TURN)


def due(row: CommonOutage, seconds: float) -> CommonOutage:
    return attrs.evolve(row, due=seconds)


def knowing(own: OwnOutage, row: CommonOutage, age: float = 0.0) -> OwnOutage:
    """The process has seen the row's version, which was due in so many seconds then."""
    return attrs.evolve(
        own,
        armed=True,
        cause=own.cause or Cause.TOLD,
        known=row.name,
        version=row.version,
        row_due=row.due - age,
        row_age=age,
    )


@pytest.mark.parametrize(
    ("own", "row", "word", "written"),
    [
        # Without a row: an answer is told, a connection that fails isn't.
        (IDLE, None, Word.NOTHING, False),
        (ANSWERED, None, Word.HOLD, True),
        (UNREACHED, None, Word.NOTHING, False),
        (attrs.evolve(ANSWERED, refuted=True), None, Word.NOTHING, False),
        # With another process's row.
        (IDLE, ROW, Word.HOLD, False),
        (WANTS, ROW, Word.HOLD, False),
        (WANTS, due(ROW, -0.1), Word.PROBE, True),
        (IDLE, due(ROW, -0.1), Word.HOLD, False),
        (ANSWERED, ROW, Word.HOLD, True),
        (attrs.evolve(UNREACHED, wants=True), due(ROW, -0.1), Word.HOLD, False),
        # A row of another time, by a clock that is right or wrong.
        (IDLE, attrs.evolve(ROW, age=WORTH + 1), Word.NOTHING, True),
        (IDLE, attrs.evolve(ROW, age=-2 * GRACE), Word.NOTHING, True),
        (WANTS, attrs.evolve(ROW, due=3000.0, age=HEEDED), Word.PROBE, True),
        # The row that this process knows.
        (knowing(attrs.evolve(IDLE, fresh=False), ROW), None, Word.BACK, False),
        (attrs.evolve(knowing(IDLE, ROW), armed=False), ROW, Word.NOTHING, True),
        (knowing(IDLE, ROW), ROW, Word.HOLD, False),
        (knowing(WANTS, ROW, age=2.0), ROW, Word.PROBE, True),
        (knowing(IDLE, ROW), attrs.evolve(ROW, age=1e9), Word.HOLD, False),
        # Its own turn: the probe may still wait for the pacer.
        (knowing(WANTS, TURN_OF_ME, age=1.0), TURN_OF_ME, Word.NOTHING, False),
        (knowing(WANTS, TURN_OF_ME, age=TURN + YIELD), TURN_OF_ME, Word.PROBE, True),
    ],
)  # fmt: skip
def test_what_a_look_says(
    own: OwnOutage, row: CommonOutage | None, word: Word, written: bool
) -> None:
    """The word to a process, and whether it writes, by what it knows and what the journal has."""
    agreed = agree(own, row, others=1, token="new")
    assert (agreed.word, agreed.written) == (word, written)


def test_a_row_that_is_deleted_is_no_row() -> None:
    """The process that the vendor has answered deletes the row that it knows, and no other one."""
    answered = attrs.evolve(knowing(IDLE, ROW), armed=False)
    assert agree(answered, ROW, others=1, token="new") == Agreed(Word.NOTHING, None, written=True)
    another = attrs.evolve(ROW, name="another outage", version="2")
    assert agree(answered, another, others=1, token="new").word is Word.HOLD


def test_the_next_turn_is_another_processs() -> None:
    """The process whose probe failed waits for others, unless there is none, or none comes."""
    mine = attrs.evolve(ROW, member="me")
    own = knowing(attrs.evolve(ANSWERED, fresh=False, wants=True), mine, age=mine.due + 0.1)
    assert agree(own, mine, others=1, token="new").word is Word.HOLD
    assert agree(own, mine, others=0, token="new").word is Word.NOTHING  # by its own times
    late = attrs.evolve(own, row_due=-YIELD)
    assert agree(late, mine, others=1, token="new").word is Word.PROBE


def test_a_turn_ends() -> None:
    """A process that got the turn and says nothing more delays the next turn by `TURN` seconds."""
    wants = WANTS
    taken = agree(wants, due(ROW, 0.0), others=1, token="2").row
    assert taken is not None
    assert (taken.turn, taken.member, taken.due) == (True, "me", TURN)
    other = knowing(OwnOutage("third", wants=True), taken)
    assert agree(other, taken, others=2, token="3").word is Word.HOLD
    assert agree(attrs.evolve(other, row_due=0.0), taken, others=2, token="3").word is Word.PROBE


def test_a_probe_that_is_lost_says_nothing() -> None:
    """A process whose probe met no vendor, and no gateway either, gives its turn away."""
    turn = attrs.evolve(ROW, member="me", turn=True, due=TURN)
    agreed = agree(knowing(UNREACHED, turn), turn, others=1, token="new")
    assert agreed.row is not None
    assert (agreed.word, agreed.row.due, agreed.row.turn) == (Word.HOLD, 0.0, False)
    assert agreed.row.failures == turn.failures


def test_a_long_pause_is_written_again() -> None:
    """The process that was asked to wait for an hour says so every `REFRESH` seconds."""
    mine = attrs.evolve(ROW, member="me", due=3600.0)
    own = knowing(attrs.evolve(ANSWERED, fresh=False), mine, age=REFRESH + 1)
    again = agree(own, mine, others=1, token="new")
    assert again.written
    assert again.row is not None
    assert again.row.due == pytest.approx(3600.0 - REFRESH - 1)
    # Another process heeds each version for a minute.
    heeded = agree(IDLE, mine, others=1, token="new")
    assert heeded.row is not None
    assert heeded.row.due == HEEDED


def test_pauses_grow_with_the_probes_of_all() -> None:
    """A process's failed probe has the next pause of the common outage, not the first one."""
    outage = Outage()
    outage.on_told(0.0, 0.0, 4)
    outage.on_sent(0.0, 0)
    outage.on_away(0.1, 0.0, 1.0, retry_after=None)
    assert outage.next_at() == pytest.approx(0.1 + 16.0)
    hold = SubmitHold()
    hold.on_told(0.0, 0.0, 3)
    hold.on_sent(0.0)
    hold.on_unknown(0.1, 0.0)
    assert hold.next_at() == pytest.approx(0.1 + 16.0)


def test_who_was_told_hopes_for_ten_minutes_of_its_own() -> None:
    """An outage that is told is hopeless ten minutes after it was told, and not earlier."""
    outage = Outage()
    outage.on_told(1000.0, 1030.0, 9)
    assert not outage.hopeless(1600.0)
    assert outage.hopeless(1600.1)


def test_an_answer_from_before_ends_no_outage_that_is_told() -> None:
    """An answer to a request that was sent before the news came doesn't show the vendor back."""
    outage = Outage()
    outage.on_told(10.0, 12.0, 1)
    assert not outage.on_answer(10.1, 9.9, 0.2)
    assert outage.armed
    assert outage.on_answer(12.2, 12.0, 0.2)


@pytest.mark.parametrize("held", [Outage(), SubmitHold()])
def test_who_is_refuted_says_nothing_more(held: Outage | SubmitHold) -> None:
    """Others find the vendor there: a process that goes on failing is alone with that."""
    fails(held, 0.0)
    assert (held.armed, held.cause) == (True, Cause.ANSWERED)
    held.on_told_back()
    assert not held.armed
    fails(held, 10.0)
    assert held.armed
    assert held.refuted
    answered(held, 100.0)
    assert not held.refuted


def fails(held: Outage | SubmitHold, now: float) -> None:
    for _ in range(2):
        if isinstance(held, Outage):
            held.on_away(now, now, 0.5, retry_after=None)
        else:
            held.on_unknown(now, now, enough=2)


def answered(held: Outage | SubmitHold, now: float) -> None:
    if isinstance(held, Outage):
        held.on_answer(now, now, 0.1)
    else:
        held.on_sent(now)
        held.on_known(now)


def test_lists_fail_alike_where_no_submit_has_failed() -> None:
    """An outage that polls have shown is no reason to take failing lists for something else.

    So two lists of two processes are not enough for a submit, which would be lost.
    """
    lists = ListProbes()
    for status in (503, 502):
        lists.on_list_failed(status)
    assert not lists.in_vain
    lists.on_submit_failed(503)
    lists.on_answer()  # the end of the outage that the submit belonged to
    for _ in range(FAILED_LISTS - 1):
        lists.on_list_failed(502)
    assert not lists.in_vain
    lists.on_list_failed(502)
    assert lists.in_vain


def test_a_list_that_fails_unlike_a_submit_is_soon_no_probe() -> None:
    """A list that another gateway answers than the submits says little about submits."""
    lists = ListProbes()
    lists.on_submit_failed(503)
    for _ in range(2):
        assert not lists.in_vain
        lists.on_list_failed(500)
    assert lists.in_vain


def test_lists_that_failed_count_for_all() -> None:
    """The lists of several processes together show that a list is no probe for this account."""
    one, other = ListProbes(), ListProbes()
    one.on_submit_failed(503)
    for _ in range(11):
        one.on_list_failed(503)
    assert not one.in_vain
    other.on_told(one.counts)
    other.on_list_failed(503)
    assert other.in_vain
    assert one.counts.merged(ListCounts()) == one.counts


# Several processes.


class Group:
    """Processes that look at one row, each with an outage of its own and by one clock."""

    def __init__(self, processes: int) -> None:
        self.now = 0.0
        self.outages = [Outage() for _ in range(processes)]
        self._told = [KnownOutage(outage, outage) for outage in self.outages]
        self._row: CommonOutage | None = None
        self._written_at = 0.0
        self._tokens = itertools.count(1)

    @property
    def row(self) -> CommonOutage | None:
        row, passed = self._row, self.now - self._written_at
        return row and attrs.evolve(row, due=row.due - passed, age=passed)

    def look(self, number: int) -> Word:
        told = self._told[number]
        own = told.own(self.now, f"process {number}", wants=True)
        others = len(self.outages) - 1
        agreed = agree(own, self.row, others=others, token=f"token {next(self._tokens)}")
        if agreed.written:
            self._row, self._written_at = agreed.row, self.now
        told.took(self.now, own, agreed)
        return agreed.word

    def may_send(self) -> list[int]:
        """The processes that may send a request now."""
        return [i for i, one in enumerate(self.outages) if one.next_at() <= self.now]

    def fail(self, number: int) -> None:
        """A gateway answers a request of the process."""
        outage = self.outages[number]
        outage.on_sent(self.now, 0)
        outage.on_away(self.now + 0.1, self.now, 0.5, retry_after=None)


@settings(max_examples=20)
@given(st.integers(2, 6), st.randoms(use_true_random=False))
def test_one_process_probes_at_a_time(processes: int, chance: object) -> None:
    """While the vendor is away, no two processes that look every second may send at once."""
    group = Group(processes)
    for _ in range(2):
        group.fail(0)
    group.now = 0.2
    for number in range(processes):
        group.look(number)
    order = list(range(processes))
    for second in range(1, 60):
        chance.shuffle(order)  # type: ignore[attr-defined]
        for number in order:
            group.now = second + number / (2 * processes)
            group.look(number)
            ready = group.may_send()
            assert len(ready) <= 1
            for one in ready:
                group.fail(one)
                group.look(one)


@given(st.integers(2, 6), st.integers(0, 5))
def test_the_first_answer_lets_all_go_on(processes: int, prober: int) -> None:
    """Once the vendor has answered one process, every other one goes on at its next look."""
    group = Group(processes)
    for _ in range(2):
        group.fail(0)
    everyone = range(processes)
    for number in everyone:
        group.look(number)
    assert group.may_send() == []
    group.now = 4.0  # the turn is due, and nobody has despaired of it yet
    one = prober % processes
    assert group.look(one) is Word.PROBE
    assert group.may_send() == [one]
    group.outages[one].on_sent(group.now, 0)
    group.outages[one].on_answer(group.now + 0.1, group.now, 0.1)
    group.now += 0.2
    for number in (one, *everyone):
        group.look(number)
    assert group.row is None
    assert group.may_send() == list(everyone)


@given(st.floats(0, 1e5))
def test_who_hears_no_more_probes_by_itself(silence: float) -> None:
    """A process whose journal is away is held for a minute and `GRACE` seconds at most."""
    outage = Outage()
    told = KnownOutage(outage, outage)
    own = told.own(0.0, "me", wants=True)
    row = attrs.evolve(ROW, due=3600.0)
    told.took(0.0, own, agree(own, row, others=1, token="new"))
    assert outage.next_at() == HEEDED + GRACE
    assert (outage.next_at() <= silence) == (silence >= HEEDED + GRACE)


NAMES = st.sampled_from(["", "an outage", "another"])
OWNS = st.builds(
    OwnOutage,
    member=st.sampled_from(["me", "other"]),
    armed=st.booleans(),
    cause=st.sampled_from([None, *Cause]),
    fresh=st.booleans(),
    due=st.floats(-1e4, 1e4),
    failures=st.integers(0, 40),
    known=NAMES,
    version=st.sampled_from(["", "1", "2"]),
    row_due=st.floats(-1e4, 1e4),
    row_age=st.floats(0, 1e4),
    wants=st.booleans(),
    refuted=st.booleans(),
    hurried=st.booleans(),
)
ROWS = st.none() | st.builds(
    CommonOutage,
    name=st.sampled_from(["an outage", "another"]),
    version=st.sampled_from(["1", "2"]),
    due=st.floats(-1e9, 1e9),
    age=st.floats(-1e9, 1e9),
    lasts=st.floats(0, 1e9),
    member=st.sampled_from(["me", "other"]),
    turn=st.booleans(),
    failures=st.integers(0, 40),
)


@given(OWNS, ROWS, st.integers(0, 5))
def test_any_row_is_harmless(own: OwnOutage, row: CommonOutage | None, others: int) -> None:
    """Whatever the journal has: a pause is bounded, and only an answer is told to others."""
    agreed = agree(own, row, others=others, token="new")
    if agreed.word in (Word.HOLD, Word.PROBE):
        assert agreed.row is not None
    if agreed.word is Word.HOLD and agreed.row is not None and not own.version:
        assert agreed.row.due <= max(HEEDED + GRACE, own.due, 1e9 if own.fresh else 0.0)
    if row is None and agreed.written:
        assert own.cause is Cause.ANSWERED
        assert not own.refuted
    if agreed.written and agreed.row is not None:
        assert agreed.row.version == "new"
    if agreed.word is Word.PROBE:
        assert own.wants


# The clients of one process, and the ticket guard.


def client() -> tuple[OutageNews, Outage, TicketGuard]:
    outage, guard = Outage(), TicketGuard()
    return OutageNews(outage, SubmitHold(), ListProbes(), guard), outage, guard


def test_the_clients_of_one_process_tell_each_other() -> None:
    """What one client was answered holds the other client of the same exchange."""
    (one, failed, _), (other, held, _) = client(), client()
    for _ in range(2):
        failed.on_away(0.0, 0.0, 0.5, retry_after=None)
    owns = [n.own(0.0, name, submits=True, others=True) for n, name in ((one, "a"), (other, "b"))]
    agreed, changed = agree_all(owns, News(), others=0, token="t")
    assert set(changed) == {REQUESTS}
    words: Mapping[str, Word] = other.took(0.0, owns[1], agreed[1])
    assert words == {REQUESTS: Word.HOLD}
    assert held.armed
    assert one.took(0.0, owns[0], agreed[0]) == {}
    assert not one.has_news
    assert agreed[0][SUBMITS].word is Word.NOTHING


def test_who_is_refuted_says_nothing_about_submits() -> None:
    """A process whose own gateway is broken doesn't hold the submits of the others either."""
    outage, hold = Outage(), SubmitHold()
    news = OutageNews(outage, hold, ListProbes(), TicketGuard())
    fails(outage, 0.0)
    outage.on_told_back()
    fails(hold, 1.0)
    owns = [news.own(1.0, "me", submits=True, others=False)]
    assert agree_all(owns, News(), others=1, token="t")[1] == {}
    assert not news.has_news
    outage.on_answer(2.0, 2.0, 0.1)
    owns = [news.own(2.0, "me", submits=True, others=False)]
    assert set(agree_all(owns, News(), others=1, token="t")[1]) == {SUBMITS}


def test_the_process_that_got_the_500_probes_first() -> None:
    """A told guard ends `GUARD_TOLD` seconds later, unless the other process's probe passes."""
    news, _, guard = client()
    assert news.took_guard(0.0, GuardNews(60.0, 120.0, "1"))
    assert guard.next_at() == 60.0 + GUARD_TOLD
    assert not news.took_guard(1.0, GuardNews(59.0, 120.0, "1"))
    assert news.took_guard(61.0, None)
    assert (guard.armed, guard.next_at(), guard.pause) == (False, -math.inf, FIRST_GUARD)


def test_a_guard_of_its_own_is_not_lifted_by_others() -> None:
    """After a 500 of its own, a process sends a probe of its own."""
    news, _, guard = client()
    guard.on_internal_error(0.0)
    assert not news.took_guard(0.5, GuardNews(59.5, 120.0, "1"))
    assert not news.took_guard(1.0, None)
    assert guard.armed


@given(st.floats(-1e9, 1e9), st.floats(0, 1e9))
def test_no_clock_holds_a_process_for_days(left: float, pause: float) -> None:
    """A guard with any time delays requests for at most its longest pause."""
    news, _, guard = client()
    news.took_guard(0.0, GuardNews(left, pause, "1"))
    assert guard.next_at() <= LONGEST_GUARD + GUARD_TOLD
    assert guard.pause <= LONGEST_GUARD
