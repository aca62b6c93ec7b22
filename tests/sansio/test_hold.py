"""The reason for which nothing moves: which of several is told, and to whom."""

from __future__ import annotations

import math

import pytest

from segments_async import HeldReason
from segments_async._sansio.files.storage_outage import FAILED_IN_A_ROW, StorageOutage
from segments_async._sansio.pace.hold import Hold, heaviest

OF_FILES = {
    HeldReason.STORAGE_AWAY,
    HeldReason.STORAGE_CREDENTIALS,
    HeldReason.DESTINATION_AWAY,
}


@pytest.mark.parametrize("reason", HeldReason)
def test_a_reason_is_told_to_those_whom_it_delays(reason: HeldReason) -> None:
    """Storage delays files, a cap of jobs delays submits, a journal all, the API all but files."""
    hold = Hold(reason, math.inf)
    told = {name for name in ("waiting", "pending", "fetching") if heaviest(hold, places={name: 1})}
    if reason in OF_FILES:
        assert told == {"fetching"}
    elif reason is HeldReason.JOB_CAP:
        assert told == {"waiting"}
    elif reason is HeldReason.JOURNAL_AWAY:
        assert told == {"waiting", "pending", "fetching"}
    else:
        assert told == {"waiting", "pending"}


def test_the_first_of_several_reasons_is_told() -> None:
    """The order is that of `HeldReason`, whatever the order of the holds; None is no reason."""
    guard, cap = Hold(HeldReason.TICKET_GUARD, 5.0), Hold(HeldReason.JOB_CAP, math.inf)
    assert heaviest(cap, None, guard, places={"waiting": 1}) == guard
    assert heaviest(None, places={"waiting": 1}) is None


def test_storage_that_is_away_is_told_before_credentials() -> None:
    """An outage of storage holds until its next probe, credentials that fail without a time."""
    outage = StorageOutage()
    assert outage.hold(0.0, unsigned=False) is None
    assert outage.hold(0.0, unsigned=True) == Hold(HeldReason.STORAGE_CREDENTIALS, math.inf)
    for _ in range(FAILED_IN_A_ROW):
        outage.on_failed("away", "a", now=0.0, sent_at=0.0, chance=0.5, retry_after=None)
    until = outage.next_at()
    assert outage.hold(0.0, unsigned=True) == Hold(HeldReason.STORAGE_AWAY, until)
    assert outage.hold(until, unsigned=False) is None
