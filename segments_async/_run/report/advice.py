"""What can be done where a segment has no file, and what the reasons of a hold mean."""

from __future__ import annotations

import attrs

from segments_async._run.report.rows import Problem, Row, RowState, Stage
from segments_async.results import HeldReason

_GO_ON = (
    "The same call with a journal, or the same command, goes on with it; no export is requested "
    "twice."
)

#: Errors after which the same call can succeed later, while the reader changes nothing.
_GOES_ON = frozenset(
    {
        "ExportTimeoutError",
        "NotSubmittedError",
        "DownloadError",
        "APIConnectionError",
        "APITimeoutError",
        "RateLimitedError",
        "ServerError",
        "JournalError",
    }
)

#: The advice on each error, by the name of its class.
_BY_KIND = {
    "ExportFailedError": (
        "The vendor gives no cause. Export the segment again; retry_failed=1 (--retry-failed 1) "
        "asks once more by itself, a minute later."
    ),
    "ExportTimeoutError": (
        "The export goes on at the vendor: when it is complete, "
        "`segments-async download EXPORT_ID --to FILE` fetches its file."
    ),
    "ExportExpiredError": (
        "The vendor deletes files after 48 hours. on_expired='resubmit' (--on-expired resubmit) "
        "asks for one more export."
    ),
    "SubmitUnknownError": (
        "An export may be running; no other was requested. Exporting the segment again, or "
        "on_unknown='resubmit' (--on-unknown resubmit), risks a second export."
    ),
    "NotSubmittedError": "Nothing was sent for the segment: export it again.",
    "TargetExistsError": "The file was kept; overwrite=True (--overwrite) replaces it.",
    "NotFoundError": "The vendor doesn't know the segment: `segments-async list` has the ids.",
    "RateLimitedError": "The vendor refused the request: export the segment again, later.",
    "ServerError": (
        "The vendor opens a ticket with its support after an answer of 500. Wait for its answer, "
        "then export the segment again."
    ),
    "AuthenticationError": "Look at the API key and the access token, on the Project Page.",
    "PermissionDeniedError": (
        "The account may not use the Export API, which is for Pro and Enterprise customers."
    ),
    "APIConnectionError": "Look at the network, then export the segment again.",
    "APITimeoutError": "Look at the network, then export the segment again.",
    "DecodeError": (
        "The vendor's answer was not what its page says. Report it, with the message above."
    ),
    "DestinationError": "docs/objects.md has what has to be there before files can be written.",
    "JournalError": "docs/journal.md has what to do about each reason of a journal's error.",
    "ConfigurationError": "The segment can't be exported as it was given; correct it first.",
}

#: The advice on a DownloadError, by its `reason`.
_BY_REASON = {
    "link_refused": (
        "The link's host is not among the hosts of files; file_hosts=... (--file-host HOST) admits "
        "it."
    ),
    "disk_full": "Make room on the disk. What was fetched is kept.",
    "denied": "Storage refused the link, or the AWS credentials may not read the file.",
    "encoding": "The file has a coding that isn't read. Report it, with the message above.",
}
_DOWNLOAD = (
    "The export is complete: until 48 hours after its completion, "
    "`segments-async download EXPORT_ID --to FILE` fetches its file."
)


@attrs.frozen
class HeldWords:
    """The words for one reason of a hold.

    Attributes:
        label: in a picture and a table.
        by: after "held by".
        meaning: a sentence or two.
    """

    label: str
    by: str
    meaning: str


HELD: dict[HeldReason, HeldWords] = {
    HeldReason.TICKET_GUARD: HeldWords(
        "Pause after a 500",
        "the pause after an answer of 500",
        "The vendor answered 500 and opened a support ticket. Nothing was sent for a while.",
    ),
    HeldReason.VENDOR_AWAY: HeldWords(
        "Vendor away",
        "a vendor that could not be reached",
        "The API could not be reached. One request at a time was tried.",
    ),
    HeldReason.STORAGE_AWAY: HeldWords(
        "Storage away",
        "storage that could not be reached",
        "Storage could not be reached. One download at a time was tried.",
    ),
    HeldReason.DESTINATION_AWAY: HeldWords(
        "Destination away",
        "object storage that could not be reached",
        "The place that the files go to could not be reached. Files waited, and were begun again.",
    ),
    HeldReason.STORAGE_CREDENTIALS: HeldWords(
        "AWS credentials",
        "AWS credentials that could not be read",
        "The credentials for s3:// links could not be read or refreshed.",
    ),
    HeldReason.JOURNAL_AWAY: HeldWords(
        "Journal away",
        "a journal that could not be written",
        "The journal could not be written. No export was asked for meanwhile.",
    ),
    HeldReason.RATE_LIMIT: HeldWords(
        "Rate limit",
        "the vendor's rate limit",
        "The vendor answered 429, or its limit was below one request a second.",
    ),
    HeldReason.SHARED_LIMIT: HeldWords(
        "Shared limit",
        "other processes, which share the rate limit",
        "This process's part of the account's limit was below one request a second.",
    ),
    HeldReason.JOB_CAP: HeldWords(
        "Cap on exports",
        "the number of exports that may run at once",
        "As many exports ran as max_pending, or the vendor, admits.",
    ),
    HeldReason.OTHER_PROCESSES: HeldWords(
        "Other processes",
        "other processes of the run, which worked at the rest",
        "Nothing was left for this process, and other processes of the run worked at the rest.",
    ),
}


def advice(problem: Problem) -> str:
    """What can be done about a problem, in a sentence or two."""
    if problem.kind == "DownloadError":
        known = _BY_REASON.get(problem.reason or "", _DOWNLOAD)
    else:
        known = _BY_KIND.get(problem.kind, "Export the segment again.")
    return f"{_GO_ON} {known}" if problem.resumable and problem.kind in _GOES_ON else known


def unfinished_advice(rows: list[Row]) -> str:
    """What can be done about exports that have no outcome yet."""
    if any(row.state is RowState.UNFINISHED and row.stage is not Stage.WAITING for row in rows):
        return (
            "Some of them run at the vendor, or are complete there. `segments-async resume` or the "
            "same call goes on with them; no export is requested twice."
        )
    return "`segments-async resume` or the same call goes on with them."


def held_words(reason: str) -> HeldWords:
    """The words for a reason; of one that this version doesn't know, the reason itself."""
    known = HELD.get(HeldReason(reason)) if reason in set(HeldReason) else None
    return known or HeldWords(reason, reason, "")
