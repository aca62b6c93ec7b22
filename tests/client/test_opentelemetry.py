"""OpenTelemetry: a span for each export, metrics with few attributes, and nothing without it."""

from __future__ import annotations

import functools
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import attrs
import httpx
import pytest
from frames import BASIC
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, SpanKind, StatusCode

import segments_async
from client.test_credentials import _troubled
from client.vendor import STEADY, connected
from segments_async import ExportTimeoutError, Pacer, errors
from segments_async._telemetry.listener import Operation, OutcomeKind
from segments_async._telemetry.otel import current_metrics, open_telemetry
from segments_async.results import HeldReason
from segments_async.sandbox import (
    PAGE_ACCESS_TOKEN,
    Fault,
    FixedWindow,
    Sandbox,
    SandboxTransport,
)

pytestmark = pytest.mark.alternating

#: Of the errors: no export ends with one of these itself.
BASES = {"SegmentsError", "APIError", "ExportError"}

SECRETS = (PAGE_ACCESS_TOKEN, BASIC, "X-Amz-Signature", "X-Amz-Credential", "0badc0de", "https://")


@attrs.frozen
class Telemetry:
    """The SDK's providers, and what they were told."""

    tracers: TracerProvider
    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def values(self, name: str) -> dict[tuple[Any, ...], Any]:
        """The points of a metric, by the values of their attributes: sums, or counts."""
        data = self.reader.get_metrics_data()
        points: list[Any] = [
            point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]
        return {
            tuple(point.attributes.values()): (
                point.value if hasattr(point, "value") else point.count
            )
            for point in points
        }

    def counted(self, name: str) -> dict[tuple[Any, ...], Any]:
        """The points of a counter that aren't 0: each has a 0 for every outcome and reason."""
        return {attributes: value for attributes, value in self.values(name).items() if value}


@pytest.fixture
def otel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Telemetry]:
    """Providers in use, for one test: the API sets one only once in a process."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider([reader])
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: tracers)
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: meters)
    yield Telemetry(tracers, exporter, reader)
    tracers.shutdown()
    meters.shutdown()


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


def own(span: ReadableSpan) -> SpanContext:
    assert span.context is not None
    return span.context


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


# --------------------------------------------------------------------- spans


async def test_each_export_is_a_trace_of_its_own(otel: Telemetry, tmp_path: Path) -> None:
    """An export of a run is one span with two inside, POST and file; polls have none."""
    sandbox = Sandbox(segments=5, rows=2, durations=STEADY, latency=0.5)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, tmp_path)
    exports = {attributes(s)["segments.segment.id"]: s for s in otel.named("segments.export")}
    assert len(otel.spans) == 15
    for outcome in report.exported:
        span = exports[outcome.segment_id]
        assert attributes(span) == {
            "segments.outcome": "exported",
            "segments.run": report.name,
            "segments.segment.id": outcome.segment_id,
            "segments.export.id": outcome.export.export_id,
            "segments.file.size": outcome.file.size,
        }
        inside = [s for s in otel.spans if s.parent and s.parent.span_id == own(span).span_id]
        assert sorted(s.name for s in inside) == ["segments.fetch", "segments.submit"]
        assert (span.parent, span.kind, span.status.status_code) == (
            None,
            SpanKind.INTERNAL,
            StatusCode.UNSET,
        )
    assert len({own(s).trace_id for s in exports.values()}) == 5


async def test_a_span_has_the_times_of_the_export(otel: Telemetry, tmp_path: Path) -> None:
    """The span lasts from the POST to the file, the inner ones as their requests; in order."""
    sandbox = Sandbox(segments=1, rows=2, durations=STEADY, latency=0.5)
    async with connected(sandbox) as client:
        began = anyio.current_time()
        await client.export(sandbox.segment_ids[0], tmp_path / "a.csv")
        took = anyio.current_time() - began
    (export,), (submit,), (fetch,) = (
        otel.named(f"segments.{name}") for name in ("export", "submit", "fetch")
    )
    assert seconds(export) == pytest.approx(took, abs=0.1)
    assert 0.1 < seconds(submit) < 1.5
    assert 0 <= seconds(fetch) < 1.5
    times = [export.start_time, submit.start_time, submit.end_time, fetch.start_time]
    times += [fetch.end_time, export.end_time]
    assert [one or 0 for one in times] == sorted(one or 0 for one in times)


async def test_a_span_begins_where_an_earlier_session_submitted(
    otel: Telemetry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export that is taken up has one span, of its outcome, and no span of the POST."""
    sandbox = Sandbox(segments=1, rows=2, durations=STEADY)
    journal = tmp_path / "runs.db"
    async with connected(sandbox) as client:
        await client.bulk_export(sandbox.segment_ids, tmp_path, journal=journal, timeout=1)
        left = otel.spans
        otel.exporter.clear()
        await client.bulk_export(sandbox.segment_ids, tmp_path, journal=journal)
    assert [attributes(s).get("error.type") for s in left if s.name == "segments.export"] == [
        "ExportTimeoutError"
    ]
    assert sorted(s.name for s in otel.spans) == ["segments.export", "segments.fetch"]
    assert len(sandbox.record.submits()) == 1


async def test_an_export_without_a_file_has_the_error(otel: Telemetry, tmp_path: Path) -> None:
    """The status is an error, `error.type` the class, and the message the error's."""
    sandbox = Sandbox(segments=3, rows=2, durations=STEADY)
    sandbox.inject(Fault.LOST_AFTER, method="POST", segment_id=sandbox.segment_ids[1])
    sandbox.inject(Fault.status(410), origin="files", segment_id=sandbox.segment_ids[2], times=9)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, tmp_path)
    told = {
        attributes(s)["segments.segment.id"]: (attributes(s).get("error.type"), s.status)
        for s in otel.named("segments.export")
    }
    assert len(report.not_exported) == 2
    for outcome in report.not_exported:
        kind, status = told[outcome.segment_id]
        assert kind == type(outcome.error).__name__
        assert (status.status_code, status.description) == (StatusCode.ERROR, str(outcome.error))
    (submit,) = [s for s in otel.named("segments.submit") if attributes(s)]
    assert attributes(submit) == {"error.type": "lost"}


async def test_what_was_never_asked_for_has_no_span(otel: Telemetry, tmp_path: Path) -> None:
    """A file that is there already is counted, and makes no span."""
    sandbox = Sandbox(segments=1, rows=2, durations=STEADY)
    async with connected(sandbox) as client:
        await client.bulk_export(sandbox.segment_ids, tmp_path)
        otel.exporter.clear()
        await client.bulk_export(sandbox.segment_ids, tmp_path)
    assert otel.spans == []
    assert otel.values("segments.exports")["not_exported", "TargetExistsError"] == 1


async def test_exports_that_failed_and_were_asked_for_again(otel: Telemetry) -> None:
    """Each export has its span: the one that FAILED, and the one that replaced it."""
    sandbox = Sandbox(segments=2, durations=STEADY, failed=1.0)
    async with connected(sandbox) as client:
        await client.bulk_export(sandbox.segment_ids, None, retry_failed=1)
    spans = otel.named("segments.export")
    assert len(spans) == 4
    assert {attributes(s)["error.type"] for s in spans} == {"ExportFailedError"}
    assert len({attributes(s)["segments.export.id"] for s in spans}) == 4
    assert all(seconds(s) < 30 for s in spans), "the minute's pause belongs to no export"


async def test_a_run_is_linked_to_the_span_it_was_entered_in(otel: Telemetry) -> None:
    """A run's exports are no children of the caller's span, which may be a web request's."""
    sandbox = Sandbox(segments=2, durations=STEADY)
    tracer = otel.tracers.get_tracer("service")
    async with connected(sandbox) as client:
        with tracer.start_as_current_span("request") as span:
            await client.bulk_export(sandbox.segment_ids, None)
            assert trace.get_current_span() is span
    exports = otel.named("segments.export")
    assert [s.parent for s in exports] == [None, None]
    links = {link.context.span_id for s in exports for link in s.links}
    assert links == {span.get_span_context().span_id}


async def test_a_call_is_a_child_of_its_callers_span(otel: Telemetry, tmp_path: Path) -> None:
    """Concurrent calls that share an export, and requests: each is in its own caller's trace."""
    sandbox = Sandbox(segments=1, rows=2, durations=STEADY)
    tracer = otel.tracers.get_tracer("service")
    parents: dict[str, int] = {}

    async def call(name: str) -> None:
        with tracer.start_as_current_span(name) as span:
            parents[name] = span.get_span_context().span_id
            await client.export(sandbox.segment_ids[0], tmp_path / name)
            assert trace.get_current_span() is span

    async with connected(sandbox) as client, anyio.create_task_group() as tasks:
        for name in ("a", "b", "c"):
            tasks.start_soon(call, name)
            await anyio.sleep(0.5)
    exports = otel.named("segments.export")
    assert {s.parent.span_id for s in exports if s.parent} == set(parents.values())
    assert len(exports) == 3
    assert len(sandbox.record.submits()) == 1
    assert len(otel.named("segments.submit")) == 1


async def test_a_cancelled_call_ends_its_span(otel: Telemetry, tmp_path: Path) -> None:
    """A call that is cancelled, wherever, has a span that ended, and that is no error."""
    sandbox = Sandbox(segments=1, rows=2, durations=STEADY, latency=0.2)
    async with connected(sandbox) as client:
        for left_after in (0.1, 1.0, 4.3):
            with anyio.move_on_after(left_after):
                await client.export(sandbox.segment_ids[0], tmp_path / f"{left_after}.csv")
            await anyio.sleep(10)
    spans = otel.named("segments.export")
    assert len(spans) == 3
    assert {attributes(s)["segments.outcome"] for s in spans} <= {"cancelled", "exported"}
    assert attributes(spans[0])["segments.outcome"] == "cancelled"
    assert {s.status.status_code for s in spans} == {StatusCode.UNSET}
    assert all(s.end_time for s in otel.spans)


async def test_the_steps_by_themselves_have_a_span_each(otel: Telemetry, tmp_path: Path) -> None:
    """`request_export`, `wait_for_export` and `download_export` have one span each."""
    sandbox = Sandbox(segments=1, rows=2, durations=STEADY)
    async with connected(sandbox) as client:
        export = await client.request_export(sandbox.segment_ids[0])
        with pytest.raises(ExportTimeoutError):
            await client.wait_for_export(export, timeout=1)
        export = await client.wait_for_export(export)
        await client.download_export(export, tmp_path / "a.csv")
    assert [(s.name, attributes(s)["segments.outcome"]) for s in otel.spans] == [
        ("segments.submit", "requested"),
        ("segments.export", "not_exported"),
        ("segments.export", "completed"),
        ("segments.fetch", "exported"),
    ]
    assert sum(otel.values("segments.exports").values()) == 2


# --------------------------------------------------------------------- metrics


async def test_metrics_say_what_the_sandbox_recorded(otel: Telemetry, tmp_path: Path) -> None:
    """Exports by outcome, durations, bytes, 429s and unknown submits are those of the vendor."""
    sandbox = Sandbox(segments=60, rows=20, durations=STEADY, limit=FixedWindow(40, 30))
    sandbox.inject(Fault.LOST_AFTER, method="POST", segment_id=sandbox.segment_ids[7])
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, tmp_path)
    values = otel.values
    assert otel.counted("segments.exports") == {
        ("exported",): 59,
        ("not_exported", "SubmitUnknownError"): 1,
    }
    assert values("segments.export.duration") == otel.counted("segments.exports")
    assert values("segments.file.size") == {(): sum(o.file.size for o in report.exported)}
    refused = sum(entry.status == 429 for entry in sandbox.record)
    assert values("segments.throttled_requests") == {(): refused}
    assert values("segments.unknown_submits") == {(): 1}


async def test_counters_begin_at_zero_before_the_first_request(otel: Telemetry) -> None:
    """A client that is entered has a 0 for each outcome, reason, and class of an export's error.

    Prometheus sees no increase in a series whose first sample is 1.
    """
    async with connected(Sandbox()):
        exports = otel.values("segments.exports")
        assert {outcome for outcome, *_ in exports} == set(OutcomeKind) - {"requested"}
        classes = {error for _, *rest in exports for error in rest}
        assert classes == set(segments_async.__all__) & set(dir(errors)) - BASES
        reasons = otel.values("segments.held.time")
        assert reasons == {(reason.value,): 0 for reason in HeldReason}
        for name in ("file.size", "throttled_requests", "unknown_submits"):
            assert otel.values(f"segments.{name}") == {(): 0}
        assert set(exports.values()) == {0}


async def test_a_quantile_of_durations_is_no_guess(otel: Telemetry) -> None:
    """Two buckets that follow one another differ by a factor of 3 at most; the last is 48 hours."""
    sandbox = Sandbox(durations=STEADY)
    async with connected(sandbox) as client:
        await client.bulk_export(sandbox.segment_ids, None)
    data = otel.reader.get_metrics_data()
    assert data is not None
    (bounds,) = (
        list(point.explicit_bounds)
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
        if metric.name == "segments.export.duration"
        for point in metric.data.data_points
        if isinstance(point, HistogramDataPoint)
    )
    assert max(high / low for low, high in itertools.pairwise(bounds)) <= 3
    assert bounds[-1] == 48 * 3600


async def test_the_time_that_a_run_is_held_is_counted_by_its_reason(otel: Telemetry) -> None:
    """The minute after a 500 is a minute of `ticket_guard`, to a second or two."""
    sandbox = Sandbox(segments=5, durations=STEADY)
    sandbox.inject(Fault.status(500), method="GET", path="export/")
    async with connected(sandbox) as client:
        await client.bulk_export(sandbox.segment_ids, None)
    held = otel.counted("segments.held.time")
    assert held.keys() == {("ticket_guard",)}
    assert held["ticket_guard",] == pytest.approx(60, abs=2)


async def test_active_exports_are_where_progress_has_them(otel: Telemetry) -> None:
    """While a run and a call go on, each export is in one place; afterwards none is."""
    sandbox = Sandbox(segments=30, durations=STEADY)
    seen = 0
    async with (
        connected(sandbox, pacer=Pacer(rate=5)) as client,
        client.open_bulk_export(sandbox.segment_ids[:-1], None) as run,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(client.request_export, sandbox.segment_ids[-1])
        await anyio.sleep(0.1)
        while run.progress.exported < 29:
            now = run.progress
            active = otel.values("segments.active_exports")
            assert active["pending",] == now.pending
            assert now.waiting <= active["waiting",] <= now.waiting + 1
            seen += bool(now.pending)
            await anyio.sleep(0.5)
    assert seen > 3
    assert otel.values("segments.active_exports") == {
        ("waiting",): 0,
        ("pending",): 0,
        ("fetching",): 0,
    }


async def test_a_runs_leftovers_are_not_active(otel: Telemetry) -> None:
    """After a run that was left, or that the account ended, nothing counts as active."""
    sandbox = Sandbox(segments=30, durations=STEADY)
    async with connected(sandbox) as client:
        async with client.open_bulk_export(sandbox.segment_ids, None):
            await anyio.sleep(2)
            assert sum(otel.values("segments.active_exports").values()) == 30
        with anyio.move_on_after(1):
            await client.bulk_export(sandbox.segment_ids, None)
    assert set(otel.values("segments.active_exports").values()) == {0}


async def test_the_age_of_the_oldest_file_is_told(otel: Telemetry, tmp_path: Path) -> None:
    """While storage is away, the age of the oldest file that waits is told; 0 where none waits."""
    epoch = datetime.now(UTC) - timedelta(hours=40)
    sandbox = Sandbox(segments=3, rows=2, durations=STEADY, epoch=epoch)
    sandbox.inject(Fault.status(503), origin="files", times=6)
    ages: list[float] = []
    async with (
        connected(sandbox) as client,
        client.open_bulk_export(sandbox.segment_ids, tmp_path) as run,
    ):
        while run.progress.exported < 3:
            ages += otel.values("segments.file.age").values()
            await anyio.sleep(0.5)
    assert ages[0] == 0
    assert max(ages) == pytest.approx(timedelta(hours=40).total_seconds(), abs=300)
    assert otel.values("segments.file.age") == {(): 0}


async def test_attributes_have_few_values(otel: Telemetry, tmp_path: Path) -> None:
    """No metric has an attribute whose values come from the vendor or the caller."""
    sandbox = _troubled(Sandbox(segments=10, rows=5))
    sandbox.inject(Fault.status(500), method="GET", path="export/")
    async with connected(sandbox) as client:
        await client.bulk_export(await client.list_segments(), tmp_path)
    data = otel.reader.get_metrics_data()
    assert data is not None
    names = {
        key
        for scope in data.resource_metrics[0].scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
        for key in point.attributes or {}
    }
    assert names == {
        "error.type",
        "segments.held.reason",
        "segments.outcome",
        "segments.state",
    }


async def test_many_clients_make_the_instruments_once(
    otel: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    """A hundred clients bring no warning of a second instrument, and none of them is kept."""
    sandbox = Sandbox(segments=1, durations=STEADY)
    for _ in range(100):
        async with connected(sandbox) as client:
            await client.bulk_export(sandbox.segment_ids, None)
    assert caplog.records == []
    found = current_metrics()
    assert found is not None
    assert found.live == []
    assert otel.counted("segments.exports") == {("completed",): 100}


def test_threads_that_begin_at_once_make_the_instruments_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Four threads ask for a new provider's instruments at the same time: all have the same."""

    class Slow(Faulty):
        def get_meter(self, *_: Any) -> Slow:
            self.raised += 1
            asked.wait(0.05)  # the other threads come here, too, if they can
            return self

    began, asked, found = threading.Barrier(4), threading.Event(), list[Any]()
    provider = Slow("nothing")
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: provider)

    def first_use() -> None:
        began.wait()
        found.append(current_metrics())

    threads = [threading.Thread(target=first_use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert provider.raised == 1
    assert len({id(one) for one in found}) == 1


async def test_metrics_are_read_in_another_thread_meanwhile(otel: Telemetry) -> None:
    """An exporter's thread reads all the time while calls begin and end: nothing is raised."""
    sandbox = Sandbox(segments=200, durations=STEADY)
    over, faults, reads = threading.Event(), list[BaseException](), 0

    def read() -> None:
        nonlocal reads
        while not over.is_set():
            try:
                otel.values("segments.active_exports")
            except BaseException as exc:  # noqa: BLE001 - whatever it is
                faults.append(exc)
            reads += 1

    reader = threading.Thread(target=read)
    reader.start()
    try:
        async with (
            connected(sandbox, pacer=Pacer(rate=100)) as client,
            anyio.create_task_group() as tasks,
        ):
            for segment_id in sandbox.segment_ids:
                tasks.start_soon(client.request_export, segment_id)
    finally:
        over.set()
        reader.join()
    assert faults == []
    assert reads > 5
    assert set(otel.values("segments.active_exports").values()) == {0}


# --------------------------------------------------------------------- nothing secret, no harm


async def test_no_span_and_no_metric_has_a_secret(otel: Telemetry, tmp_path: Path) -> None:
    """A troubled run with signed links: no link, no token and no key, in any form."""
    sandbox = _troubled(Sandbox(segments=12, rows=5))
    async with connected(sandbox) as client:
        segments = await client.list_segments()
        await client.bulk_export(segments[:10], tmp_path)
        await client.export(segments[10], tmp_path / "a.csv")
        export = await client.wait_for_export(await client.request_export(segments[11]))
        await client.download_export(export, tmp_path / "b.csv")
    data = otel.reader.get_metrics_data()
    told = "".join(span.to_json() for span in otel.spans) + (data.to_json() if data else "")
    assert len(otel.spans) > 30
    assert [secret for secret in SECRETS if secret in told] == []


class Raising(SpanProcessor):
    """A processor with a fault."""

    def on_start(self, *_: Any, **__: Any) -> None:
        raise RuntimeError("a fault of the processor")


async def test_a_provider_that_raises_ends_no_export(
    otel: Telemetry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception out of a span processor costs the run's spans, with one warning."""
    otel.tracers.add_span_processor(Raising())
    sandbox = Sandbox(segments=5, rows=2, durations=STEADY)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, tmp_path)
    assert report.ok
    (warning,) = [r for r in caplog.records if r.name == "segments_async"]
    assert "TracerProvider raised RuntimeError" in warning.getMessage()


class Faulty:
    """A provider, its meters and tracers and their instruments, of which one method raises."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.raised = 0

    def __getattr__(self, name: str) -> Any:
        return functools.partial(self._called, name)

    def _called(self, name: str, *_: Any, **__: Any) -> Faulty:
        if name == self.fault:
            self.raised += 1
            raise RuntimeError("a fault of the provider")
        return self


@pytest.mark.parametrize(
    "fault",
    [
        *("get_meter_provider", "get_meter", "create_histogram", "add", "record"),
        *("get_tracer_provider", "get_tracer", "start_span", "end"),
    ],
)
async def test_a_faulty_provider_is_told_nothing_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path, fault: str
) -> None:
    """A provider that raises changes no run and no call, and is called no more after a warning."""
    provider = Faulty(fault)
    for module, name in ((trace, "get_tracer_provider"), (metrics, "get_meter_provider")):
        get = getattr(provider, name) if name == fault else lambda: provider
        monkeypatch.setattr(module, name, get)
    sandbox = Sandbox(segments=5, rows=2, durations=STEADY)
    sandbox.inject(Fault.status(429), method="POST", times=2)
    sandbox.inject(Fault.status(503), method="GET", path="export/", times=4)
    async with connected(sandbox) as client:
        assert (await client.bulk_export(sandbox.segment_ids[:3], tmp_path)).ok
        await client.export(sandbox.segment_ids[3], tmp_path / "a.csv")
        sandbox.inject(Fault.status(429), method="POST")
        await client.wait_for_export(await client.request_export(sandbox.segment_ids[4]))
    assert len(sandbox.record.submits()) - sum(e.status == 429 for e in sandbox.record) == 5
    told = [r.getMessage() for r in caplog.records if "not called again" in r.getMessage()]
    assert (provider.raised, len(told)) == (1, 1)
    assert "RuntimeError" in told[0]


async def test_an_export_that_another_client_makes_is_not_ours(otel: Telemetry) -> None:
    """Requests by hand with the same HTTP client make no span of ours."""
    async with httpx.AsyncClient(transport=SandboxTransport(Sandbox())) as http:
        with pytest.raises(httpx.ConnectError):
            await http.get("https://elsewhere.example/")
    assert otel.spans == []


# --------------------------------------------------------------------- without a provider


def test_without_a_provider_there_is_no_listener() -> None:
    """The API's own providers do nothing; they are not asked for a tracer."""
    assert type(trace.get_tracer_provider()).__name__ == "ProxyTracerProvider"
    assert current_metrics() is None
    assert open_telemetry(Operation.EXPORT, None, run="a run") is None


@pytest.mark.parametrize("installed", [True, False])
def test_the_core_never_imports_opentelemetry(installed: bool) -> None:
    """A run imports nothing of OpenTelemetry, whether or not it is installed."""
    program = (
        "import sys, anyio, httpx\n"
        f"{'' if installed else 'sys.modules.update(opentelemetry=None)'}\n"
        "from segments_async import SegmentsClient\n"
        "from segments_async.sandbox import *\n"
        "async def main():\n"
        "    sandbox = Sandbox(segments=2, durations=Durations(median=0.01))\n"
        "    async with httpx.AsyncClient(transport=SandboxTransport(sandbox)) as http:\n"
        "        client = SegmentsClient(PAGE_API_KEY, PAGE_ACCESS_TOKEN, http_client=http)\n"
        "        report = await client.bulk_export(sandbox.segment_ids, None)\n"
        "        assert report.ok\n"
        "anyio.run(main)\n"
        "found = [n for n in sys.modules if n.startswith('opentelemetry.')]\n"
        "assert found == [], found\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_counts_nothing_of_its_parent() -> None:
    """In a child the parent's exports are neither active nor counted; the child's own are."""
    program = (
        "import os, sys, anyio, httpx\n"
        "from opentelemetry import metrics\n"
        "from opentelemetry.sdk.metrics import MeterProvider\n"
        "from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader\n"
        "from segments_async import SegmentsClient\n"
        "from segments_async.sandbox import *\n"
        "reader = InMemoryMetricReader()\n"
        "metrics.set_meter_provider(MeterProvider([reader]))\n"
        "def values(name):\n"
        "    data = reader.get_metrics_data()\n"
        "    return {p.value for s in data.resource_metrics[0].scope_metrics for m in s.metrics\n"
        "            if m.name == name for p in m.data.data_points}\n"
        "async def run():\n"
        "    sandbox = Sandbox(segments=2, durations=Durations(median=0.01))\n"
        "    async with httpx.AsyncClient(transport=SandboxTransport(sandbox)) as http:\n"
        "        client = SegmentsClient(PAGE_API_KEY, PAGE_ACCESS_TOKEN, http_client=http)\n"
        "        async with client.open_bulk_export(sandbox.segment_ids, None) as run:\n"
        "            await run.report()\n"
        "anyio.run(run)\n"
        "assert values('segments.exports') == {0, 2}\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    code = 1\n"
        "    try:\n"
        "        before = values('segments.exports')\n"
        "        anyio.run(run)\n"
        "        code = 0 if before == {0} and values('segments.exports') == {0, 2} else 2\n"
        "    finally:\n"
        "        os._exit(code)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
