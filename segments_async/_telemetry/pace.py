"""Hears every change of the pace, such as a 429: logs a line, and counts the answers of 429."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from segments_async._sansio.pace.notice import Notice, PaceEvent
from segments_async._telemetry.guard import log
from segments_async._telemetry.otel import current_metrics

logger: logging.Logger = logging.getLogger("segments_async")

_THROTTLED = frozenset({PaceEvent.THROTTLED, PaceEvent.JOB_CAP})


def hear_pace(notice: Notice | None) -> None:
    """Log a change of the pace; None: there was none."""
    if notice is None:
        return
    if notice.event in _THROTTLED and (metrics := current_metrics()) is not None:
        metrics.on_throttled()
    if not logger.isEnabledFor(notice.level):
        return
    text, arguments = notice.text, notice.arguments
    delay = notice.delay if notice.pause is None else notice.pause
    if notice.pause is not None:
        until = datetime.now().astimezone() + timedelta(seconds=notice.pause)
        text, arguments = f"{text} Nothing is sent until %s.", (*arguments, f"{until:%H:%M:%S}")
    fields: dict[str, object] = {"segments_event": notice.event.value}
    if delay is not None:
        fields["segments_delay"] = delay
    if notice.rate is not None:
        fields["segments_rate"] = notice.rate
    log(notice.level, text, *arguments, extra=fields)
