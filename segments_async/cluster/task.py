"""What travels between the coordinator and its workers: no credential, no link, nothing large."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import attrs

from segments_async._sansio.api.redaction import redact
from segments_async._sansio.jobs.workers import Machine
from segments_async.errors import SegmentsError, printable
from segments_async.models import Segment

#: Characters of an error's text that are kept.
_LONGEST_TEXT = 500


class WorkerOptions(TypedDict, total=False):
    """Keywords of each worker's client: those of :class:`~segments_async.SegmentsClient`.

    The credentials and the base URL come from the worker's own environment.

    Attributes:
        rate: requests/s that one batch sends at most, as of ``Pacer(rate=...)``.
        poll_share: as of the client, for one batch.
        max_pending: as of the client, for one batch.
        downloads: as of the client, for one batch.
        request_timeout: as of the client.
        file_hosts: as of the client.
    """

    rate: float
    poll_share: float
    max_pending: int
    downloads: int
    request_timeout: float
    file_hosts: Sequence[str]


@attrs.frozen(kw_only=True)
class Place:
    """Where a run's files and journal are.

    Attributes:
        location: of the files: an absolute path, or the URL of object storage.
        token: the name of a file of this call in that directory, by which a worker recognises it;
            None for object storage, which each worker reaches or tells that it doesn't.
        journal: a path, absolute, or a URL without a password.
        inode: device and inode of the nearest directory above a SQLite file; None for a server.
    """

    location: str
    token: str | None
    journal: str
    inode: tuple[int, int] | None


@attrs.frozen(kw_only=True)
class Batch:
    """One batch.

    Attributes:
        place: of the run.
        coordinator: the coordinator's machine.
        account: a digest of the account.
        run: the run's name.
        round: the round that the coordinator works in.
        segments: of the batch, in the order in which they are claimed.
        files: the name of each segment's file, by segment id.
        options: keywords of a bulk export.
        client: keywords of the worker's client.
        attempt: another text for each attempt: Dask takes a call with equal arguments for the same
            task, and answers with the result, or the error, that it has.
    """

    place: Place
    coordinator: Machine
    account: str
    run: str
    round: int
    segments: Sequence[Segment | str]
    files: Mapping[str, str]
    options: Mapping[str, Any]
    client: WorkerOptions
    attempt: str = ""


@attrs.frozen(kw_only=True)
class BatchEnd:
    """The result of one batch's task.

    Attributes:
        refusal: why this worker can't work at the run; nothing was sent then.
        error: what ended the session, other than the end of the batch.
        left: whether the worker left the run, since it was told to end, or didn't see the
            coordinator.
        requests: sent to the API.
        throttled: how many of those were answered 429.
    """

    refusal: str | None = None
    error: SegmentsError | None = None
    left: bool = False
    requests: int = 0
    throttled: int = 0


def name_of_attempt(attempt: str) -> str:
    """The part of an attempt's text, or of a process's name, that both have in common.

    An executor may run one attempt in two processes, which need names of their own.
    """
    return attempt[:16]


def portable(error: BaseException) -> SegmentsError:
    """The error, or one with its text where another process could not load it."""
    if isinstance(error, SegmentsError):
        try:
            copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
        except Exception:  # noqa: BLE001 - whatever a fact of the error can't do
            copy = None
        if type(copy) is type(error):
            return error
    return SegmentsError(told(error))


def told(error: BaseException) -> str:
    """An error as one short line, without whatever looks like a secret."""
    text = printable(redact(str(error)))[:_LONGEST_TEXT]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
