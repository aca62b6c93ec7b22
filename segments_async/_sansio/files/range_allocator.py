"""Which bytes of a file are there, which are missing, and who fetches which of them."""

from __future__ import annotations

#: Sorted pairs of start and stop that neither overlap nor touch.
Ranges = tuple[tuple[int, int], ...]


def with_range(ranges: Ranges, start: int, stop: int) -> Ranges:
    """The ranges, and this one."""
    if start >= stop:
        return ranges
    before = tuple(r for r in ranges if r[1] < start)
    after = tuple(r for r in ranges if r[0] > stop)
    touching = ranges[len(before) : len(ranges) - len(after)]
    start = min([start, *(r[0] for r in touching)])
    stop = max([stop, *(r[1] for r in touching)])
    return (*before, (start, stop), *after)


def size_of(ranges: Ranges) -> int:
    """How many bytes they are."""
    return sum(stop - start for start, stop in ranges)


def prefix_of(ranges: Ranges) -> int:
    """Where the bytes that are there from the beginning on end."""
    return ranges[0][1] if ranges and ranges[0][0] == 0 else 0


class RangeAllocator:
    """Shares out what is missing of a file, so that no byte is fetched twice.

    Args:
        held: what is there.
        total: the file's length.
    """

    def __init__(self, held: Ranges, total: int) -> None:
        self._taken = held
        self._total = total

    def take(self, size: int) -> tuple[int, int] | None:
        """Take the first free bytes, at most `size` of them; None: nothing is free."""
        start = prefix_of(self._taken)
        if start >= self._total:
            return None
        return start, self.extend(start, size)

    def extend(self, stop: int, size: int) -> int:
        """Take up to `size` free bytes from `stop` on. Returns where they end."""
        new_stop = min(stop + size, self.room(stop))
        self._taken = with_range(self._taken, stop, new_stop)
        return new_stop

    def room(self, stop: int) -> int:
        """Where the free bytes from `stop` on end; `stop` where there are none."""
        for start, end in self._taken:
            if end > stop:
                return max(stop, start)
        return self._total
