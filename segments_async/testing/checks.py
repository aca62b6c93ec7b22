"""What a vendor should never see, checked at the end of each test that has an account."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from segments_async.sandbox import Entry, Sandbox

Check = Literal["duplicate_exports", "credentials_at_storage"]


def duplicate_exports(sandbox: Sandbox) -> Iterator[str]:
    """A segment was asked for again while its export ran, or while no one had looked at it.

    The vendor's work is done twice then. The second kind follows from a lost answer: the API has no
    idempotency key, so that a repeated POST is a second export.
    """
    polled_at: dict[str, float] = {}
    for poll in sandbox.record.polls():
        polled_at.setdefault(poll.export_id or "", poll.at)
    begun: dict[str, list[Entry]] = defaultdict(list)
    for submit in sandbox.record.submits():
        if not submit.acted or submit.segment_id is None:
            continue
        earlier = begun[submit.segment_id]
        if earlier:
            before = earlier[-1]
            ends = before.at + sandbox.duration(submit.segment_id, len(earlier) - 1)
            looked = polled_at.get(before.export_id or "", submit.at) < submit.at
            if submit.at < ends or not looked:
                yield (
                    f"segment {submit.segment_id} was exported again at {submit.at:.3f} s, while "
                    f"its export of {before.at:.3f} s {'was running' if looked else 'was unknown'}"
                )
        earlier.append(submit)


def credentials_at_storage(sandbox: Sandbox) -> Iterator[str]:
    """Storage received an Authorization header or a cookie, which belong to the API alone."""
    for entry in sandbox.record.credentials_seen_by_files():
        yield f"the file of segment {entry.segment_id} was requested with credentials of the API"


#: The checks by the names under which they are switched off.
CHECKS: Mapping[Check, Callable[[Sandbox], Iterator[str]]] = {
    "duplicate_exports": duplicate_exports,
    "credentials_at_storage": credentials_at_storage,
}
