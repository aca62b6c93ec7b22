"""Why a file can't be fetched: storage's refusals and broken connections as public errors."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import NoReturn

import attrs

from segments_async._files.errors import AttemptFailed
from segments_async._http.storage import STORAGE_ERROR_CAP, StorageAnswer
from segments_async._sansio.api.retry_after import retry_after_seconds
from segments_async._sansio.files.links import LinkMalformed, LinkRefused
from segments_async._sansio.files.ranges import content_encoding
from segments_async._sansio.files.storage_errors import StorageError, storage_error
from segments_async._sansio.jobs.exports import file_since
from segments_async.errors import (
    APIConnectionError,
    APIError,
    DownloadError,
    DownloadReason,
    ExportExpiredError,
    RateLimitedError,
    ServerError,
)
from segments_async.models import Export

logger: logging.Logger = logging.getLogger("segments_async")

#: "The file will remain in Amazon for no more than 48 hours."
LIFETIME = timedelta(hours=48)

#: Asks the vendor for the export again, to get a fresh link.
Renew = Callable[[Export], Awaitable[Export]]


class LinkExpired(Exception):
    """The link no longer opens the file, which may still be there."""


class FileDenied(Exception):
    """Storage refuses the file."""

    def __init__(self, error: StorageError) -> None:
        super().__init__(error.message)
        self.error = error


def download_error(export: Export, reason: DownloadReason, what: str) -> DownloadError:
    return DownloadError(f"file of export {export.export_id}: {what}", reason=reason, export=export)


def as_download_error(export: Export, exc: Exception) -> DownloadError:
    """The public error for what ended a download. Raise it `from None`.

    The frames of these exceptions hold the link, or storage's answer.
    """
    if isinstance(exc, LinkRefused):
        return DownloadError(
            f"file of export {export.export_id}: {exc}",
            reason="link_refused",
            export=export,
            by_policy=not isinstance(exc, LinkMalformed),
        )
    if isinstance(exc, FileDenied):
        return download_error(export, exc.error.reason, exc.error.message)
    reason: DownloadReason = "expired_link" if isinstance(exc, LinkExpired) else "broken"
    return download_error(export, reason, str(exc))


def link_of(export: Export) -> str:
    if not export.filename:
        raise LinkMalformed("the export has no link")
    return export.filename


async def refuse(export: Export, answer: StorageAnswer) -> NoReturn:
    """Raise what an answer without the file means, by its status and its error page.

    Raises:
        DownloadError: the file is stored in a coding that isn't decoded.
        AttemptFailed: the refusal may pass.
        ExportExpiredError: the file is gone, and its 48 hours are over.
        LinkExpired: a new link may help.
        FileDenied: nothing that this library can do would help.
    """
    if answer.status == 200:
        names = content_encoding(answer.headers)
        what = f"the file is stored in a content encoding that isn't decoded: {names}"
        raise download_error(export, "encoding", what)
    error = storage_error(answer.status, answer.headers, await _error_page(answer))
    if error.remedy == "wait":
        pause = retry_after_seconds(answer.status, answer.headers)
        raise AttemptFailed(error.message, pause, away=answer.away)
    if error.gone and _past_lifetime(export, answer):
        raise ExportExpiredError(
            f"the file of export {export.export_id} is gone: files stay for no more than 48 hours",
            segment_id=export.segment.segment_id,
            export=export,
        )
    if error.remedy == "new_link":
        raise LinkExpired(error.message)
    raise FileDenied(error)


async def _error_page(answer: StorageAnswer) -> bytes:
    page = b""
    async for chunk in answer.chunks:
        page += chunk
        if len(page) >= STORAGE_ERROR_CAP:
            break
    return page[:STORAGE_ERROR_CAP]


def _past_lifetime(export: Export, answer: StorageAnswer) -> bool:
    """Whether the file's 48 hours are over, by storage's clock."""
    try:
        now = parsedate_to_datetime(answer.headers.get("date", ""))
    except (ValueError, TypeError, OverflowError):
        return False
    since = file_since(export)
    return now.tzinfo is not None and since is not None and now - since >= LIFETIME


async def with_fresh_link(export: Export, renew: Renew) -> Export:
    """The export with a fresh link, and no other change: it is the same export.

    Raises:
        AttemptFailed: the vendor is unavailable, which says nothing of the export.
        DownloadError: the vendor gives no other link.
    """
    try:
        fresh = await renew(export)
    except (APIConnectionError, RateLimitedError, ServerError) as exc:
        raise AttemptFailed(
            f"the link has expired, and the vendor could not be asked for another: {exc}"
        ) from exc
    except APIError as exc:
        what = f"the link has expired, and asking the vendor for another failed: {exc}"
        raise download_error(export, "expired_link", what) from exc
    if not fresh.filename:
        what = "the link has expired, and the vendor's answer has no other"
        raise download_error(export, "expired_link", what)
    logger.info("file of export %s: the link had expired, and was renewed", export.export_id)
    return attrs.evolve(export, filename=fresh.filename)
