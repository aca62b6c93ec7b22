"""Whether OpenTelemetry is in use, and the listener that makes its spans and metrics.

Nothing of OpenTelemetry is imported here. A provider can only be in use if the program has imported
OpenTelemetry's API: then its modules are loaded, and asking them costs a look-up. Without a
provider the API has proxies that do nothing, and there is no listener.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from segments_async._telemetry.guard import ask, is_left_alone
from segments_async._telemetry.listener import Listener, Operation

if TYPE_CHECKING:
    from segments_async._telemetry.metrics import Metrics

#: The API's own providers, which do nothing. Other packages have working ones of the same names.
_IDLE = frozenset(
    {"ProxyTracerProvider", "NoOpTracerProvider", "_ProxyMeterProvider", "NoOpMeterProvider"}
)
_API = ("opentelemetry.trace", "opentelemetry.metrics")


def open_telemetry(
    operation: Operation, metrics: Metrics | None, *, run: str | None = None
) -> Listener | None:
    """The listener of a run or a call that begins now; None where no provider is in use.

    Args:
        operation: what the caller asked for.
        metrics: the `current_metrics`.
        run: the run's name; None for a call.
    """
    tracer = _provider("trace")
    if tracer is None and metrics is None:
        return None
    from segments_async._telemetry.spans import ExportSpans

    return ExportSpans(tracer, metrics, operation, run=run)


def current_metrics() -> Metrics | None:
    """The instruments of the meter provider in use; None where none is."""
    provider = _provider("metrics")
    if provider is None:
        return None
    from segments_async._telemetry.metrics import metrics_of

    return metrics_of(provider)


def _provider(signal: str) -> Any:
    """The provider of a signal (``"trace"``, ``"metrics"``), unless it does nothing, or raised."""
    api = sys.modules.get(f"opentelemetry.{signal}")
    name = "get_tracer_provider" if signal == "trace" else "get_meter_provider"
    get: Any = getattr(api, name, None)
    if get is None:
        return None
    provider: object = ask(get, get)
    if provider is None or is_left_alone(provider):
        return None
    kind = type(provider)
    idle = kind.__name__ in _IDLE and kind.__module__.startswith(_API)
    return None if idle else provider
