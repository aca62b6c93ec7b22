"""The parts of a client that its runs use, and the digest of its account."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import anyio
import attrs

from segments_async._files.export_files import ExportFiles
from segments_async._files.places import Place
from segments_async._requests.export_requests import ExportRequests
from segments_async._requests.gate import Gate
from segments_async._requests.registry import ExportRegistry
from segments_async._sansio.api.credentials import parse_base_url
from segments_async._sansio.pace.hold import Hold, heaviest
from segments_async.results import Held, HeldReason, Progress


@attrs.frozen(kw_only=True)
class Resources:
    """The parts of a client that its runs use.

    Attributes:
        check: called first by each operation of the client; see `SegmentsClient`.
        account: a digest of the account; see :func:`account_of`.
    """

    check: Callable[[], None]
    account: str
    gate: Gate
    registry: ExportRegistry
    requests: ExportRequests
    files: ExportFiles

    def held(
        self,
        places: Mapping[str, int],
        *,
        journal_away: bool = False,
        place: Place | None = None,
    ) -> Held | None:
        """What delays the requests or downloads by more than their turn; None where nothing does.

        Args:
            places: how many of the asker's exports are ``waiting``, ``pending`` and ``fetching``.
            journal_away: whether the asker's journal can't be written.
            place: where the asker's files go.
        """
        try:
            now = anyio.current_time()
        except anyio.NoEventLoopError:
            return None  # outside of any loop nothing is under way
        hold = heaviest(
            self.gate.admission.hold(now),
            self.files.hold(now),
            None if place is None else place.hold(now),
            Hold(HeldReason.JOURNAL_AWAY, math.inf) if journal_away else None,
            places=places,
        )
        return None if hold is None else hold.told(now, datetime.now(UTC))


def account_of(base_url: str, api_key: str) -> str:
    """A digest of the account, by which a journal recognises its account without the key.

    Equal base URLs in different spellings, as with a slash at the end, have one digest.
    """
    place = parse_base_url(base_url)
    text = f"{place.scheme}://{place.host}:{place.port}{place.prefix}\n{api_key}"
    return hashlib.sha256(text.encode()).hexdigest()


def progress_before_start(total: int, rate: float | None, held: Held | None) -> Progress:
    """The progress of a run that was not entered."""
    return Progress(
        total=total,
        waiting=total,
        pending=0,
        fetching=0,
        exported=0,
        unchanged=0,
        not_exported=0,
        bytes=0,
        requests=0,
        throttled=0,
        rate=rate,
        oldest_link_age=None,
        eta_seconds=None if total else 0.0,
        held=held,
    )
