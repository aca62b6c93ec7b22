"""The meaning of each answer for an export: one table for submits, one for polls."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segments_async._sansio.api.wire import ApiAnswer, is_away, poll_request, submit_request
from segments_async._sansio.jobs.lifecycle import Event, State, advance
from segments_async._sansio.jobs.verdict import (
    LINK_GRACE,
    MISSING_GRACE,
    ROUTE_GRACE,
    Missing,
    PollJob,
    Result,
    Verdict,
    fatal,
    missing_grace,
    on_poll,
    on_submit,
)
from segments_async._sansio.pace.absence import Absence, api_is_there
from segments_async.errors import (
    APIConnectionError,
    APIStatusError,
    AuthenticationError,
    DecodeError,
    ExportFailedError,
    NotFoundError,
    PermissionDeniedError,
    ServerError,
    SubmitUnknownError,
)
from segments_async.models import OutputFormat

SEGMENT, EXPORT = "a-segment", "an-export"
NOW = 1000.0
POST = submit_request(SEGMENT, OutputFormat.CSV)
POLL = poll_request(EXPORT)


def answer(code: int = 200, body: object = None, **fields: object) -> ApiAnswer:
    document = {"exportId": EXPORT, "segment": {"segmentId": SEGMENT}, "status": "PENDING"}
    data = body if isinstance(body, bytes) else json.dumps(document | fields).encode()
    return ApiAnswer(code, {}, data, NOW)


def broken(*, sent: bool) -> APIConnectionError:
    return APIConnectionError("broken", method="POST", path="/", sent=sent)


def submitted(result: Result) -> Verdict:
    return on_submit(SEGMENT, POST, result, now=NOW, chance=0.5)


def polled(result: Result, **job: Any) -> Verdict:
    known = PollJob(export_id=EXPORT, segment_id=SEGMENT, submitted_at=NOW - 100, **job)
    return on_poll(known, POLL, result, now=NOW, chance=0.5)


TOO_LARGE = DecodeError("too large", method="POST", path="/", where="$")

#: What came, the events, the error, whether it was submitted, whether it is resumable.
SUBMITS: dict[str, tuple[Result, list[Event], type[Exception] | None, str, bool]] = {
    "accepted": (answer(), [Event.ACCEPTED], None, "yes", False),
    "201": (answer(201), [Event.ACCEPTED], None, "yes", False),
    "complete at once": (
        answer(status="COMPLETE", filename="https://x/y"),
        [Event.ACCEPTED, Event.COMPLETED],
        None,
        "yes",
        False,
    ),
    "failed at once": (
        answer(status="FAILED"),
        [Event.ACCEPTED, Event.FAILED],
        ExportFailedError,
        "yes",
        False,
    ),
    "an odd id": (
        answer(exportId="a/b"),
        [Event.ACCEPTED, Event.GAVE_UP],
        SubmitUnknownError,
        "yes",
        False,
    ),
    "no id": (answer(exportId=None), [Event.LOST], SubmitUnknownError, "maybe", False),
    "another segment": (
        answer(segment={"segmentId": "x"}),
        [Event.LOST],
        SubmitUnknownError,
        "maybe",
        False,
    ),
    "a login page": (answer(body=b"<html>"), [Event.LOST], SubmitUnknownError, "maybe", False),
    "429": (answer(429), [Event.NOT_SENT], APIStatusError, "no", True),
    "408": (answer(408), [Event.NOT_SENT], APIStatusError, "no", True),
    "421": (answer(421), [Event.NOT_SENT], APIStatusError, "no", True),
    "425": (answer(425), [Event.NOT_SENT], APIStatusError, "no", True),
    "400": (answer(400), [Event.REFUSED], APIStatusError, "no", True),
    "401": (answer(401), [Event.REFUSED], AuthenticationError, "no", True),
    "403": (answer(403), [Event.REFUSED], PermissionDeniedError, "no", True),
    "404": (answer(404), [Event.NOT_SENT], NotFoundError, "no", True),
    "410": (answer(410), [Event.NOT_SENT], APIStatusError, "no", True),
    "308": (answer(308), [Event.REFUSED], APIStatusError, "no", True),
    "302": (answer(302), [Event.LOST], APIStatusError, "maybe", False),
    "304": (answer(304), [Event.LOST], SubmitUnknownError, "maybe", False),
    "500": (answer(500), [Event.LOST], ServerError, "maybe", False),
    "502": (answer(502), [Event.LOST], SubmitUnknownError, "maybe", False),
    "504": (answer(504), [Event.LOST], SubmitUnknownError, "maybe", False),
    "never left": (broken(sent=False), [Event.NOT_SENT], APIConnectionError, "no", True),
    "lost": (broken(sent=True), [Event.LOST], SubmitUnknownError, "maybe", False),
    "too large": (TOO_LARGE, [Event.LOST], SubmitUnknownError, "maybe", False),
    "cut off": (None, [Event.LOST], SubmitUnknownError, "maybe", False),
}


@pytest.mark.parametrize(
    ("result", "events", "error", "was_submitted", "resumable"), SUBMITS.values(), ids=SUBMITS
)
def test_what_a_submits_result_means(
    result: Result,
    events: list[Event],
    error: type[Exception] | None,
    was_submitted: str,
    resumable: bool,
) -> None:
    """Each row of the module's table gives its events, its error, and its value of `submitted`."""
    verdict = submitted(result)
    assert list(verdict.events) == events
    assert type(verdict.error) in (error, type(None)) or isinstance(verdict.error, error or ())
    assert (verdict.error is None) == (error is None)
    assert (verdict.submitted, verdict.resumable) == (was_submitted, resumable)


@pytest.mark.parametrize("name", SUBMITS)
def test_a_submits_events_are_legal_and_ask_again_while_nothing_ended(name: str) -> None:
    """A next request is due exactly if the events lead to NEW or SUBMITTED."""
    verdict = submitted(SUBMITS[name][0])
    state = State.INTENT
    for event in verdict.events:
        state = advance(state, event)
    assert (verdict.again_at is not None) == (state in (State.NEW, State.SUBMITTED))


@pytest.mark.parametrize("status", [404, 410])
def test_a_404_is_believed_once_the_api_is_there(status: int) -> None:
    """There is no such segment, and no later session has to ask for it."""
    verdict = on_submit(SEGMENT, POST, answer(status), now=NOW, chance=0.5, api_there=True)
    assert verdict.events == (Event.REFUSED,)
    assert (verdict.submitted, verdict.resumable) == ("no", False)


@pytest.mark.parametrize(
    ("answered_at", "absent_at", "in_a_row", "listed", "there"),
    [
        (-math.inf, math.inf, 1, False, True),
        (NOW - 1, math.inf, 2, False, True),
        (NOW - 1, math.inf, 3, False, False),
        (NOW - 3, math.inf, 1, False, False),
        (NOW - 3, NOW - 20, 1, False, True),
        (NOW - 30, NOW - 20, 1, False, False),
        (-math.inf, NOW - 20, 1, False, False),
        (-math.inf, NOW - 20, 3, True, True),
    ],
    ids=[
        "the first answer of all",
        "others are answered",
        "the third in a row",
        "nobody is answered lately",
        "once more, and others were answered since",
        "once more, and nobody was",
        "once more, and nobody ever was",
        "once more, after a list",
    ],
)
def test_a_404_is_about_its_segment_where_others_are_answered(
    answered_at: float, absent_at: float, in_a_row: int, listed: bool, there: bool
) -> None:
    """Otherwise, and in an outage, a gateway may have no route to the API.

    Nor is the first one believed while submits are held: it answers a probe.
    """
    submits = Absence(answered_at, in_a_row)
    known: dict[str, Any] = {"absent_at": absent_at, "listed": listed}
    assert there is api_is_there(submits, NOW, away=False, held=False, **known)
    assert not api_is_there(submits, NOW, away=True, held=False, **known)
    again = listed or answered_at > absent_at
    assert api_is_there(submits, NOW, away=False, held=True, **known) is again


def test_a_429_is_due_at_once_and_other_refusals_that_pass_a_little_later() -> None:
    """After a 429 the pacer holds all requests; after a 408, 421 or 425 the submit alone waits."""
    assert submitted(answer(429)).again_at == NOW
    assert [submitted(answer(status)).again_at for status in (408, 421, 425)] == [NOW + 0.5] * 3


POLLS: dict[str, tuple[Result, list[Event], type[Exception] | None]] = {
    "pending": (answer(), [], None),
    "unknown": (answer(status="QUEUED"), [], None),
    "complete": (answer(status="COMPLETE", filename="https://x/y"), [Event.COMPLETED], None),
    "done, with a link": (answer(status="DONE", filename="https://x/y"), [Event.COMPLETED], None),
    "complete without a link": (answer(status="COMPLETE"), [], None),
    "failed": (answer(status="FAILED"), [Event.FAILED], ExportFailedError),
    "401": (answer(401), [Event.GAVE_UP], AuthenticationError),
    "403": (answer(403), [Event.GAVE_UP], PermissionDeniedError),
}


@pytest.mark.parametrize(("result", "events", "error"), POLLS.values(), ids=POLLS)
def test_what_a_poll_brings(
    result: Result, events: list[Event], error: type[Exception] | None
) -> None:
    """Only FAILED, COMPLETE with a link, and an answer about the account end the wait."""
    verdict = polled(result)
    assert list(verdict.events) == events
    assert type(verdict.error) is (error or type(None))
    assert (verdict.again_at is None) == bool(events)
    assert verdict.setback is None


SETBACKS: dict[str, Result] = {
    "a login page": answer(body=b"<html>"),
    "another export": answer(exportId="x"),
    "another segment": answer(segment={"segmentId": "x"}),
    "a status that is a number": answer(status=7),
    "400": answer(400),
    "408": answer(408),
    "302": answer(302),
    "404": answer(404),
    "500": answer(500),
    "503": answer(503),
    "lost": broken(sent=True),
    "never left": broken(sent=False),
    "too large": TOO_LARGE,
}


@pytest.mark.parametrize("name", SETBACKS)
@given(setbacks=st.integers(0, 40))
def test_a_setback_is_asked_about_later(name: str, setbacks: int) -> None:
    """A failing poll never ends the wait: its reason is kept, and the next poll is sent later."""
    verdict = polled(SETBACKS[name], setbacks=setbacks)
    assert (verdict.events, verdict.error) == ((), None)
    assert verdict.setback is not None
    assert verdict.again_at is not None
    assert NOW + 2.0 <= verdict.again_at <= NOW + 30


def test_a_503_says_when() -> None:
    """A Retry-After of a 503 puts the next poll off."""
    refused = ApiAnswer(503, {"retry-after": "77"}, b"", NOW)
    assert polled(refused).again_at == NOW + 77


@pytest.mark.parametrize(
    ("result", "grace", "error"),
    [
        (answer(404), ROUTE_GRACE, NotFoundError),
        (answer(status="COMPLETE"), LINK_GRACE, DecodeError),
    ],
    ids=["404", "no link"],
)
def test_what_lasts_ends_the_wait(result: Result, grace: float, error: type[Exception]) -> None:
    """404 and COMPLETE without a link end it after a grace, and three of them in it."""
    first = polled(result)
    assert (first.events, first.missing) == ((), Missing(1, NOW))
    assert polled(result, missing=Missing(9, NOW - grace)).events == ()
    assert polled(result, missing=Missing(1, NOW - 9 * grace)).events == ()
    last = polled(result, missing=Missing(2, NOW - grace - 1))
    assert last.events == (Event.GAVE_UP,)
    assert isinstance(last.error, error)
    assert not last.resumable


@pytest.mark.parametrize(
    ("segment_id", "answered", "in_a_row", "grace"),
    [
        (None, -math.inf, 9, MISSING_GRACE),
        (SEGMENT, NOW - 1, 2, MISSING_GRACE),
        (SEGMENT, NOW - 1, 3, ROUTE_GRACE),
        (SEGMENT, NOW - 2000, 1, ROUTE_GRACE),
    ],
    ids=[
        "known by its id alone",
        "others have a status",
        "others had a status, and have none now",
        "no export has a status",
    ],
)
def test_how_long_a_404_is_not_believed(
    segment_id: str | None, answered: float, in_a_row: int, grace: float
) -> None:
    """The longer, the more exports would be lost if a gateway without a route had said it."""
    job = PollJob(
        export_id="e",
        segment_id=segment_id,
        submitted_at=0.0,
        polls_answered_at=answered,
        polls_absent_in_a_row=in_a_row,
    )
    assert missing_grace(job, Missing(1, NOW - 1000)) == grace


def test_a_429_is_no_setback() -> None:
    """A 429 to a poll says nothing about the export, whose poll stays due."""
    verdict = polled(answer(429), setbacks=3, missing=Missing(1, 5.0))
    assert (verdict.again_at, verdict.setback) == (NOW, None)
    assert verdict.missing == Missing(1, 5.0)


@pytest.mark.parametrize("status", [202, 204])
def test_a_status_without_a_body_is_not_yet(status: int) -> None:
    """202 and 204 to a poll are no setback, unless a firewall answers so."""
    verdict = polled(ApiAnswer(status, {}, b"", NOW), setbacks=3)
    assert (verdict.events, verdict.setback) == ((), None)
    assert verdict.again_at is not None
    assert verdict.again_at > NOW
    firewall = ApiAnswer(status, {"x-amzn-waf-action": "challenge"}, b"", NOW)
    assert polled(firewall).setback is not None


@pytest.mark.parametrize(
    ("result", "away"),
    [
        (answer(), False),
        (answer(body=b" \n[]"), False),
        (answer(body=b"\xef\xbb\xbf{}"), False),
        (answer(body="{}".encode("utf-16-be")), False),
        (answer(body=b"<html>"), True),
        (answer(body=b'"{}"'), False),
        (answer(body=b'"closed"'), True),
        (answer(202, body=b""), True),
        (answer(202, body=b"<html>"), True),
        (answer(body=b""), True),
        (answer(400), False),
        (answer(408), True),
        (answer(429), False),
        (answer(500), False),
        (answer(501), True),
        (answer(503), True),
        (answer(302), True),
        (answer(304), False),
    ],
)
def test_who_says_that_the_vendor_is_away(result: ApiAnswer, away: bool) -> None:
    """Gateways, login pages and redirects do; the vendor's own refusals and its 500 don't."""
    assert is_away(result) is away


@pytest.mark.parametrize(
    ("status", "ends_all"),
    [(401, True), (403, True), (301, True), (302, True), (308, True), (404, False), (503, False)],
)
def test_what_ends_a_run(status: int, ends_all: bool) -> None:
    """An error about the account or about `base_url` concerns every export of it."""
    error = submitted(answer(status)).error
    assert fatal(error) is ends_all
