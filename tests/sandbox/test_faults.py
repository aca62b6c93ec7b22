"""Faults, scripted and drawn, and their entries in the record."""

from __future__ import annotations

from collections import Counter

import pytest

from sandbox.asking import EXPORT, get, headers, post, read
from segments_async.sandbox import BrokenBody, Fault, Sandbox, TokenBucket


def test_lost_before_makes_no_export() -> None:
    """The POST arrived, and the vendor did nothing."""
    sandbox = Sandbox()
    sandbox.inject(Fault.LOST_BEFORE, method="POST")
    answer = post(sandbox)
    assert (answer.lost, answer.entry.acted, answer.entry.status) == ("before", False, None)
    assert not sandbox.record.exports_per_segment()
    assert [e.segment_id for e in sandbox.record.submits()] == sandbox.segment_ids


def test_lost_after_makes_an_export() -> None:
    """The export was begun, though its answer was lost."""
    sandbox = Sandbox()
    sandbox.inject(Fault.LOST_AFTER, method="POST")
    answer = post(sandbox)
    assert (answer.lost, answer.entry.acted) == ("after", True)
    assert get(sandbox, EXPORT + sandbox.export_id(sandbox.segment_ids[0])).status == 200


def test_unreachable_is_no_request() -> None:
    """No request was sent: neither the record nor the limiter has one."""
    sandbox = Sandbox(limit=TokenBucket(rate=1, burst=1))
    sandbox.inject(Fault.UNREACHABLE)
    assert get(sandbox).unreachable
    assert not len(sandbox.record)
    assert get(sandbox).status == 200


def test_fault_waits_for_its_request() -> None:
    """A fault matches by method, path and segment; `skip` lets some pass, `times` repeats it."""
    sandbox = Sandbox(segments=2)
    second = sandbox.segment_ids[1]
    sandbox.inject(Fault.status(429, headers={"Retry-After": "7"}), segment_id=second, times=2)
    sandbox.inject(Fault.status(500), path="list$", skip=1)
    assert post(sandbox).status == 200
    assert [post(sandbox, second).status for _ in range(3)] == [429, 429, 200]
    assert [get(sandbox).status for _ in range(3)] == [200, 500, 200]
    assert not sandbox.faults_left()


def test_fault_is_not_used_up_by_refused_requests() -> None:
    """A 401 leaves the fault for a later request."""
    sandbox = Sandbox()
    sandbox.inject(Fault.status(500))
    sandbox.answer("GET", "/", {}, b"", 0.0)
    assert sandbox.faults_left() == 1


def test_fault_may_hide_that_the_vendor_acted() -> None:
    """A gateway answers 504 though the export was begun."""
    sandbox = Sandbox()
    sandbox.inject(Fault.status(504, acts=True))
    answer = post(sandbox)
    assert (answer.status, answer.entry.acted) == (504, True)
    assert sum(sandbox.record.exports_per_segment().values()) == 1


def test_changed_answer() -> None:
    """The true answer with changes: another id, a status that the page doesn't have."""
    sandbox = Sandbox()
    sandbox.inject(Fault.changed(lambda body: body.replace(b"PENDING", b"QUEUED")))
    answer = post(sandbox)
    assert read(answer)["status"] == "QUEUED"
    assert int(answer.headers["content-length"]) == len(b"".join(answer.pieces()))


def test_cut_body_breaks_where_it_was_told() -> None:
    """A body ends after so many bytes, with the connection; a cut beyond its end does nothing."""
    sandbox = Sandbox()
    sandbox.inject(Fault.cut(10))
    sandbox.inject(Fault.cut(10_000))
    pieces = get(sandbox).pieces()
    assert len(next(pieces)) == 10
    with pytest.raises(BrokenBody):
        next(pieces)
    assert read(get(sandbox))


def test_cut_of_a_chunked_body_is_seen() -> None:
    """Without Content-Length, the missing last chunk shows the cut."""
    sandbox = Sandbox()
    sandbox.inject(Fault(cut_after=10, length=None))
    with pytest.raises(BrokenBody):
        list(get(sandbox).pieces())


def test_false_content_length() -> None:
    """Too large a length breaks the body, too small a one loses bytes: as on a connection."""
    sandbox = Sandbox()
    sandbox.inject(Fault.content_length(5))
    sandbox.inject(Fault.content_length(5000))
    assert len(b"".join(get(sandbox).pieces())) == 5
    with pytest.raises(BrokenBody):
        list(get(sandbox).pieces())


def test_slow_answer_says_how_slow() -> None:
    """The answer has its delay: the model itself doesn't sleep."""
    sandbox = Sandbox()
    sandbox.inject(Fault.slow(30.0))
    assert get(sandbox).delay == 30.0


def test_shares_are_drawn_by_the_seed() -> None:
    """Each share is drawn, shares exclude each other, and the same seed draws the same faults."""

    def outcomes(seed: int) -> list[tuple[int, str]]:
        sandbox = Sandbox(
            seed=seed, internal_errors=0.1, gateway_errors=0.1, lost_before=0.1, lost_after=0.1
        )
        return [(a.status, a.lost) for a in (get(sandbox) for _ in range(2000))]

    drawn = Counter(outcomes(3))
    gateway = sum(drawn[status, "no"] for status in (502, 503, 504))
    shares = [drawn[500, "no"], gateway, drawn[0, "before"], drawn[200, "after"]]
    assert all(150 < n < 250 for n in shares)
    assert outcomes(3) == outcomes(3) != outcomes(4)


def test_strangers_meet_no_faults() -> None:
    """Faults don't change a 401."""
    sandbox = Sandbox(internal_errors=1.0)
    assert sandbox.answer("GET", "/", {}, b"", 0.0).status == 401
    assert sandbox.answer("GET", "/", headers(), b"", 0.0).status == 500


def test_record_answers_questions() -> None:
    """The record has kinds, order, rates, and the requests without an answer."""
    sandbox = Sandbox(segments=2, limit=TokenBucket(rate=1, burst=4))
    first = get(sandbox)
    for answer in (post(sandbox), post(sandbox), get(sandbox, EXPORT + "x")):
        assert answer.status in (200, 404)
    refused = get(sandbox, now=0.5)
    record = sandbox.record
    assert [e.number for e in record] == [1, 2, 3, 4, 5]
    assert (len(record.lists()), len(record.submits()), len(record.polls("x"))) == (2, 2, 1)
    assert record.throttled() == [refused.entry]
    assert (record.highest_rate(0.5), record.highest_rate(0.6)) == (4, 5)
    assert (record.most_at_once(), record.under_way()) == (5, 5)
    record.end(first.entry, 2.0)
    record.end(first.entry, 3.0)
    assert (first.entry.ended_at, record.under_way(), record.most_at_once()) == (2.0, 4, 5)
