"""Judges a run by the vendor's record and the disk, and never by the client's own report.

Each function returns complaints: sentences; none where all promises held.
"""

from __future__ import annotations

import bisect
import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from segments_async import Exported, NotExported
from segments_async.sandbox import Entry, Record, Sandbox

#: Seconds that a request may be on its way to the vendor: a request that was sent before a 500 came
#: may arrive after the 500.
ON_ITS_WAY = 2.0

#: The ticket guard's shortest pause (promises.md: "nothing is sent for 60 s").
GUARD = 60.0

#: "At most 6 answers of 500 in one run."
MOST_INTERNAL_ERRORS = 6


@attrs.frozen
class Told:
    """An outcome in plain values, which another process can send."""

    segment_id: str
    #: The name of the error's class; None where there is a file.
    error: str | None
    submitted: str = "yes"
    resumable: bool = False
    file: str | None = None
    sha256: str | None = None
    source: str | None = None

    @classmethod
    def of(cls, outcome: Exported | NotExported) -> Told:
        if isinstance(outcome, Exported):
            file = outcome.file
            return cls(
                outcome.segment_id,
                None,
                file=file.location,
                sha256=file.sha256,
                source=outcome.source,
            )
        return cls(
            outcome.segment_id, type(outcome.error).__name__, outcome.submitted, outcome.resumable
        )


class Contents:
    """The sandbox's files, by their digests."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._known: dict[tuple[str, int], str] = {}

    def sha256(self, segment_id: str, attempt: int = 0) -> str:
        key = segment_id, attempt
        if key not in self._known:
            self._known[key] = self._sandbox.sha256(*key)
        return self._known[key]

    def of_exports_made(self) -> dict[str, set[str]]:
        """The digests of each segment's exported files."""
        made = self._sandbox.record.exports_per_segment()
        return {s: {self.sha256(s, n) for n in range(count)} for s, count in made.items()}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def half_files(contents: Contents, directory: Path) -> list[str]:
    """Every file under its final name is the whole file of an export that the vendor made."""
    files = sorted(directory.glob("*.csv")) if directory.exists() else []
    if not files:
        return []
    whole = set[str]().union(*contents.of_exports_made().values())
    return [f"{path.name} is not whole" for path in files if digest(path) not in whole]


def may_have_acted(entry: Entry) -> bool:
    """Whether a POST may have begun an export, as far as its answer shows; 4xx refuse."""
    return entry.status is None or not 400 <= entry.status <= 499


def duplicates(record: Record) -> list[str]:
    """No second export, and no second POST where the first one may have been acted on."""
    posts = Counter(e.segment_id for e in record.submits() if may_have_acted(e))
    return [
        *(f"{made} exports of {segment}" for segment, made in record.duplicates().items()),
        *(f"{count} POSTs for {segment}" for segment, count in posts.items() if count > 1),
    ]


def unaccounted(
    sandbox: Sandbox,
    contents: Contents,
    outcomes: Sequence[Told],
    *,
    killed: bool,
    gone: Collection[str] = (),
    deleted: Collection[str] = (),
) -> list[str]:
    """Each segment has one outcome in the last, undisturbed session, and the outcome is true.

    Args:
        sandbox: the vendor.
        contents: of the vendor's files.
        outcomes: of the last session.
        killed: whether an earlier session was killed. Then the journal may know a POST's INTENT
            alone.
        gone: segments whose exports' files were past their 48 hours.
        deleted: segments whose files were deleted on this machine.
    """
    counts = Counter(told.segment_id for told in outcomes)
    made = contents.of_exports_made()
    found = [
        f"{counts[segment]} outcomes for {segment}"
        for segment in {*sandbox.segment_ids, *counts}
        if counts[segment] != 1 or segment not in sandbox.segment_ids
    ]
    for told in outcomes:
        why = _untrue(sandbox, told, made, killed=killed, gone=gone)
        if told.error == "DownloadError" and not told.resumable and told.segment_id in deleted:
            continue  # of a finished run, in which nothing is exported again
        if why is not None:
            found.append(f"{told.segment_id}: {why} ({told})")
    return found


def _untrue(
    sandbox: Sandbox,
    told: Told,
    made: Mapping[str, set[str]],
    *,
    killed: bool,
    gone: Collection[str],
) -> str | None:
    posts = sandbox.record.submits(told.segment_id)
    match told.error:
        case None:
            path = Path(told.file or "")
            if not path.is_file():
                return "no file"
            if told.sha256 not in made.get(told.segment_id, ()) or digest(path) != told.sha256:
                return "not the segment's file"
        case "SubmitUnknownError":
            if told.submitted != "maybe" or told.resumable:
                return "an unknown POST is told as something else"
            if not posts and not killed:
                return "unknown, and there was no POST"
        case "ServerError":
            if told.submitted != "maybe" or not any(e.status == 500 for e in posts):
                return "no POST was answered 500"
        case "ExportFailedError":
            attempts = sum(e.acted for e in posts)
            if not any(sandbox.fails(told.segment_id, n) for n in range(attempts)):
                return "the vendor never said so"
        case "ExportExpiredError":
            if told.segment_id not in gone:
                return "the file is there"
        case _:
            return "an end that no fault explains"
    return None


def hammered(record: Record, *, since: int, guarded_since: int) -> list[str]:
    """One session gets few answers of 500, and sends nothing while the ticket guard is armed.

    Args:
        record: the vendor's.
        since: the number of requests before this session.
        guarded_since: the number of requests before the sessions whose 500s this one knows of.
    """
    api = [e for e in record.api() if e.number > guarded_since]
    errors = [e for e in api if e.status == 500 and e.ended_at is not None and e.lost == "no"]
    found = []
    if (count := sum(e.number > since for e in errors)) > MOST_INTERNAL_ERRORS:
        found.append(f"{count} answers of 500 in one session")
    for error in errors:
        start, end = (error.ended_at or 0.0) + ON_ITS_WAY, (error.ended_at or 0.0) + GUARD - 1.0
        found += [
            f"{e.method} {e.path} {e.at - (error.ended_at or 0.0):.1f} s after a 500"
            for e in api
            if e.number > since and start < e.at < end
        ]
    return found


def busiest_second(entries: Sequence[Entry], *, since: float) -> int:
    """The most requests in any second from `since` on, with any answer."""
    times = sorted(entry.at for entry in entries if entry.at >= since)
    return max((bisect.bisect_left(times, at + 1.0) - n for n, at in enumerate(times)), default=0)


def told_credentials(record: Record) -> list[str]:
    """Storage never gets the API's credentials."""
    return [
        f"credentials went to {e.path.partition('?')[0]}"
        for e in record.credentials_seen_by_files()
    ]


def secrets_on_disk(directory: Path, secrets: Sequence[bytes]) -> list[str]:
    """No signed link and no credential is in the other files that a run leaves."""
    return [
        f"{path.name} holds a secret"
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.suffix != ".csv"
        for secret in secrets
        if secret in path.read_bytes()
    ]


def dump(outcomes: Sequence[Told]) -> str:
    return json.dumps([attrs.asdict(told) for told in outcomes])


def load(text: str) -> list[Told]:
    values: list[dict[str, Any]] = json.loads(text)
    return [Told(**value) for value in values]
