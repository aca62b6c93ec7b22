"""The estimate of a run's remaining time."""

from __future__ import annotations

from collections.abc import Sequence

#: Ends seen before a prediction is more than a guess.
ENOUGH_TO_TELL = 3


def eta_seconds(
    *,
    waiting: int,
    pending: int,
    fetching: int,
    rate: float | None,
    requests: int,
    durations: Sequence[float],
    oldest: float,
    newest: float,
    fetch_seconds: float,
) -> float | None:
    """Seconds until the last outcome, or None while too little is known.

    Two things take time, and the longer one tells: sending what remains to be sent, and waiting
    for the vendor, which for the export submitted last begins only then. The time within which
    nine tenths of the exports seen ended stands for that wait. One that has taken longer than
    that is expected to take half as long again as it has; who knows more of a heavy tail?

    Args:
        waiting: exports to be submitted.
        pending: at work at the vendor.
        fetching: complete, their files not in place.
        rate: requests/s that are sent at most; None while nothing limits them.
        requests: sent so far in the run.
        durations: seconds that exports took at the vendor, of the run so far.
        oldest: seconds that the first of the pending ones is known to have taken.
        newest: seconds since the last of them was submitted.
        fetch_seconds: for one file on average, all downloads together.
    """
    if not (waiting or pending or fetching):
        return 0.0
    if len(durations) < ENOUGH_TO_TELL:
        return None
    submitted = len(durations) + pending
    polls_each = max(1.0, (requests - submitted) / submitted)
    to_send = waiting * (1 + polls_each) + pending
    sending = to_send / rate if rate else 0.0
    usual = sorted(durations)[int(0.9 * len(durations))]
    submitting = waiting / rate if rate else 0.0
    vendor = submitting + usual if waiting else max(0.0, usual - newest)
    if pending and oldest > usual:
        vendor = max(vendor, oldest / 2)
    return max(sending, vendor, (waiting + pending + fetching) * fetch_seconds)
