"""Which bytes the part has, and which connection fetches which of the missing bytes."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from segments_async._sansio.files.range_allocator import (
    RangeAllocator,
    Ranges,
    prefix_of,
    size_of,
    with_range,
)

_RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12)


def built(pairs: list[tuple[int, int]]) -> Ranges:
    ranges: Ranges = ()
    for start, stop in pairs:
        ranges = with_range(ranges, start, stop)
    return ranges


def numbers(ranges: Ranges) -> set[int]:
    return {n for start, stop in ranges for n in range(start, stop)}


@given(_RANGES)
def test_ranges_are_the_sum_of_what_was_added(pairs: list[tuple[int, int]]) -> None:
    """Added in any order, ranges are sorted, separate, and of the right size."""
    ranges = built(pairs)
    expected = {n for start, stop in pairs for n in range(start, stop)}
    assert numbers(ranges) == expected
    assert size_of(ranges) == len(expected)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(ranges))
    assert prefix_of(ranges) == next(n for n in range(62) if n not in expected)


@given(_RANGES, st.integers(0, 60), st.lists(st.integers(1, 20), min_size=1))
def test_every_missing_byte_is_claimed_once(
    pairs: list[tuple[int, int]], total: int, sizes: list[int]
) -> None:
    """Taken in pieces of any size, and extended, each free byte is given out once."""
    held = built([(start, min(stop, total)) for start, stop in pairs])
    claims = RangeAllocator(held, total)
    seen: list[int] = []
    turn = 0
    while (claimed := claims.take(sizes[turn % len(sizes)])) is not None:
        start, stop = claimed
        seen += range(start, stop)
        assert claims.room(stop) <= total
        if turn % 2:
            longer = claims.extend(stop, sizes[turn % len(sizes)])
            seen += range(stop, longer)
        turn += 1
    assert len(seen) == len(set(seen))
    assert set(seen) == set(range(total)) - numbers(held)


def test_a_claim_ends_where_anothers_begins() -> None:
    """A range can't be extended into bytes that the part has."""
    claims = RangeAllocator(((10, 20),), 30)
    assert claims.take(16) == (0, 10)
    assert claims.extend(10, 16) == 10
    assert claims.take(16) == (20, 30)
    assert claims.take(16) is None
