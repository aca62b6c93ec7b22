"""A cap on running exports, learnt from 429s to submits alone."""

from __future__ import annotations

import math

from segments_async._sansio.pace.job_cap import PendingCap


def refused_among_polls(cap: PendingCap, others: int, times: int) -> list[bool]:
    """So many refused submits, each after a few polls that were granted."""
    verdicts = []
    for _ in range(times):
        for _ in range(3):
            cap.on_poll_granted()
        verdicts.append(cap.on_submit_refused(others, 10.0))
    return verdicts


def test_one_refused_submit_is_a_limit_on_requests() -> None:
    """A single 429 to a submit says nothing of a cap."""
    cap = PendingCap()
    assert refused_among_polls(cap, 10, 1) == [False]
    assert cap.jobs == math.inf


def test_refusals_without_polls_between_are_a_limit_on_requests() -> None:
    """If polls are refused, too, the limit is a limit on requests and no cap."""
    cap = PendingCap()
    assert [cap.on_submit_refused(10, 10.0) for _ in range(10)] == [False] * 10
    assert cap.jobs == math.inf


def test_an_accepted_submit_ends_the_suspicion() -> None:
    """A submit that passes although no export was seen to end refutes the cap."""
    cap = PendingCap()
    for _ in range(10):
        assert refused_among_polls(cap, 10, 1) == [False]
        cap.on_submit_granted()
    assert cap.jobs == math.inf


def test_a_submit_refused_again_while_polls_pass_is_at_a_cap() -> None:
    """Refused, three polls granted, refused again: the cap is the number of exports at work."""
    cap = PendingCap()
    assert refused_among_polls(cap, 10, 2) == [False, True]
    assert cap.jobs == 10


def test_polls_go_first_while_a_cap_is_suspected() -> None:
    """After a refused submit, three polls go before the next submit."""
    cap = PendingCap()
    cap.on_submit_refused(10, 10.0)
    asked = 0
    while cap.suspected:
        cap.on_poll_granted()
        asked += 1
    assert asked == 3


def test_a_refused_poll_undoes_a_cap() -> None:
    """A refused poll refutes the cap: submits needn't wait for an end."""
    cap = PendingCap()
    refused_among_polls(cap, 10, 2)
    cap.on_poll_refused()
    assert cap.jobs == math.inf


def test_without_other_jobs_there_is_no_cap() -> None:
    """Without another running export, whose end could make room, no cap is assumed."""
    cap = PendingCap()
    assert not any(refused_among_polls(cap, 0, 10))
    assert cap.jobs == math.inf


def test_a_refusal_while_no_export_runs_is_not_the_caps() -> None:
    """A known cap is forgotten by a refusal that no end of an export could have prevented."""
    cap = PendingCap()
    refused_among_polls(cap, 10, 2)
    assert cap.jobs == 10
    assert not cap.on_submit_refused(0, 10.0)
    assert cap.jobs == math.inf


def test_a_refusal_below_the_cap_lowers_it() -> None:
    """The first guess counts exports that had ended unnoticed; the next refusal lowers it."""
    cap = PendingCap()
    refused_among_polls(cap, 10, 2)
    assert cap.on_submit_refused(9, 10.0)
    assert cap.jobs == 9


def test_the_cap_is_tried_again() -> None:
    """After enough submits accepted at the cap, one more export is tried."""
    cap = PendingCap()
    refused_among_polls(cap, 10, 2)
    for _ in range(20):
        cap.on_submit_granted()
    assert cap.jobs == 11
