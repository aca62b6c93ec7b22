"""OpenTelemetry's metrics. Imported only where a meter provider is in use.

The instruments are made once for each provider: an instrument that is made for each client would
be there twice, and its callback would keep the client for ever. Attributes have few values, none of
which comes from the vendor or the caller. docs/observability.md has the table.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Protocol

from opentelemetry.metrics import CallbackOptions, Observation

from segments_async._telemetry.guard import ask
from segments_async._telemetry.listener import End, OutcomeKind
from segments_async.errors import APIError, ExportError, SegmentsError
from segments_async.results import HeldReason

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider

#: The name of the instrumentation scope of spans and metrics.
SCOPE = "segments_async"


class Live(Protocol):
    """A run, or a call, that goes on."""

    @property
    def oldest_file(self) -> float | None:
        """The age of the oldest file that isn't in its place, in seconds; None without such a file.

        A file's age counts from its making at the vendor.
        """
        ...

    def places(self) -> Iterable[tuple[str, int]]:
        """How many exports are ``waiting``, ``pending`` and ``fetching``."""
        ...


#: The attributes of one total, as pairs of name and value.
_Key = tuple[tuple[str, str], ...]

#: The key of the total of bytes, which has no attributes.
_BYTES: _Key = ()


def _classes_below(base: type[SegmentsError]) -> Iterator[type[SegmentsError]]:
    for error in base.__subclasses__():
        if error.__module__ == SegmentsError.__module__:  # and no caller's own
            yield error
            yield from _classes_below(error)


#: Errors with which an export may end without a file: all classes but the bases of others.
_ENDING_ERRORS: tuple[type[SegmentsError], ...] = tuple(
    error for error in _classes_below(SegmentsError) if error not in (APIError, ExportError)
)

#: Upper limits of the histogram's buckets, in seconds: most exports take minutes, and the vendor
#: deletes a file after 48 hours. An SDK's own buckets end at 10 000 s, and one of them is 1 000 to
#: 2 500 s: a quantile in it would be a guess.
_BUCKETS = (
    *(10.0, 30.0, 60.0, 120.0, 180.0, 240.0, 300.0, 450.0, 600.0, 900.0, 1_200.0, 1_800.0, 2_700.0),
    *(3_600.0, 5_400.0, 7_200.0, 10_800.0, 14_400.0, 21_600.0, 43_200.0, 86_400.0, 172_800.0),
)


class Metrics:
    """The instruments of one meter provider. Callbacks are called in the exporter's thread."""

    def __init__(self, provider: MeterProvider) -> None:
        self.provider: MeterProvider = provider
        self._lock = threading.Lock()  # clients may be in the event loops of several threads
        self._live: dict[Live, None] = {}
        self._totals: Counter[_Key] = _zeros()
        meter = provider.get_meter(SCOPE, scope_version())
        meter.create_observable_up_down_counter(
            "segments.active_exports",
            [self._observe_active],
            unit="{export}",
            description="Exports that have not ended, by where they are.",
        )
        meter.create_observable_gauge(
            "segments.file.age",
            [self._observe_age],
            unit="s",
            description="Age of the oldest complete file that is not in its place. "
            "Files stay at the vendor for 48 hours.",
        )
        meter.create_observable_counter(
            "segments.exports",
            [self._observe_ended],
            unit="{export}",
            description="Exports that have ended.",
        )
        meter.create_observable_counter(
            "segments.file.size",
            [self._observe_bytes],
            unit="By",
            description="Bytes of the files that were fetched.",
        )
        self._duration = meter.create_histogram(
            "segments.export.duration",
            unit="s",
            description="From the request for an export to its end.",
            explicit_bucket_boundaries_advisory=_BUCKETS,
        )
        self._held = meter.create_counter(
            "segments.held.time",
            unit="s",
            description="Time for which runs were held, by the reason.",
        )
        self._throttled = meter.create_counter(
            "segments.throttled_requests", unit="{request}", description="Answers of 429."
        )
        self._unknown = meter.create_counter(
            "segments.unknown_submits",
            unit="{export}",
            description="Export requests of which it is unknown whether the vendor acted.",
        )
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        # Prometheus sees no increase in a series whose first sample is 1. Without these zeros, the
        # first 429 and the first minute of each reason would be missing in `rate` and `increase`.
        self._throttled.add(0)
        self._unknown.add(0)
        for reason in HeldReason:
            self._held.add(0, {"segments.held.reason": reason.value})

    def begin(self, live: Live) -> None:
        """A run or a call begins. `end` has to follow."""
        with self._lock:
            self._live[live] = None

    def end(self, live: Live) -> None:
        """The run or call has ended."""
        with self._lock:
            self._live.pop(live, None)

    @property
    def live(self) -> list[Live]:
        """The runs and calls that go on."""
        with self._lock:
            return list(self._live)

    def on_throttled(self) -> None:
        """An answer of 429."""
        ask(self.provider, self._throttled.add, 1)

    def on_unknown_submit(self) -> None:
        """It is unknown whether a POST began an export."""
        ask(self.provider, self._unknown.add, 1)

    def on_held(self, reason: HeldReason, seconds: float) -> None:
        """A run was held for `seconds`."""
        attributes = {"segments.held.reason": reason.value}
        ask(self.provider, self._held.add, seconds, attributes)

    def on_end(self, attributes: dict[str, str], seconds: float | None) -> None:
        """An export has ended; `seconds` after its request, where there was one.

        Args:
            attributes: the `outcome_attributes`.
            seconds: as above.
        """
        self._add(tuple(attributes.items()), 1)
        if seconds is not None:
            ask(self.provider, self._duration.record, seconds, attributes)

    def on_file(self, end: End) -> None:
        """Count the bytes of the fetched file, if the end has one."""
        if end.kind is OutcomeKind.EXPORTED and end.file is not None:
            self._add(_BYTES, end.file.size)

    def forget(self) -> None:
        """Start again in a forked child: the counts, and the runs that go on, are the parent's."""
        # Another thread of the parent may have held the lock when the process was forked.
        self._lock, self._live, self._totals = threading.Lock(), {}, _zeros()

    def _add(self, key: _Key, count: int) -> None:
        """Add to a total, which the exporter reads later.

        An SDK's counter takes ten times as long, and each export would have several.
        """
        with self._lock:
            self._totals[key] += count

    def _counted(self) -> list[tuple[_Key, int]]:
        with self._lock:
            return list(self._totals.items())

    def _observe_ended(self, _: CallbackOptions) -> Iterable[Observation]:
        counted = self._counted()
        return [Observation(count, dict(key)) for key, count in counted if key != _BYTES]

    def _observe_bytes(self, _: CallbackOptions) -> Iterable[Observation]:
        return [Observation(count) for key, count in self._counted() if key == _BYTES]

    def _observe_active(self, _: CallbackOptions) -> Iterable[Observation]:
        # With a zero for each place: a series that ends would keep its last value.
        counts = Counter({"waiting": 0, "pending": 0, "fetching": 0})
        for live in self.live:
            for place, count in live.places():
                counts[place] += count
        return [Observation(count, {"segments.state": name}) for name, count in counts.items()]

    def _observe_age(self, _: CallbackOptions) -> Iterable[Observation]:
        ages = [age for live in self.live if (age := live.oldest_file) is not None]
        return [Observation(max(ages, default=0.0))]


def outcome_attributes(end: End) -> dict[str, str]:
    """The outcome's kind, and the class of its error: few values, all of this library's."""
    return _attributes(end.kind, None if end.error is None else type(end.error))


def _attributes(kind: OutcomeKind, error: type[BaseException] | None) -> dict[str, str]:
    attributes = {"segments.outcome": kind.value}
    return attributes if error is None else {**attributes, "error.type": error.__qualname__}


def _zeros() -> Counter[_Key]:
    """The totals at the beginning: each outcome has a 0, for the reason of `_begin_at_zero`."""
    found = [
        _attributes(kind, None)
        for kind in OutcomeKind
        if kind not in (OutcomeKind.NOT_EXPORTED, OutcomeKind.REQUESTED)
    ]
    found += [_attributes(OutcomeKind.NOT_EXPORTED, error) for error in _ENDING_ERRORS]
    return Counter({_BYTES: 0} | {tuple(attributes.items()): 0 for attributes in found})


@cache
def scope_version() -> str | None:
    """This library's version; None where it was installed without its metadata.

    Read once: to find and parse the metadata takes some milliseconds, and each run asks.
    """
    try:
        return version("segments-async")
    except PackageNotFoundError:
        return None


#: The instruments that were made, by the ids of their providers. Each has its provider, so that no
#: other object gets the provider's id.
_made: dict[int, Metrics] = {}
_making = threading.Lock()


def metrics_of(provider: MeterProvider) -> Metrics | None:
    """The instruments of a provider, made at the first call; None where the provider raises."""
    if (found := _made.get(id(provider))) is not None:
        return found
    # Clients in several threads may begin at once. Instruments made twice would count apart.
    with _making:
        found = _made.get(id(provider))
        if found is None and (made := ask(provider, Metrics, provider)) is not None:
            found = _made[id(provider)] = made
    return found


def _forget_parents_runs() -> None:
    """Start again in a forked child: the runs and calls that go on are the parent's."""
    global _making
    # Another thread of the parent may have held the lock when the process was forked.
    _making = threading.Lock()
    for metrics in _made.values():
        metrics.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parents_runs)
