"""Fetches the file of one segment of a run, and returns the decision that follows."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import attrs

from segments_async._files.export_files import ExportFiles
from segments_async._files.places import Place
from segments_async._run.job import Job
from segments_async._run.request import RunRequest
from segments_async._run.stats import RunStats
from segments_async._sansio.jobs.decisions import Decision, on_expired, on_fetched
from segments_async._sansio.jobs.lifecycle import State
from segments_async._sansio.jobs.run_state import RunState
from segments_async.errors import DestinationError, DownloadError, ExportExpiredError, SegmentsError
from segments_async.models import Export
from segments_async.results import ExportedFile

logger: logging.Logger = logging.getLogger("segments_async")

#: Links that the policy refused, while it admitted none, after which no more exports are asked for:
#: the policy would refuse every link.
REFUSED_LINKS = 2


@attrs.define(eq=False, repr=False)
class FileFetcher:
    """Fetches the files of one run."""

    _files: ExportFiles
    _request: RunRequest
    _state: RunState
    _stats: RunStats
    _given_up: Callable[[Job, SegmentsError], Decision]
    _refusals: list[DownloadError] = attrs.field(factory=list[DownloadError])

    @property
    def refused_links(self) -> DownloadError | None:
        """The last refusal of a link, if the policy seems to refuse every link; else None."""
        admitted = self._state.count(State.DONE) or self._stats.bytes
        refused = len(self._refusals) >= REFUSED_LINKS and not admitted
        return self._refusals[-1] if refused else None

    async def fetch(self, job: Job, export: Export) -> Decision:
        """Fetch the segment's file to its place. Raises nothing but a cancellation."""
        segment_id, place = job.segment_id, self._request.destination
        if place is None:
            raise AssertionError("nowhere to put the file")
        target = place.target(segment_id)
        try:
            file = await _placed(place, segment_id, export)
            if file is None:
                progress = partial(self._on_bytes, job)
                file = await self._files.fetch_in_slot(export, target, progress, job.on_break)
        except ExportExpiredError as exc:
            replaced, options = job.replaced, self._request.options
            return on_expired(segment_id, export, exc, options=options, replaced=replaced)
        except DownloadError as exc:
            if exc.by_policy:
                self._refusals.append(exc)
            return self._given_up(job, exc)
        except Exception as exc:
            # A fault of ours that one file's link or answer brings out must not end the whole run.
            logger.exception("file of export %s: an unexpected error", export.export_id)
            text = f"file of export {export.export_id}: {type(exc).__name__}"
            return self._given_up(job, DownloadError(text, reason="broken", export=export))
        self._on_bytes(job, file.size)
        return on_fetched(segment_id, file)

    def _on_bytes(self, job: Job, size: int) -> None:
        self._stats.bytes += size - job.bytes
        job.bytes = size


async def _placed(place: Place, segment_id: str, export: Export) -> ExportedFile | None:
    """The file that a killed session placed; None, too, where the destination can't say."""
    try:
        return await place.placed(segment_id, export)
    except DestinationError as exc:
        logger.info("file of export %s: %s; it is fetched again", export.export_id, str(exc))
        return None
