"""When a batch is given to an executor again: the journal decides, and no future alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segments_async._sansio.jobs.batches import (
    LOST_AFTER,
    MOST_UNBEGUN,
    Attempts,
    BatchView,
    Step,
    batches,
    is_final,
)
from segments_async._sansio.jobs.lifecycle import ENDS, State
from segments_async._sansio.jobs.record import ExportRecord, RunOptions
from segments_async.models import Export, ExportStatus, Segment


def view(
    unsettled: int, *, untold: int | None = None, owner: str = "", locked: bool = False
) -> BatchView:
    owners = frozenset([owner] if owner else [])
    return BatchView(unsettled, unsettled if untold is None else untold, owners, locked)


DONE = view(0)
QUEUED = view(9)
AT_WORK = view(9, owner="a", locked=True)
ALONE = view(9, owner="a")


def given_out(retries: int = 3) -> Attempts:
    attempts = Attempts(retries)
    attempts.start(QUEUED)
    return attempts


def submitted(attempts: Attempts, at: BatchView, now: float) -> float:
    """Wait until the batch is given out again. Returns the time."""
    began = now
    while (step := attempts.step(at, now, ended=True)) is Step.WAIT:
        now += 0.5
        assert now - began <= 30.5
    assert step is Step.SUBMIT
    return now


@pytest.mark.parametrize("ended", [False, True])
def test_a_batch_that_the_journal_calls_done_is_done(*, ended: bool) -> None:
    """Whatever the future says: one that never ends holds nothing up (distributed#3196)."""
    assert given_out().step(DONE, 0.0, ended=ended) is Step.DONE


@pytest.mark.parametrize("ended", [False, True])
def test_a_batch_with_a_live_process_waits(*, ended: bool) -> None:
    """A scheduler may call a task lost whose process lives on: it isn't given out a second time."""
    assert given_out().step(AT_WORK, 0.0, ended=ended) is Step.WAIT


def test_a_batch_that_waits_for_its_turn_waits_for_ever() -> None:
    """No time limit takes a task for lost that no process has begun."""
    assert given_out().step(QUEUED, 1e9, ended=False) is Step.WAIT


def test_a_batch_whose_process_is_gone_is_given_out_again_without_its_future() -> None:
    """A begun batch without a live process is given out again after `LOST_AFTER`."""
    attempts = given_out()
    assert attempts.step(ALONE, 100.0, ended=False) is Step.WAIT
    assert attempts.step(ALONE, 100.0 + LOST_AFTER - 1, ended=False) is Step.WAIT
    assert attempts.step(ALONE, 100.0 + LOST_AFTER, ended=False) is Step.SUBMIT


def test_a_process_that_takes_over_starts_the_time_anew() -> None:
    """A lock that is seen once in between means that the batch is worked at."""
    attempts = given_out()
    assert attempts.step(ALONE, 0.0, ended=False) is Step.WAIT
    assert attempts.step(AT_WORK, LOST_AFTER - 1, ended=False) is Step.WAIT
    assert attempts.step(ALONE, LOST_AFTER + 1, ended=False) is Step.WAIT


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_a_batch_that_kills_its_worker_each_time_is_given_up(retries: int) -> None:
    """It is tried again `retries` times, and then given up."""
    attempts, now = given_out(retries), 0.0
    for number in range(retries):
        at = view(9, owner=f"process {number}")
        now = submitted(attempts, at, now)
        attempts.start(at)
    assert attempts.step(view(9, owner="the last"), now, ended=True) is Step.GIVE_UP


def test_the_first_retry_is_at_once_and_later_ones_wait() -> None:
    """One death costs no pause. A batch that waits may yet be seen at work, or done."""
    attempts = given_out()
    assert attempts.step(ALONE, 0.0, ended=True) is Step.SUBMIT
    attempts.start(ALONE)
    again = view(9, owner="b")
    assert attempts.step(again, 5.0, ended=True) is Step.WAIT
    assert attempts.step(AT_WORK, 5.5, ended=True) is Step.WAIT
    assert attempts.step(DONE, 5.5, ended=True) is Step.DONE
    assert attempts.step(again, 6.0, ended=True) is Step.SUBMIT


def test_a_begun_batch_that_waits_for_its_turn_again_waits() -> None:
    """A batch that is given out again stands in the queue behind others, perhaps for hours."""
    attempts = given_out()
    assert attempts.step(ALONE, 0.0, ended=True) is Step.SUBMIT
    attempts.start(ALONE)
    assert attempts.step(ALONE, 1e6, ended=False) is Step.WAIT
    assert attempts.step(ALONE, 2e6, ended=False) is Step.WAIT


def test_a_task_that_is_lost_in_the_queue_is_not_counted_as_a_death() -> None:
    """Also of a batch that an earlier attempt has begun."""
    attempts = given_out(retries=0)
    attempts.start(ALONE)
    assert attempts.step(ALONE, 0.0, ended=True) is Step.SUBMIT
    assert attempts.deaths == 0


def test_a_death_after_progress_is_not_counted() -> None:
    """A batch of which each attempt ends a segment is not given up, whatever kills its workers."""
    attempts = given_out(retries=1)
    for untold in range(8, 0, -1):
        at = view(9, untold=untold, owner=f"process {untold}")
        assert attempts.step(at, 0.0, ended=True) is Step.SUBMIT
        attempts.start(at)


def test_a_batch_that_was_lost_in_the_queue_is_not_to_blame() -> None:
    """Tasks behind a dead worker's are lost with it (distributed#5234): they get more attempts."""
    attempts, now = given_out(retries=0), 0.0
    for _ in range(MOST_UNBEGUN):
        now = submitted(attempts, QUEUED, now)
        attempts.start(QUEUED)
    assert attempts.step(QUEUED, now, ended=True) is Step.GIVE_UP
    assert now > 120  # a machine may have been started anew meanwhile


def test_a_process_that_did_not_see_the_coordinator_is_no_death() -> None:
    """A database that ends its sessions now and then must not use up the retries."""
    attempts, now = given_out(retries=0), 0.0
    for number in range(MOST_UNBEGUN):
        at = view(9, owner=f"process {number}")
        attempts.on_left()
        now = submitted(attempts, at, now)
        attempts.start(at)
    attempts.on_left()
    assert attempts.step(view(9, owner="the last"), now, ended=True) is Step.GIVE_UP


@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans(), st.floats(0, 60))),
    st.integers(0, 4),
)
def test_attempts_are_bounded(looks: list[tuple[bool, bool, bool, float]], retries: int) -> None:
    """Without progress a batch is submitted so often, and no more; never while it is worked at."""
    attempts, now, count = given_out(retries), 0.0, 0
    for begun, locked, ended, seconds in looks:
        now += seconds
        at = view(9, owner=f"process {count}" if begun else "", locked=locked)
        step = attempts.step(at, now, ended=ended)
        assert not (locked and step is not Step.WAIT)
        if step is Step.SUBMIT:
            attempts.start(at)
            count += 1
        assert count <= (retries + 1) * (MOST_UNBEGUN + 1)
        if step is Step.GIVE_UP:
            return


@given(st.lists(st.integers()), st.integers(1, 50))
def test_batches_have_each_item_once_in_order(items: list[int], size: int) -> None:
    """The batches together are the items, and no batch is larger than its size."""
    found = list(batches(items, size))
    assert [item for one in found for item in one] == items
    assert all(1 <= len(one) <= size for one in found)


EXPORT = Export(export_id="e", segment=Segment("s"), status=ExportStatus.COMPLETE)


@pytest.mark.parametrize(
    ("record", "options", "final"),
    [
        (ExportRecord(State.SUBMITTED, EXPORT), {}, False),
        (ExportRecord(State.NEW), {}, False),
        (ExportRecord(State.DONE, EXPORT), {}, True),
        (ExportRecord(State.FAILED, EXPORT, failures=1), {}, True),
        (ExportRecord(State.FAILED, EXPORT, failures=1), {"retry_failed": 1}, False),
        (ExportRecord(State.FAILED, EXPORT, failures=2), {"retry_failed": 1}, True),
        (ExportRecord(State.UNKNOWN), {}, True),
        (ExportRecord(State.UNKNOWN), {"on_unknown": "resubmit"}, False),
        (ExportRecord(State.EXPIRED, EXPORT), {}, True),
        (ExportRecord(State.EXPIRED, EXPORT), {"on_expired": "resubmit"}, False),
        (ExportRecord(State.BROKEN_OFF, EXPORT), {}, False),
        (ExportRecord(State.UNASKED), {}, False),
        (ExportRecord(State.INTENT), {}, False),
    ],
)
def test_an_end_is_final_where_no_later_process_goes_on(
    record: ExportRecord, options: dict[str, Any], final: bool
) -> None:
    """An outcome is told early only where a process that takes the part over can't change it."""
    assert is_final(record, RunOptions(**options)) is final


def test_no_state_without_an_end_is_final() -> None:
    """Of all states, only those of `ENDS` are ever final."""
    for state in set(State) - ENDS:
        record = ExportRecord(state, EXPORT)
        assert not is_final(record, RunOptions()), state
