"""How the processes of a shared run divide its segments."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segments_async._sansio.files.naming import alike, free_name
from segments_async._sansio.jobs.parts import (
    FIRST_CLAIM,
    LEAST_CLAIM,
    MOST_CLAIM,
    LostParts,
    PartView,
    SharedView,
    claim_size,
    most_by_pace,
    starts_round,
    wants_more,
)

LOCKED = PartView(1, 1, left=False, locked=True, member="a")
ORPHAN = PartView(2, 1, left=False, locked=False, member="b")
LEFT = PartView(3, 1, left=True, locked=False, member="b")


def view(
    *parts: PartView, ended: bool = False, round_: int = 1, internal_errors: int = 0
) -> SharedView:
    return SharedView(ended, round_, internal_errors, parts)


@pytest.mark.parametrize(
    ("unclaimed", "processes", "size"),
    [
        (10_000, 1, 2000),
        (10_000, 8, 625),
        (1_000, 4, 125),
        (100, 8, LEAST_CLAIM),
        (LEAST_CLAIM - 1, 8, LEAST_CLAIM - 1),
        (1, 1, 1),
        (200_000, 2, MOST_CLAIM),
    ],
)
def test_the_size_of_a_claim(unclaimed: int, processes: int, size: int) -> None:
    """A claim is half of an equal share, within bounds."""
    assert claim_size(unclaimed, processes, 12_000) == size


def test_the_first_claim_of_a_process() -> None:
    """Is small: how many processes there will be, and how fast this one is, isn't known yet."""
    assert claim_size(100_000, 1) == FIRST_CLAIM
    assert claim_size(300, 1) == 150


def test_a_claim_is_of_two_minutes() -> None:
    """So that no process has much to submit when the others have nothing left."""
    assert claim_size(100_000, 2, most_by_pace(8.0, 3600.0)) == 960
    assert claim_size(100_000, 2, most_by_pace(0.1, 3600.0)) == FIRST_CLAIM


def test_a_claim_is_of_no_more_seconds_than_the_process_has_worked() -> None:
    """A process that has begun among few others doesn't claim for the time with many others."""
    assert claim_size(100_000, 20, most_by_pace(50.0, 4.0)) == FIRST_CLAIM
    assert claim_size(100_000, 20, most_by_pace(50.0, 10.0)) == 500


@given(st.integers(1, 50_000), st.integers(1, 64))
def test_every_segment_is_claimed(unclaimed: int, processes: int) -> None:
    """Claims come to an end, and their number grows far slower than the segments'."""
    claims, left = 0, unclaimed
    while left:
        size = claim_size(left, processes)
        assert 1 <= size <= left
        left -= size
        claims += 1
    assert claims <= 2 + unclaimed / LEAST_CLAIM


def test_when_a_process_claims_again() -> None:
    """With nothing to submit, or less than five seconds' worth."""
    assert wants_more(0, 0.0)
    assert not wants_more(LEAST_CLAIM, 0.0)
    assert wants_more(99, 20.0)
    assert not wants_more(100, 20.0)


def test_whose_parts_are_taken_over() -> None:
    """Those that are open and that no live process has, and none of this process's own."""
    found = view(LOCKED, ORPHAN, LEFT)
    assert found.orphans([]) == [ORPHAN.run_id]
    assert found.orphans([ORPHAN.run_id]) == []


def test_a_part_that_another_process_took_is_left_alone() -> None:
    """For a time that doubles, and is another one in each process."""
    lost = LostParts()
    assert lost.left_alone(0.0) == set()
    lost.add(1, 0.0, chance=0.0)
    lost.add(2, 0.0, chance=0.9)
    assert lost.left_alone(0.9) == {1, 2}
    assert lost.left_alone(1.0) == {2}
    assert lost.left_alone(2.8) == set()
    lost.add(1, 10.0, chance=0.0)
    assert lost.left_alone(11.9) == {1}
    for _ in range(20):
        lost.add(1, 20.0, chance=0.0)
    assert lost.left_alone(49.9) == {1}
    assert lost.left_alone(50.0) == set()


def test_how_many_processes_work() -> None:
    """The members of locked parts, and this one."""
    assert view(ORPHAN, LEFT).processes("me") == 1
    assert view(LOCKED, ORPHAN).processes("me") == 2
    assert view(LOCKED).processes("a") == 1


@pytest.mark.parametrize(
    ("found", "over"),
    [
        (view(), True),
        (view(LEFT), True),
        (view(LEFT, ORPHAN), False),
        (view(LOCKED), False),
        (view(LOCKED, round_=2), True),
        (view(ended=True), True),
    ],
)
def test_when_a_round_is_over(found: SharedView, *, over: bool) -> None:
    """When each part has ended or is left over, or another round has begun."""
    assert found.is_over(1) is over


@pytest.mark.parametrize(
    ("found", "unclaimed", "starts"),
    [
        (view(), 0, False),
        (view(LEFT), 0, True),
        (view(LEFT), 1, False),
        (view(LEFT, ORPHAN), 0, False),
        (view(LEFT, LOCKED), 0, False),
        (view(LEFT, ORPHAN, internal_errors=6), 5, True),
        (view(LOCKED, internal_errors=6), 0, False),
        (view(LEFT, ended=True), 0, False),
    ],
)
def test_when_another_round_begins(found: SharedView, unclaimed: int, *, starts: bool) -> None:
    """When the last one is over, or was stopped, and no process works any more."""
    assert starts_round(found, unclaimed=lambda: unclaimed) is starts


def test_the_segments_of_a_run_under_way_are_not_counted() -> None:
    """The count reads every segment of the run, while no other process can join."""

    def unclaimed() -> int:
        raise AssertionError("asked")

    assert not starts_round(view(), unclaimed=unclaimed)
    assert not starts_round(view(LEFT, LOCKED), unclaimed=unclaimed)
    assert not starts_round(view(LEFT, ORPHAN), unclaimed=unclaimed)


@given(
    st.lists(
        st.tuples(st.sampled_from(["a-12345678.csv", "A-12345678.csv", "12345678x.csv"]),
                  st.sampled_from(["12345678x", "12345678y", "12345678X"])),
        max_size=12,
    )
)  # fmt: skip
def test_free_names(wanted: list[tuple[str, str]]) -> None:
    """Whatever is taken, the next name is unlike all of them, and ends with `.csv`."""
    taken: set[str] = set()
    for name, segment_id in wanted:
        found = free_name(name, segment_id, taken)
        assert alike(found) not in taken
        assert found.endswith(".csv")
        taken.add(alike(found))
