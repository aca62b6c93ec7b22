"""Reports of runs that never were, with every kind of outcome: many at once, and the same ones."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import attrs

from segments_async._run.report import BulkReport
from segments_async._sansio.jobs.history import RunHistory, Times
from segments_async._sansio.pace.trace import PacePoint, PaceTrace, next_look
from segments_async.errors import (
    ExportFailedError,
    ExportTimeoutError,
    SubmitUnknownError,
    TargetExistsError,
)
from segments_async.models import Export, ExportStatus, Segment, SegmentType
from segments_async.results import Exported, ExportedFile, NotExported, Progress

NIGHT = datetime(2026, 11, 23, 2, tzinfo=UTC)
NAMES = (
    "Recent buyers",
    "Lapsed VIPs",
    "Registrations in the last 7 days",
    "Cart abandoned",
    "Newsletter",
    "App installs",
)
#: A link as no page may have it.
SIGNED = "https://bucket.s3.amazonaws.com/a.csv?X-Amz-Credential=AKIA&X-Amz-Signature=5ec4e7f00d"
#: Seconds for which the ticket guard holds the run that is made.
GUARDED = 60.0


@attrs.define
class Night:
    """A night's run of so many segments, drawn by chance: what happened to each, and the pace.

    Args:
        count: of segments.
        names: the first ones; the others are called after `NAMES`.
        faults: the share of segments without a file.
    """

    count: int
    names: Sequence[str] = ()
    faults: float = 0.02
    chance: random.Random = attrs.field(factory=lambda: random.Random(7))
    exported: list[Exported] = attrs.field(factory=list[Exported])
    missing: list[NotExported] = attrs.field(factory=list[NotExported])
    times: dict[str, Times] = attrs.field(factory=dict[str, Times])
    ended: float = 1.0
    history: RunHistory | None = None

    def report(self) -> BulkReport[Exported]:
        """The report of the night."""
        for number in range(self.count):
            self._export(number)
        self.history = RunHistory(
            times=self.times, pace=list(self._pace()), destination="/srv/exports"
        )
        done = len(self.exported)
        left = len(self.missing)
        size = sum(outcome.file.size for outcome in self.exported)
        progress = Progress(
            self.count, 0, 0, 0, done, 0, left, size, 4 * self.count, 9, 10.0, None, 0.0
        )
        return BulkReport(
            "2026-11-23T02-00-00Z",
            self.exported,
            self.missing,
            NIGHT,
            at(self.ended),
            progress,
            history=self.history,
        )

    @property
    def rate(self) -> float:
        """Exports requested per second."""
        return min(40.0, max(0.5, self.count / 60))

    @property
    def guarded_from(self) -> float:
        """When the vendor answers 500."""
        return self.count * 0.6 / self.rate

    def _export(self, number: int) -> None:
        chance = self.chance
        segment_id, export_id = (str(uuid.UUID(int=chance.getrandbits(128))) for _ in range(2))
        given = number < len(self.names)
        name = self.names[number] if given else f"{chance.choice(NAMES)} {number}"
        asked = number / self.rate
        asked += GUARDED if asked >= self.guarded_from else 0.0
        complete = asked + chance.lognormvariate(1.6, 0.8)
        ended = complete + chance.lognormvariate(-0.5, 0.7)
        self.ended = max(self.ended, ended)
        segment = Segment(segment_id, name, "p", SegmentType.DYNAMIC)
        export = Export(export_id, segment, ExportStatus.COMPLETE, NIGHT, filename=SIGNED)
        if not given and chance.random() < self.faults:
            self._fault(export, asked, complete)
            return
        unchanged = not given and chance.random() < 0.1
        file = ExportedFile(
            f"/srv/exports/{name[:40].replace(' ', '-')}-{segment_id[:8]}.csv",
            chance.randrange(100, 3_000_000),
            "ab" * 32,
            verified=True,
            export=export,
        )
        source = "unchanged" if unchanged else "exported"
        self.exported.append(Exported(segment_id, export, file, source))
        self.times[segment_id] = (
            Times(ended_at=at(0.2)) if unchanged else Times(at(asked), at(complete), at(ended))
        )

    def _fault(self, export: Export, asked: float, complete: float) -> None:
        segment_id, name = export.segment.segment_id, export.segment.name
        about = {"segment_id": segment_id, "export": export}
        which = f"segment {segment_id}"
        match self.chance.randrange(6):
            case 0 | 1 | 2:
                error = ExportFailedError(f"{which}: the vendor says FAILED", **about)
                outcome = NotExported(segment_id, export, error, "yes", resumable=False)
                times = Times(at(asked), None, at(complete))
            case 3:
                lost = SubmitUnknownError(
                    f"{which}: no answer came; the export may be running at the vendor",
                    segment_id=segment_id,
                )
                outcome = NotExported(segment_id, None, lost, "maybe", resumable=False, name=name)
                times = Times(ended_at=at(asked))
            case 4:
                path = f"/srv/exports/{segment_id}.csv"
                there = TargetExistsError(f"{path} exists; overwrite=True replaces it", path=path)
                outcome = NotExported(segment_id, None, there, "no", resumable=True, name=name)
                times = Times(ended_at=at(0.1))
            case _:
                late = ExportTimeoutError(
                    f"{which}: no time left after 600 s; the export is not lost", **about
                )
                outcome = NotExported(segment_id, export, late, "yes", resumable=True)
                times = Times(at(asked))
        self.missing.append(outcome)
        self.times[segment_id] = times

    def _pace(self) -> Iterator[PacePoint]:
        trace, now, believed = PaceTrace(), 0.0, 10.0
        while now < self.ended:
            step = next_look(now)
            guarded = self.guarded_from <= now < self.guarded_from + GUARDED
            requests, throttled, held = (0 if guarded else round(4 * self.rate * step)), 0, {}
            if guarded:
                held = {"ticket_guard": step}
            elif self.chance.random() < 0.06:
                throttled = 1 + requests // 6
                held, believed = {"rate_limit": step}, 4.4 * self.rate
            else:
                believed = min(6 * self.rate, 1.03 * believed)
            begin = NIGHT.timestamp() + now
            trace.add(PacePoint(begin, begin + step, step, requests, throttled, believed, held))
            now += step
        yield from trace.points


def at(seconds: float) -> datetime:
    """So many seconds into the night."""
    return NIGHT + timedelta(seconds=seconds)


#: Names that would be markup, code, formulas, another direction, or too long, if they were let.
HOSTILE = (
    "<script>document.title = 'owned'</script>",
    "</script><script>document.title = 'owned'</script>",
    "<!--<script>",
    "<img src=x onerror=\"document.title = 'owned'\">",
    "\"'><svg/onload=document.title='owned'>",
    "&lt;b&gt; & &amp; \u2028 line \u2029 end",
    "=HYPERLINK(\"https://example.com\"),'a;b'\t|c",
    "مستخدمون جدد",
    "\u202eesrever\u202c",
    "日本のユーザー",
    "${title} $title {{title}} %s {0}",
    "line\nbreak\x1b[31m\x00",
    "\ud800 alone",
    "x" * 10_000,
    SIGNED,
    "👩\u200d👩\u200d👧",
)
