"""The ticket guard, for people: a 500 has consequences at the vendor, and says so.

"500 ... will automatically raise a ticket": so nothing is sent for a while after one, by any
process of the account whose journal knows of it.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import anyio

from segments_async import SegmentsClient
from segments_async._journal.records import GuardRecord
from segments_async._journal.sql import SqlJournal
from segments_async._pace.gate import TICKET_RAISED, Gate
from segments_async._run.recorder import Recorder

_TICKET = "the vendor has opened a ticket with its support by itself. Nothing is sent until"


def message(record: logging.LogRecord) -> str:
    """What a log record says; of a 500, until when by the clock."""
    if record.msg != TICKET_RAISED or not isinstance(record.args, tuple):
        return record.getMessage()
    method, path, seconds = record.args
    assert isinstance(seconds, float)
    return f"500 on {method} {path}: {_TICKET} {_clock(record.created + seconds)}."


def hold(client: SegmentsClient, record: GuardRecord) -> str | None:
    """Let the guard of another process hold this one's requests, from the first on.

    Returns what to tell people; None where nothing is held.
    """
    left = (record.until - datetime.now(UTC)).total_seconds()
    _gate(client).guard.restore(anyio.current_time() + left, record.pause)
    if left <= 0:
        return None
    return f"An earlier request was answered 500: {_TICKET} {_clock(record.until.timestamp())}."


async def remember(client: SegmentsClient, journal: SqlJournal) -> None:
    """Tell the journal of a 500 that came while no run was open, which would have told it."""
    await Recorder(journal).record_guard(_gate(client).guard, anyio.current_time())


def _gate(client: SegmentsClient) -> Gate:
    # The guard is no caller's business, and the command's by being of the same house.
    return client._gate  # pyright: ignore[reportPrivateUsage]


def _clock(timestamp: float) -> str:
    return f"{datetime.fromtimestamp(timestamp).astimezone():%H:%M:%S}"
