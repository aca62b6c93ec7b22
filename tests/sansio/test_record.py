"""The record of an export from a log of events, and the steps of a later session."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from segments_async import errors
from segments_async._sansio.jobs.lifecycle import Event, IllegalTransition, State, advance
from segments_async._sansio.jobs.payload import (
    NOTHING,
    Payload,
    SecretInPayload,
    UnreadablePayload,
    check_secrets,
    payload_from_json,
    payload_to_json,
)
from segments_async._sansio.jobs.record import ExportRecord, LogEntry, RunOptions, resume_events
from segments_async._sansio.jobs.replay import StoredEntry, records
from segments_async.models import Export, ExportStatus, Segment, SegmentType
from segments_async.results import ExportedFile, NotExported

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
LINK = "https://bucket.s3.amazonaws.com/f.csv?X-Amz-Signature=cafe&X-Amz-Credential=AKIA"
SEGMENTS = ["a", "b", "c"]


def export_of(segment_id: str, number: int = 1) -> Export:
    return Export(
        export_id=f"{segment_id}-{number}",
        segment=Segment(segment_id, "Buyers", "p", SegmentType.DYNAMIC, last_run=NOON),
        status=ExportStatus.COMPLETE,
        start_time=NOON,
        end_time=NOON + timedelta(seconds=90),
        filename=LINK,
    )


def file_of(export: Export) -> ExportedFile:
    return ExportedFile(f"/exports/{export.export_id}.csv", 7, "ab" * 32, True, export)


def outcome_of(segment_id: str, *, submitted: Any = "yes", resumable: bool = True) -> NotExported:
    error = errors.ExportTimeoutError("no time left", segment_id=segment_id)
    return NotExported(segment_id, None, error, submitted, resumable)


def payload_for(event: Event, segment_id: str, number: int = 1) -> Payload:
    """The payload that a run records with the event."""
    export = export_of(segment_id, number)
    match event:
        case Event.ACCEPTED | Event.ADOPTED | Event.COMPLETED:
            return Payload(export)
        case Event.FETCHED | Event.UNCHANGED:
            return Payload.of_file(file_of(export))
        case Event.GAVE_UP | Event.FAILED | Event.EXPIRED:
            return Payload.of_outcome(outcome_of(segment_id))
        case Event.REFUSED:
            return Payload.of_outcome(outcome_of(segment_id, submitted="no"))
        case _:
            return NOTHING


def as_json(payload: Payload) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(payload_to_json(payload))
    return found


def kept(log: list[LogEntry]) -> list[StoredEntry]:
    """The events as the journal reads them."""
    return [(e.segment_id, e.event, e.at.isoformat(), payload_to_json(e.payload)) for e in log]


def logged(*events: Event, segment_id: str = "a") -> list[LogEntry]:
    return [
        LogEntry(segment_id, event, NOON + timedelta(seconds=n), payload_for(event, segment_id))
        for n, event in enumerate(events)
    ]


SUBMITTED = (Event.INTENT, Event.ACCEPTED)
COMPLETE = (*SUBMITTED, Event.COMPLETED)
FETCHING = (*COMPLETE, Event.FETCH)

#: Some way to each state.
WAYS: dict[State, tuple[Event, ...]] = {
    State.NEW: (),
    State.INTENT: (Event.INTENT,),
    State.SUBMITTED: SUBMITTED,
    State.COMPLETE: COMPLETE,
    State.FETCHING: FETCHING,
    State.DONE: (*FETCHING, Event.FETCHED),
    State.UNCHANGED: (Event.UNCHANGED,),
    State.REFUSED: (Event.INTENT, Event.REFUSED),
    State.UNKNOWN: (Event.INTENT, Event.LOST),
    State.FAILED: (*SUBMITTED, Event.FAILED),
    State.UNASKED: (Event.GAVE_UP,),
    State.BROKEN_OFF: (*SUBMITTED, Event.GAVE_UP),
    State.EXPIRED: (*FETCHING, Event.EXPIRED),
}


def record_in(state: State) -> ExportRecord:
    return records(kept(logged(*WAYS[state]))).get("a", ExportRecord())


def taken_up(state: State, *, file_present: bool = True, **options: Any) -> State:
    """The export's state after a later session has continued it."""
    record = record_in(state)
    for event in resume_events(record, RunOptions(**options), file_present=file_present):
        record = record.after(LogEntry("a", event, NOON))
    return record.state


@pytest.mark.parametrize("state", State)
def test_there_is_a_way_to_each_state(state: State) -> None:
    """The tests below start in the states that they name."""
    assert record_in(state).state is state


@pytest.mark.parametrize(
    ("found", "after"),
    [
        (State.NEW, State.NEW),
        (State.INTENT, State.UNKNOWN),
        (State.SUBMITTED, State.SUBMITTED),
        (State.COMPLETE, State.SUBMITTED),
        (State.FETCHING, State.SUBMITTED),
        (State.DONE, State.DONE),
        (State.UNCHANGED, State.UNCHANGED),
        (State.REFUSED, State.NEW),
        (State.UNKNOWN, State.UNKNOWN),
        (State.FAILED, State.FAILED),
        (State.UNASKED, State.NEW),
        (State.BROKEN_OFF, State.SUBMITTED),
        (State.EXPIRED, State.EXPIRED),
    ],
)
def test_a_later_session(found: State, after: State) -> None:
    """Without an opt-in no requested export is requested again; every other export continues."""
    assert taken_up(found) is after


def test_opted_in() -> None:
    """Each option leads one kind of end back to NEW, and no other."""
    assert taken_up(State.UNKNOWN, on_unknown="resubmit") is State.NEW
    assert taken_up(State.INTENT, on_unknown="resubmit") is State.NEW
    assert taken_up(State.EXPIRED, on_expired="resubmit") is State.NEW
    assert taken_up(State.FAILED, retry_failed=1) is State.NEW
    for state in set(State) - {State.NEW, State.INTENT, State.UNKNOWN}:
        assert taken_up(state, on_unknown="resubmit") is taken_up(state)


@pytest.mark.parametrize(
    ("found", "after"), [(State.DONE, State.SUBMITTED), (State.UNCHANGED, State.NEW)]
)
def test_a_file_that_is_gone(found: State, after: State) -> None:
    """A file that is gone is fetched again; one of another run is exported again."""
    assert taken_up(found, file_present=False) is after


def test_failures_are_counted_across_retries() -> None:
    """`retry_failed=1` is one more export after the first FAILED, and none after the second."""
    once = (*SUBMITTED, Event.FAILED)
    record = records(kept(logged(*once, Event.OPTED_IN, *once)))["a"]
    assert record.failures == 2
    assert resume_events(record, RunOptions(retry_failed=1)) == ()
    assert resume_events(record, RunOptions(retry_failed=2)) == (Event.OPTED_IN,)


def test_what_is_not_resumable_stays_as_it_ended() -> None:
    """An export that the vendor doesn't know any more isn't polled again in each session."""
    ended = Payload.of_outcome(outcome_of("a", resumable=False))
    record = record_in(State.SUBMITTED).after(LogEntry("a", Event.GAVE_UP, NOON, ended))
    assert resume_events(record, RunOptions()) == ()


def test_a_refusal_that_may_have_been_acted_on_is_not_repeated() -> None:
    """A REFUSED export is requested again only if the log says that the vendor did nothing."""
    intent = record_in(State.INTENT)
    maybe = Payload.of_outcome(outcome_of("a", submitted="maybe"))
    for payload in (maybe, NOTHING):
        record = intent.after(LogEntry("a", Event.REFUSED, NOON, payload))
        assert resume_events(record, RunOptions()) == ()


def test_what_is_known_of_a_finished_export() -> None:
    """The record has everything that the export's outcome needs, except the link."""
    record = record_in(State.DONE)
    export = attrs.evolve(export_of("a"), filename=None)
    assert record == ExportRecord(
        state=State.DONE,
        export=export,
        submitted_at=NOON + timedelta(seconds=1),
        file=file_of(export),
        completed_at=NOON + timedelta(seconds=2),
        ended_at=NOON + timedelta(seconds=4),
    )


def test_an_export_that_is_gone_on_with_was_complete_once() -> None:
    """A later session's poll doesn't change when an export was first seen to be COMPLETE."""
    again = (*COMPLETE, Event.RESUMED, Event.COMPLETED)
    record = records(kept(logged(*again)))["a"]
    assert record.completed_at == NOON + timedelta(seconds=2)
    assert record.ended_at is None


def test_a_second_export_has_no_past() -> None:
    """Back in NEW, the first export's id, file and time are gone."""
    record = records(kept(logged(*WAYS[State.EXPIRED], Event.OPTED_IN)))["a"]
    assert record == ExportRecord()


@pytest.mark.parametrize(
    ("event", "before"),
    [(Event.ACCEPTED, State.INTENT), (Event.ADOPTED, State.NEW), (Event.UNCHANGED, State.NEW)],
)
def test_an_event_without_what_it_needs(event: Event, before: State) -> None:
    """An event without the export or the file that its state needs is refused."""
    with pytest.raises(UnreadablePayload):
        record_in(before).after(LogEntry("a", event, NOON))


@pytest.mark.parametrize(
    "payload",
    [
        {"export": []},
        {"export": {}},
        {"export": as_json(Payload(export_of("b")))["export"]},
        {"export": {**as_json(Payload(export_of("a")))["export"], "startTime": 7}},
        {"file": {"location": "x", "size": 1, "sha256": "", "verified": True}},
        {**as_json(Payload.of_file(file_of(export_of("a")))), "file": {"location": "x"}},
        {"error": {"type": "ExportError", "message": "m", "submitted": "?", "resumable": True}},
        {"error": {}},
        {"error": None},
        {"surprise": 1},
    ],
)
def test_strange_facts(payload: dict[str, Any]) -> None:
    """Facts that this library doesn't write raise, and one error only."""
    with pytest.raises(UnreadablePayload):
        payload_from_json("a", payload)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["export", "file", "error", "segment", "exportId", "type", "x"]),
            inner,
            max_size=4,
        )
    ),
)


@given(st.dictionaries(st.sampled_from(["export", "file", "error"]), JSON))
def test_no_facts_raise_anything_else(payload: dict[str, Any]) -> None:
    """Whatever stands in a log, reading it gives facts or UnreadablePayload."""
    try:
        payload_from_json("a", payload)
    except UnreadablePayload:
        return


# --------------------------------------------------------------------- secrets


def test_a_link_does_not_go_in() -> None:
    """No payload has an export's link, nor a link in an error, a name or a description."""
    segment = Segment("a", f"from {LINK}", "p", "Static", description=f"see {LINK}")
    export = attrs.evolve(export_of("a"), segment=segment)
    error = errors.DownloadError(f"GET {LINK} broke", reason="broken", export=export)
    outcome = NotExported("a", export, error, "yes", resumable=True)
    text = payload_to_json(attrs.evolve(Payload.of_outcome(outcome), file=file_of(export)))
    assert "cafe" not in text
    assert "AKIA" not in text
    check_secrets(text)


@pytest.mark.parametrize(
    "text",
    [
        LINK,
        "see https://host/path?token=1",
        "https://user:word@host/",
        "X-Amz-Signature=cafe",
        "x-goog-signature=cafe",
        "sv=2020&sig=cafe",
    ],
)
def test_what_looks_like_a_secret_is_refused(text: str) -> None:
    """The last check before the disk refuses a secret, and the message doesn't repeat it."""
    with pytest.raises(SecretInPayload) as caught:
        check_secrets(text)
    assert "cafe" not in str(caught.value)
    assert "word" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["Who buys?", "a/b?c", "s3://bucket/key", "https://host/path", "Design=new", ""]
)
def test_what_is_no_secret_passes(text: str) -> None:
    """Names that people give to segments go in as they are."""
    check_secrets(text)
    segment = Segment("a", text, "p", "Static")
    export = attrs.evolve(export_of("a"), segment=segment)
    read = payload_from_json("a", as_json(Payload(export))).export
    assert read is not None
    assert read.segment == segment


ERRORS = [
    errors.ExportFailedError("failed", segment_id="a", export=None),
    errors.SubmitUnknownError("lost", segment_id="a"),
    errors.NotSubmittedError("never", segment_id="a"),
    errors.ConfigurationError("exists"),
    errors.APIConnectionError("broke", method="POST", path="/x", sent=True),
    errors.ServerError(
        "500", method="POST", path="/x", status_code=500, body="oh", retry_after=1.5
    ),
    errors.DecodeError("no", method="GET", path="/x", where="$.x"),
    errors.DownloadError("short", reason="length"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_is_told_again_as_it_was(error: errors.SegmentsError) -> None:
    """A run that is opened again has errors of the same class, message and attributes."""
    payload = as_json(Payload.of_outcome(NotExported("a", None, error, "maybe", False)))
    failure = payload_from_json("a", payload).failure
    assert failure is not None
    again = failure.error(export_of("a") if isinstance(error, errors.DownloadError) else None)
    assert (type(again), str(again)) == (type(error), str(error))
    differing = {n for n in vars(error) if getattr(again, n) != getattr(error, n)} - {"export"}
    assert differing == set()
    assert (failure.submitted, failure.resumable) == ("maybe", False)


# --------------------------------------------------------------------- against a model


class Lives(RuleBasedStateMachine):
    """Several exports, event by event, compared with a dictionary of their expected records."""

    @initialize()
    def begin(self) -> None:
        self.log: list[LogEntry] = []
        self.kept: list[StoredEntry] = []
        self.live: dict[str, ExportRecord] = {}
        self.model: dict[str, dict[str, Any]] = {}
        self.number = 0

    def known(self, segment_id: str) -> dict[str, Any]:
        fresh = {"state": State.NEW, "export": None, "file": None, "at": None, "failures": 0}
        return self.model.get(segment_id, fresh)

    @rule(segment_id=st.sampled_from(SEGMENTS), data=st.data())
    def legal_event(self, segment_id: str, data: st.DataObject) -> None:
        known = dict(self.known(segment_id))
        legal = [event for event in Event if leads(known["state"], event)]
        event = data.draw(st.sampled_from(legal))
        if event in (Event.ACCEPTED, Event.ADOPTED, Event.UNCHANGED):
            self.number += 1
        at = NOON + timedelta(seconds=len(self.log))
        payload = payload_for(event, segment_id, self.number)
        entry = LogEntry(segment_id, event, at, payload)
        self.log.append(entry)
        self.kept += kept([entry])
        self.live[segment_id] = self.live.get(segment_id, ExportRecord()).after(entry)
        known["state"] = advance(known["state"], event)
        export = attrs.evolve(export_of(segment_id, self.number), filename=None)
        if payload.export is not None:
            known["export"] = export
        known["file"] = file_of(export) if payload.file is not None else None
        if event in (Event.ACCEPTED, Event.ADOPTED):
            known["at"] = at
        if event is Event.FAILED:
            known["failures"] += 1
        if known["state"] is State.NEW:
            known.update(export=None, file=None, at=None)
        self.model[segment_id] = known

    @precondition(lambda self: self.log)
    @rule(segment_id=st.sampled_from(SEGMENTS), event=st.sampled_from(Event))
    def illegal_event(self, segment_id: str, event: Event) -> None:
        if leads(self.known(segment_id)["state"], event):
            return
        with pytest.raises(IllegalTransition):
            records([*self.kept, *kept([LogEntry(segment_id, event, NOON)])])

    @invariant()
    def replay_is_the_model(self) -> None:
        """The journal's fast replay is the model, and the records of a live run but for links."""
        replayed = records(self.kept)
        found = {
            segment_id: {
                "state": s.state,
                "export": s.export,
                "file": s.file,
                "at": s.submitted_at,
                "failures": s.failures,
            }
            for segment_id, s in replayed.items()
        }
        assert found == self.model
        assert replayed == {name: unlinked(record) for name, record in self.live.items()}

    @invariant()
    def only_new_is_posted(self) -> None:
        """Between two INTENTs of a segment, nothing was made or the caller opted in."""
        for segment_id in SEGMENTS:
            events = [entry.event for entry in self.log if entry.segment_id == segment_id]
            posts = [n for n, event in enumerate(events) if event is Event.INTENT]
            for before, after in itertools.pairwise(posts):
                between = events[before + 1 : after]
                assert between[0] in (Event.NOT_SENT, Event.REFUSED) or Event.OPTED_IN in between


def unlinked(record: ExportRecord) -> ExportRecord:
    export = record.export and attrs.evolve(record.export, filename=None)
    file = record.file and attrs.evolve(
        record.file, export=attrs.evolve(record.file.export, filename=None)
    )
    return attrs.evolve(record, export=export, file=file)


def leads(state: State, event: Event) -> bool:
    try:
        advance(state, event)
    except IllegalTransition:
        return False
    return True


TestLives = pytest.mark.filterwarnings("ignore::pytest.PytestCollectionWarning")(Lives.TestCase)
TestLives.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
