"""The meaning of an answer for an export: one function for submits, one for polls.

Both take the result of one request, and return a `Verdict`: which events of `lifecycle` happened,
and whether, and when, the vendor is asked again. Bulk runs, `export()` and `request_export()` use
the same two functions.

The results of a submit:

=============================  ====================  ==============================================
the vendor answered            events                what follows
=============================  ====================  ==============================================
2xx with an export's id        ACCEPTED              polled; ended at once where it says so
2xx without a readable id      LOST                  unknown: the export may be running
429, 408, 421, 425             NOT_SENT              sent again: all four say "not now"
404, 410, the API is there     REFUSED               there is no such segment
404, 410 otherwise             NOT_SENT              sent again, once the API is known to be there
405                            NOT_SENT              sent again: no segment is the reason
other 4xx                      REFUSED               a later session may ask again
301, 307, 308                  REFUSED               the run ends: `base_url` is wrong
500                            LOST                  unknown, and a ticket is raised
any other status               LOST                  unknown: a gateway can't know it
nothing, and it may have left  LOST                  unknown
nothing, and it never left     NOT_SENT              sent again
=============================  ====================  ==============================================

The results of a poll; a status in the answer to a submit means the same:

=============================  ====================  ==============================================
the vendor answered            events                what follows
=============================  ====================  ==============================================
FAILED                         FAILED                the export ends without a file
any other but PENDING, a link  COMPLETED             its file can be fetched (`exports.is_complete`)
COMPLETE without a link        GAVE_UP in the end    polled again for `LINK_GRACE` seconds
PENDING, or a new status       none                  polled again
202, 204 without a body        none                  polled again
404                            GAVE_UP in the end    polled again for `missing_grace` seconds
401, 403                       GAVE_UP               a later session can go on
anything else, or nothing      none                  polled again, later each time in a row
=============================  ====================  ==============================================
"""

from __future__ import annotations

import math

import attrs

from segments_async._sansio.api.decoding import read_status, read_submitted, undecodable
from segments_async._sansio.api.redaction import redact
from segments_async._sansio.api.wire import (
    ABSENT,
    LONGEST_ID,
    MOVED,
    NO_METHOD,
    NOT_NOW,
    REDIRECTS,
    UNROUTED,
    ApiAnswer,
    ApiRequest,
    is_id,
    is_not_yet,
    status_error,
)
from segments_async._sansio.jobs.exports import is_complete
from segments_async._sansio.jobs.lifecycle import Event
from segments_async._sansio.jobs.payload import Submitted
from segments_async._sansio.pace.absence import ABSENT_IN_A_ROW
from segments_async._sansio.pace.backoff import full_jitter
from segments_async._sansio.pace.scheduler import next_poll_at
from segments_async.errors import (
    APIConnectionError,
    APIStatusError,
    AuthenticationError,
    DecodeError,
    ExportFailedError,
    PermissionDeniedError,
    SegmentsError,
    SubmitUnknownError,
)
from segments_async.models import Export, ExportStatus
from segments_async.results import NotExported

#: Seconds during which a 404 to a poll may mean that not all servers know the export yet.
MISSING_GRACE = 10.0
#: The same while no poll of any export brings a status, and where several in a row bring 404: a
#: gateway may have no route to the API, and each of these exports would be lost.
ROUTE_GRACE = 60.0
#: Seconds during which a COMPLETE without a link may mean that the upload isn't listed yet.
LINK_GRACE = 60.0
#: The number of such answers that must have come besides, before the export is given up: while the
#: vendor is away, polls are far apart.
MISSING_ANSWERS = 3

#: The result of one request: an answer, an error of the connection or of the body, or None where
#: the sender was cancelled.
Result = ApiAnswer | APIConnectionError | DecodeError | None


@attrs.frozen(kw_only=True)
class Verdict:
    """The meaning of a request's result for its export.

    Attributes:
        events: what happened, in order; none where nothing new is known.
        export: the export as the answer describes it; None where the answer doesn't.
        error: why the export ends without a file, if it does.
        submitted: whether the vendor was asked for the export.
        resumable: whether a later session can go on at the cost of no second export.
        again_at: when the vendor is to be asked again, in seconds of the event loop's clock; None
            where nothing more is asked of the vendor for this export.
        setback: why a poll brought no status; None where it brought one.
        missing: the answers of 404, or of COMPLETE without a link, since the last other status.
    """

    events: tuple[Event, ...] = ()
    export: Export | None = None
    error: SegmentsError | None = None
    submitted: Submitted = "yes"
    resumable: bool = False
    again_at: float | None = None
    setback: SegmentsError | None = None
    missing: Missing | None = None


@attrs.frozen
class Missing:
    """Answers in a row without what must come soon: 404, or COMPLETE without a link.

    Attributes:
        count: how many they are.
        since: when the first one came, in seconds of the event loop's clock.
    """

    count: int
    since: float

    @classmethod
    def once_more(cls, before: Missing | None, now: float) -> Missing:
        """The count with one more answer."""
        return cls(1, now) if before is None else cls(before.count + 1, before.since)

    def lasts(self, now: float, grace: float) -> bool:
        """Whether these answers came for longer than the grace period, in seconds."""
        return self.count >= MISSING_ANSWERS and now - self.since > grace


@attrs.frozen(kw_only=True)
class PollJob:
    """The facts about an export that is polled.

    Attributes:
        export_id: the vendor's id of it.
        segment_id: None while no answer has named the segment.
        submitted_at: when its POST was accepted, in seconds of the event loop's clock.
        setbacks: polls in a row that brought no status.
        missing: as in `Verdict`.
        polls_answered_at: when the last poll was sent that brought a status, of this client's
            exports, in seconds of the event loop's clock.
        polls_absent_in_a_row: polls so far of these exports, this one included, that were answered
            404 without a status to a poll that was sent after the first of them.
    """

    export_id: str
    segment_id: str | None
    submitted_at: float
    setbacks: int = 0
    missing: Missing | None = None
    polls_answered_at: float = -math.inf
    polls_absent_in_a_row: int = 1


def on_submit(
    segment_id: str,
    request: ApiRequest,
    result: Result,
    *,
    now: float,
    chance: float,
    api_there: bool = False,
) -> Verdict:
    """The meaning of a POST's result for the segment's export.

    Args:
        segment_id: of the segment that was to be exported.
        result: the result of the request.
        now: seconds.
        chance: a number from [0, 1), by which a repeated submit is put off.
        api_there: whether other requests show that the API is there: a 404 is about the segment.
    """
    if isinstance(result, APIConnectionError) and not result.sent:
        return _not_sent(result, now)
    if not isinstance(result, ApiAnswer):
        return _lost(segment_id, result)
    again = NOT_NOW | ({NO_METHOD} if api_there else UNROUTED)
    if result.status in again:
        pause = 0.0 if result.status == 429 else full_jitter(0, chance)
        return _not_sent(status_error(request, result), now + pause)
    try:
        export = read_submitted(request, result, segment_id=segment_id)
    except DecodeError as exc:
        return _lost(segment_id, exc)
    except APIStatusError as exc:
        return _submit_refused(segment_id, exc)
    if not is_id(export.export_id):
        return _unusable_id(segment_id, request, export)
    job = PollJob(export_id=export.export_id, segment_id=segment_id, submitted_at=now)
    return _on_status(job, request, export, now, (Event.ACCEPTED,))


def on_poll(
    job: PollJob, request: ApiRequest, result: Result, *, now: float, chance: float
) -> Verdict:
    """The meaning of a poll's result for the export.

    Args:
        result: the result of the request.
        now: seconds.
        chance: a number from [0, 1), by which a poll is put off after a setback.
    """
    if not isinstance(result, ApiAnswer):
        return _setback(job, result, now, chance)
    if result.status == 429:
        # No setback of the export's: the pacer holds every request, and this poll is still due.
        return Verdict(again_at=now, missing=job.missing)
    if is_not_yet(result):
        return Verdict(again_at=next_poll_at(now, job.submitted_at))
    try:
        export = read_status(request, result, export_id=job.export_id, segment_id=job.segment_id)
    except DecodeError as exc:
        return _setback(job, exc, now, chance)
    except APIStatusError as exc:
        return _poll_refused(job, exc, now, chance)
    return _on_status(job, request, export, now)


def anothers_export(segment_id: str, request: ApiRequest) -> Verdict:
    """The meaning of an answer to a POST that has the id of another segment's export."""
    what = "the id of another segment's export"
    return _lost(segment_id, undecodable(request, "$.exportId", what))


def fatal(error: SegmentsError | None) -> bool:
    """Whether the error is about the account, or about `base_url`: about every export, then."""
    if isinstance(error, AuthenticationError | PermissionDeniedError):
        return True
    return isinstance(error, APIStatusError) and error.status_code in REDIRECTS


def lost_error(segment_id: str | None, cause: SegmentsError | None) -> SubmitUnknownError:
    """The error of a POST that may have been acted on, with no id to ask about."""
    if isinstance(cause, DecodeError):
        what = f"the export request was answered, and no export's id could be read ({cause})"
    elif isinstance(cause, APIStatusError):
        what = f"the export request was answered {cause.status_code}, not by the vendor itself"
    else:
        what = "the answer to the export request was lost"
    error = SubmitUnknownError(
        f"segment {segment_id}: {what}; the export may be running at the vendor, so the request "
        "was not repeated",
        segment_id=segment_id,
    )
    error.__cause__ = cause
    return error


def _not_sent(error: APIConnectionError | APIStatusError, again_at: float) -> Verdict:
    return Verdict(
        events=(Event.NOT_SENT,),
        error=error,
        submitted="no",
        resumable=True,
        again_at=again_at,
    )


def _lost(segment_id: str, cause: SegmentsError | None) -> Verdict:
    return Verdict(events=(Event.LOST,), error=lost_error(segment_id, cause), submitted="maybe")


def _submit_refused(segment_id: str, error: APIStatusError) -> Verdict:
    status = error.status_code
    if 400 <= status <= 499 or status in MOVED:
        # The vendor did nothing, so asking again later makes no second export. A segment that isn't
        # there is no reason to keep a run open.
        resumable = status not in ABSENT
        return Verdict(events=(Event.REFUSED,), error=error, submitted="no", resumable=resumable)
    if status == 500 or fatal(error):
        # Whether the vendor acted can't be known, but the answer is the vendor's own and says why.
        return Verdict(events=(Event.LOST,), error=error, submitted="maybe")
    return _lost(segment_id, error)


def unusable_outcome(segment_id: str, export: Export) -> NotExported:
    """The outcome of an export that runs, and whose id can't go into a URL."""
    error = SubmitUnknownError(
        f"segment {segment_id}: its export runs at the vendor and can't be asked about: its id "
        f"{export.export_id!r} can't go into a URL",
        segment_id=segment_id,
        export=export,
    )
    return NotExported(segment_id, export, error, "yes", resumable=False)


def _unusable_id(segment_id: str, request: ApiRequest, export: Export) -> Verdict:
    """The id is kept, redacted, for a person who asks the vendor about the export."""
    outcome = unusable_outcome(
        segment_id, attrs.evolve(export, export_id=redact(export.export_id)[:LONGEST_ID])
    )
    outcome.error.__cause__ = undecodable(request, "$.exportId", "not an id")
    events = (Event.ACCEPTED, Event.GAVE_UP)
    return Verdict(events=events, export=outcome.export, error=outcome.error)


def _on_status(
    job: PollJob, request: ApiRequest, export: Export, now: float, before: tuple[Event, ...] = ()
) -> Verdict:
    """The verdict on a status; `before`: the events that the same answer brings before its own."""
    if export.status == ExportStatus.FAILED:
        failed = ExportFailedError(
            f"segment {job.segment_id}: the vendor says that export {export.export_id} failed",
            segment_id=job.segment_id,
            export=export,
        )
        return Verdict(events=(*before, Event.FAILED), export=export, error=failed)
    if is_complete(export):
        return Verdict(events=(*before, Event.COMPLETED), export=export)
    again_at = next_poll_at(now, job.submitted_at)
    if export.status != ExportStatus.COMPLETE:
        return Verdict(events=before, export=export, again_at=again_at)
    missing = Missing.once_more(job.missing, now)
    if not missing.lasts(now, LINK_GRACE):
        return Verdict(events=before, export=export, again_at=again_at, missing=missing)
    error = undecodable(request, "$.filename", "COMPLETE without a link")
    return Verdict(events=(*before, Event.GAVE_UP), export=export, error=error)


def _poll_refused(job: PollJob, error: APIStatusError, now: float, chance: float) -> Verdict:
    if error.status_code in (401, 403):
        return Verdict(events=(Event.GAVE_UP,), error=error, resumable=True)
    if error.status_code != 404:
        return _setback(job, error, now, chance)
    missing = Missing.once_more(job.missing, now)
    if missing.lasts(now, missing_grace(job, missing)):
        return Verdict(events=(Event.GAVE_UP,), error=error)
    return attrs.evolve(_setback(job, error, now, chance), missing=missing)


def missing_grace(job: PollJob, missing: Missing) -> float:
    """Seconds for which 404s to the polls of an export are not believed."""
    # An export that is known by its id alone may not exist: the id may be wrong.
    if job.segment_id is None:
        return MISSING_GRACE
    few = job.polls_absent_in_a_row <= ABSENT_IN_A_ROW
    return MISSING_GRACE if few and job.polls_answered_at > missing.since else ROUTE_GRACE


def _setback(job: PollJob, why: SegmentsError | None, now: float, chance: float) -> Verdict:
    """The poll brought no status: ask again, later each time in a row."""
    asked = why.retry_after if isinstance(why, APIStatusError) else None
    pause = max(asked or 0.0, full_jitter(job.setbacks, chance))
    again_at = max(now + pause, next_poll_at(now, job.submitted_at))
    return Verdict(again_at=again_at, setback=why, missing=job.missing)
