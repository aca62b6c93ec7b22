"""Answers which say that there is nothing at the path of submits, and what they are about."""

from __future__ import annotations

import pytest

from segments_async._sansio.api.wire import ApiAnswer, submit_request
from segments_async._sansio.pace.outage import LONGEST_OUTAGE
from segments_async._sansio.pace.scheduler import Kind, QueuedRequest
from segments_async._sansio.pace.submit_hold import LONGEST_UNROUTED, SubmitHold
from segments_async._sansio.pace.submit_route import SubmitRoute
from segments_async.models import OutputFormat

POST = submit_request("s", OutputFormat.CSV)


class Route:
    """A route, its hold, and one queued submit."""

    def __init__(self) -> None:
        self.hold = SubmitHold()
        self.route = SubmitRoute(self.hold)
        self.queued: QueuedRequest[str] = QueuedRequest(Kind.SUBMIT, "s")

    def answered(self, status: int, at: float) -> bool:
        """Whether the answer to a submit holds the next ones."""
        self.hold.on_sent(at)
        answer = ApiAnswer(status, {}, b"", at)
        return self.route.on_answer(self.queued, at, POST, answer) is not None


def test_a_405_alone_holds_nothing_and_two_hold_submits() -> None:
    """One of several servers may serve the maintenance page."""
    one = Route()
    assert not one.answered(405, 1.0)
    assert not one.route.lost
    assert one.answered(405, 2.0)
    assert one.route.lost
    assert one.hold.next_at() > 2.0


@pytest.mark.parametrize("status", [404, 410])
def test_a_404_to_a_listed_segment_holds_submits(status: int) -> None:
    """Without a list, or with one that lacks the segment, the 404 may be about the segment."""
    one = Route()
    assert not one.answered(status, 1.0)
    one.route.on_listed(one.queued, 2.0, 2.0, shown=False)
    assert not one.answered(status, 3.0)
    one.route.on_listed(one.queued, 4.0, 4.0, shown=True)
    assert one.answered(status, 5.0)
    assert one.route.lost


def test_after_an_accepted_submit_a_404_is_about_its_segment_again() -> None:
    """A list says less than a submit that passed since."""
    one = Route()
    one.route.on_listed(one.queued, 1.0, 1.0, shown=True)
    one.route.absent.on_success(2.0, itself=True)
    assert not one.answered(404, 3.0)
    assert not one.route.lost


def test_an_answer_from_before_the_hold_shows_the_lost_route_and_holds_no_longer() -> None:
    """Where other processes hold the submits, the 404 of one that had been sent isn't believed."""
    one = Route()
    one.route.on_listed(one.queued, 1.0, 1.0, shown=True)
    one.hold.on_told(2.0, 12.0, 1)
    answer = ApiAnswer(404, {}, b"", 3.0)
    assert one.route.on_answer(one.queued, 1.5, POST, answer) is None
    assert one.route.lost
    assert one.hold.next_at() == 12.0


def test_a_405_to_a_probe_for_other_processes_ends_the_probe() -> None:
    """This process has met no other one: the next probe goes after a pause all the same."""
    one = Route()
    one.hold.on_told(1.0, 1.0, 1)
    assert one.answered(405, 1.0)
    assert 1.0 < one.hold.next_at() <= 1.0 + LONGEST_UNROUTED


def test_probes_are_half_a_minute_apart_at_most_and_end_after_ten_minutes() -> None:
    """A probe that is refused begins no export, so that the gaps needn't grow to minutes."""
    one, now = Route(), 0.0
    one.answered(405, now)
    gaps: list[float] = []
    while not one.route.hopeless(now):
        assert one.answered(405, now)
        gaps.append(one.hold.next_at() - now)
        now += gaps[-1]
    assert gaps[:5] == [2.0, 4.0, 8.0, 16.0, LONGEST_UNROUTED]
    assert max(gaps) == LONGEST_UNROUTED
    assert LONGEST_OUTAGE < now <= LONGEST_OUTAGE + 2 * LONGEST_UNROUTED
