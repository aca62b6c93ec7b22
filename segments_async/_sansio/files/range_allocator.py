"""Which bytes of a file the part has, and which connection fetches which missing bytes."""

from __future__ import annotations

#: Sorted pairs of start and stop that neither overlap nor touch.
Ranges = tuple[tuple[int, int], ...]


def with_range(ranges: Ranges, start: int, stop: int) -> Ranges:
    """The ranges and this one, merged."""
    if start >= stop:
        return ranges
    before = tuple(r for r in ranges if r[1] < start)
    after = tuple(r for r in ranges if r[0] > stop)
    touching = ranges[len(before) : len(ranges) - len(after)]
    start = min([start, *(r[0] for r in touching)])
    stop = max([stop, *(r[1] for r in touching)])
    return (*before, (start, stop), *after)


def size_of(ranges: Ranges) -> int:
    """Number of bytes in the ranges."""
    return sum(stop - start for start, stop in ranges)


def prefix_of(ranges: Ranges) -> int:
    """The end of the range that begins at 0; 0 if there is none."""
    return ranges[0][1] if ranges and ranges[0][0] == 0 else 0


class RangeAllocator:
    """Gives each missing byte of a file to one connection.

    Args:
        held: ranges that the part has.
        total: the file's length, in bytes.
    """

    def __init__(self, held: Ranges, total: int) -> None:
        self._taken = held
        self._total = total

    def take(self, size: int) -> tuple[int, int] | None:
        """Take the first free bytes, at most `size`, as start and stop; None: none is free."""
        start = prefix_of(self._taken)
        if start >= self._total:
            return None
        return start, self.extend(start, size)

    def extend(self, stop: int, size: int) -> int:
        """Take up to `size` free bytes from `stop` on. Returns their end."""
        new_stop = min(stop + size, self.room(stop))
        self._taken = with_range(self._taken, stop, new_stop)
        return new_stop

    def room(self, stop: int) -> int:
        """The end of the free bytes from `stop` on; `stop` if there are none."""
        for start, end in self._taken:
            if end > stop:
                return max(stop, start)
        return self._total
