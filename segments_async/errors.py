"""The errors of this library, under one root.

::

    SegmentsError
    ├── ConfigurationError            bad arguments, missing or malformed credentials, plain http
    │   └── TargetExistsError         a file is there already, and overwrite wasn't given; .path
    ├── APIError                      .method .path
    │   ├── APIConnectionError        no answer: no connection, or it broke; .sent
    │   │   └── APITimeoutError       the call's own timeout ended; .seconds
    │   ├── APIStatusError            .status_code .body .retry_after
    │   │   ├── AuthenticationError   401
    │   │   ├── PermissionDeniedError 403
    │   │   ├── NotFoundError         404
    │   │   ├── RateLimitedError      429; .scope
    │   │   └── ServerError           5xx
    │   └── DecodeError               .where
    ├── ExportError                   .segment_id .export
    │   ├── ExportFailedError         the vendor says FAILED
    │   ├── ExportTimeoutError        time ran out, the export goes on: resumable
    │   ├── ExportExpiredError        complete, and its file older than 48 hours
    │   ├── SubmitUnknownError        the answer to the POST was lost, or has no id
    │   └── NotSubmittedError         nothing was sent for this segment
    ├── DownloadError                 .export .reason
    ├── DestinationError              .reason: away, denied, missing, full, exists, broken
    ├── BulkExportError               .report; its class is in `_run/report`
    └── JournalError                  .reason: locked, damaged, newer, foreign... .location

Facts are attributes, so that no program has to read a message. No error holds a request or a
response: those carry credentials and signed links, and errors end up in logs and pickles.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from segments_async.models import Export

DownloadReason = Literal[
    "length",
    "checksum",
    "link_refused",
    "expired_link",
    "denied",
    "encoding",
    "disk_full",
    "broken",
]
DestinationReason = Literal["away", "denied", "missing", "full", "exists", "broken"]
JournalReason = Literal[
    "locked", "damaged", "newer", "foreign", "unsupported", "unavailable", "missing"
]


class SegmentsError(Exception):
    """The root of all errors that this library raises on purpose: catch it to catch them all."""

    def __init__(self, message: str, **facts: Any) -> None:
        # A message may have a vendor's text in it, and ends up in logs and on terminals.
        super().__init__(printable(message))
        # `None` facts are kept too: an attribute that is sometimes absent is a trap.
        self.__dict__.update(facts)

    def __reduce__(self) -> tuple[Any, ...]:
        # BaseException would call the class with `args` alone, and the facts are keyword-only.
        # __dict__ has more than the facts once somebody calls add_note().
        return _revive, (type(self), *self.args), self.__dict__


def _revive(cls: type[SegmentsError], *args: object) -> SegmentsError:
    return cls.__new__(cls, *args)


class ConfigurationError(SegmentsError):
    """The arguments can't work: bad values, missing or malformed credentials, plain http.

    Nothing was sent. The message names the argument or the variable, and what it may be: correct
    it, trying again changes nothing.
    """


class TargetExistsError(ConfigurationError):
    """A file is there already, and ``overwrite`` wasn't given. It was kept.

    Nothing was sent. Choose another path, or pass ``overwrite=True``.

    Attributes:
        path: the file's.
    """

    path: str

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message, path=path)


class APIError(SegmentsError):
    """A request to the vendor's API failed, after the attempts that are worth making.

    Raised by single calls; in a bulk run it is the ``error`` of a :class:`NotExported`. Its
    subclasses say what happened.

    Attributes:
        method: the HTTP method, such as ``"POST"``.
        path: the path on the API's host, without credentials or query.
    """

    method: str
    path: str

    def __init__(self, message: str, *, method: str, path: str, **facts: Any) -> None:
        super().__init__(message, method=method, path=path, **facts)


class APIConnectionError(APIError):
    """The connection to the API broke, or the answer took longer than ``request_timeout``.

    The call was tried again before, where that can do no harm. Try later. A submit that may have
    arrived is a :class:`SubmitUnknownError` instead.

    Attributes:
        sent: whether the request may have arrived. False only where it provably didn't (name
            resolution, connecting, waiting for a connection).
    """

    sent: bool

    def __init__(self, message: str, *, method: str, path: str, sent: bool) -> None:
        super().__init__(message, method=method, path=path, sent=sent)


class APITimeoutError(APIConnectionError):
    """The ``timeout`` of a call ended before an answer came.

    The calls with such a timeout, :meth:`SegmentsClient.list_segments` and
    :meth:`SegmentsClient.get_export`, change nothing at the vendor: call again, with a longer
    timeout if need be.

    Attributes:
        seconds: the timeout.
    """

    seconds: float

    def __init__(self, message: str, *, method: str, path: str, sent: bool, seconds: float) -> None:
        APIError.__init__(self, message, method=method, path=path, sent=sent, seconds=seconds)


class APIStatusError(APIError):
    """The API answered with a status code that isn't success.

    Raised as itself for a code without a class of its own, such as 400: the vendor refuses the
    request as it is, and the same request would be refused again. ``body`` has the vendor's reason.

    Attributes:
        status_code: as answered.
        body: an excerpt of the answer (at most 2 KiB), with whatever looks like a secret taken out.
        retry_after: seconds the vendor asked to wait, or None where it asked nothing. Read on
            429 and 503 only.
    """

    status_code: int
    body: str
    retry_after: float | None

    def __init__(
        self,
        message: str,
        *,
        method: str,
        path: str,
        status_code: int,
        body: str = "",
        retry_after: float | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(
            message,
            method=method,
            path=path,
            status_code=status_code,
            body=body,
            retry_after=retry_after,
            **facts,
        )


class AuthenticationError(APIStatusError):
    """401: the vendor couldn't validate API key and access token. The request isn't repeated.

    It ends a bulk run, and stays resumable with a journal. Correct the credentials: they are on the
    Project Page of the vendor's web application.
    """


class PermissionDeniedError(APIStatusError):
    """403: the project has no access to the Export API (it takes a Pro or Enterprise plan).

    It ends a bulk run. Ask the vendor for access; trying again changes nothing until then.
    """


class NotFoundError(APIStatusError):
    """404: no such segment or export in this account.

    Check the id, and that the credentials are of the project that has it. A segment may have been
    deleted since it was listed.
    """


class RateLimitedError(APIStatusError):
    """429, in each attempt of one call. The pause after it delays every request of the client.

    Exports of a run are never given up for it: they wait for their turn. Single calls raise it
    after five attempts. Call later, or find out who else uses the account's limit.

    Attributes:
        scope: which limit was hit (``"org"``, ``"account"``, ``"workspace"``...), where the
            vendor says so in ``X-mp-rate-limit-exceeded``; else None.
    """

    scope: str | None


class ServerError(APIStatusError):
    """5xx: a fault of the vendor's, or of a gateway before it.

    A 500 "will automatically raise a ticket with the Analytics team", so the client sends nothing
    for a minute or more after one, and doesn't repeat a submit that was answered so. Wait for the
    vendor to mend it.
    """


class DecodeError(APIError):
    """The API answered with success, and the body isn't as the vendor's page describes it.

    The vendor has changed its answers, or something in between answers in its place. Report it with
    ``where``.

    Attributes:
        where: a JSON path to the fault, such as ``"$[3].segmentId"``; ``"$"`` is the whole body.
    """

    where: str

    def __init__(self, message: str, *, method: str, path: str, where: str) -> None:
        super().__init__(message, method=method, path=path, where=where)


class ExportError(SegmentsError):
    """One export ended without a file. Its subclasses say why.

    Attributes:
        segment_id: the segment, or None where only an export id was known.
        export: the export as last seen, or None where there is none.
    """

    segment_id: str | None
    export: Export | None

    def __init__(
        self, message: str, *, segment_id: str | None = None, export: Export | None = None
    ) -> None:
        super().__init__(message, segment_id=segment_id, export=export)


class ExportFailedError(ExportError):
    """The vendor says FAILED.

    Another export of the segment may succeed: export it again, or pass ``retry_failed`` to a run.
    """


class ExportTimeoutError(ExportError):
    """Time ran out while the vendor was still at work. The export goes on there.

    Hand ``.export`` to :meth:`SegmentsClient.wait_for_export` to go on waiting. A run with a
    journal goes on with it in its next session.
    """


class ExportExpiredError(ExportError):
    """The export is complete and its file is gone: files stay "for no more than 48 hours".

    Export the segment again, or pass ``on_expired="resubmit"`` to a run.
    """


class SubmitUnknownError(ExportError):
    """The POST was sent, and its answer was lost or has no id: no poll can tell what came of it.

    The export may or may not be running at the vendor. The API has no idempotency key, so the POST
    is never silently repeated: exporting again may export the segment twice, which is your
    decision (``on_unknown="resubmit"`` makes it for a run). Where the answer has an id that can't
    go into a URL, the export does run, and ``.export`` has it.
    """


class NotSubmittedError(ExportError):
    """Nothing was sent for this segment: a run ended before its turn came.

    Its timeout ended, or its caller left it, or an error of the account ended it. Export the
    segment later; that is safe.
    """


class DownloadError(SegmentsError):
    """A file could not be fetched whole. The export itself is fine.

    Within 48 hours of its end, hand ``.export`` to :meth:`SegmentsClient.download_export`, or start
    the run again: the bytes that came are kept. ``reason`` says what has to change before.

    Attributes:
        export: the COMPLETE export.
        reason: ``"length"`` or ``"checksum"`` (what arrived isn't what was announced),
            ``"link_refused"`` (the link policy), ``"expired_link"``, ``"denied"`` (by storage),
            ``"encoding"`` (stored in a content coding that isn't decoded), ``"disk_full"``, or
            ``"broken"`` (the link to storage, or the local file system).
        by_policy: of ``"link_refused"``, whether the policy or this machine's configuration refuses
            every such link. False where this one link is malformed, and for other reasons.
    """

    export: Export | None
    reason: DownloadReason
    by_policy: bool

    def __init__(
        self,
        message: str,
        *,
        reason: DownloadReason,
        export: Export | None = None,
        by_policy: bool = False,
    ) -> None:
        super().__init__(message, reason=reason, export=export, by_policy=by_policy)


class DestinationError(SegmentsError):
    """Files can't be written to a :class:`Destination`, such as object storage.

    Raised when a run is entered: nothing was sent. What happens later to one file is
    a :class:`DownloadError`. A destination of your own raises it, too.

    Attributes:
        reason: ``"away"`` (it doesn't answer now, which may pass: files wait for it), ``"denied"``
            (the credentials, or a right, are missing), ``"missing"`` (the bucket doesn't exist, or
            is in another region), ``"full"``, ``"exists"`` (a file of that name, which may not be
            replaced), or ``"broken"``.
    """

    reason: DestinationReason

    def __init__(self, message: str, *, reason: DestinationReason) -> None:
        super().__init__(message, reason=reason)


class JournalError(SegmentsError):
    """The journal can't be used. The library never guesses what a damaged journal said.

    Raised when a run is entered: nothing was sent. docs/journal.md says what to do
    for each ``reason``.

    Attributes:
        reason: ``"locked"`` (a live process has the run, or writes without end), ``"damaged"``
            (also an older copy, which lacks events that were durable), ``"missing"`` (a
            :class:`Journal` was to be opened, and there is none), ``"newer"`` (written by a
            later version of this library), ``"foreign"`` (another account's, or no journal at all),
            ``"unsupported"`` (a network file system, a transaction pooler, another encoding), or
            ``"unavailable"`` (the directory can't be written, the disk is full, the database server
            is gone, a login or a right is missing: the journal is unharmed).
        location: the file, or the database server without user and password.
    """

    reason: JournalReason
    location: str

    def __init__(self, message: str, *, reason: JournalReason, location: str) -> None:
        super().__init__(message, reason=reason, location=location)


def printable(text: str) -> str:
    """The text with its control characters escaped, so that it can't give a terminal orders.

    A segment's name, a file's name and a server's message may hold such characters.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or unicodedata.category(char) == "Zs" else _escaped(char)
        for char in text
    )


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
