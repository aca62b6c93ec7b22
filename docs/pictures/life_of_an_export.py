"""The states of an export and the events between them, drawn from the library's own table.

The layout is fixed here: a place for each state, and a way for each event. States and events come
from `segments_async/_sansio/jobs/lifecycle.py`. A state or an event without a place here ends the
drawing with an error, and so does a place for one that the table doesn't have.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import attrs
from diagram import SMALL, Anchor, Colour, Diagram, Point

from segments_async._sansio.jobs.lifecycle import ENDS, Event, IllegalTransition, State, advance

WIDTH, HEIGHT = 520.0, 920.0
TITLE = "The life of an export"
DESCRIPTION = (
    "In the left column an export goes from its request to its file: not requested, on the wire, "
    "running, complete, downloading, file in place. In the right column are the other ends: "
    "unchanged, never requested, refused, unknown, failed, broken off, expired. Each end says what "
    "a later session of the same run does."
)

#: Events that only a later session, or an option of the caller's, fires: a line in the state's box.
LATER = (Event.RESUMED, Event.OPTED_IN)

_LEFT, _LEFT_WIDTH = 64.0, 158.0
_RIGHT, _RIGHT_WIDTH = 344.0, 166.0
_EDGE = _LEFT + _LEFT_WIDTH  # of the left column's boxes, where arrows to the right begin


class Incomplete(AssertionError):
    """The layout and the library's table don't have the same states and events."""


@attrs.frozen
class Place:
    """Where a state stands.

    Attributes:
        x: of its left side.
        y: of its middle.
        lines: its name, and what it means.
        later: for each of the events in LATER, what a later session does.
    """

    x: float
    y: float
    lines: tuple[str, ...]
    colour: Colour
    later: dict[Event, tuple[str, ...]] = attrs.field(factory=dict)

    @property
    def width(self) -> float:
        """Of its column's boxes."""
        return _LEFT_WIDTH if self.x == _LEFT else _RIGHT_WIDTH


@attrs.frozen
class Way:
    """The arrow of an event, and where its label stands."""

    points: tuple[Point, ...]
    label: tuple[str, ...] = ()
    at: Point = (0.0, 0.0)
    anchor: Anchor = "start"


_NEW, _INTENT, _SUBMITTED, _COMPLETE, _FETCHING, _DONE = 150.0, 350.0, 496.0, 602.0, 712.0, 824.0

PLACES = {
    State.NEW: Place(_LEFT, _NEW, ("not requested", "waiting its turn"), "plain"),
    State.INTENT: Place(_LEFT, _INTENT, ("on the wire", "the POST is sent"), "blue"),
    State.SUBMITTED: Place(_LEFT, _SUBMITTED, ("running", "pending, is polled"), "blue"),
    State.COMPLETE: Place(
        _LEFT,
        _COMPLETE,
        ("complete", "at the vendor, 48 h"),
        "blue",
        {Event.RESUMED: ("later: polled again",)},
    ),
    State.FETCHING: Place(
        _LEFT,
        _FETCHING,
        ("downloading", "fetching to a .part"),
        "blue",
        {Event.RESUMED: ("later: polled again",)},
    ),
    State.DONE: Place(
        _LEFT,
        _DONE,
        ("file in place",),
        "green",
        {Event.RESUMED: ("later: polled again", "if the file is gone")},
    ),
    State.UNCHANGED: Place(
        _RIGHT,
        106,
        ("unchanged", "last file still right"),
        "green",
        {Event.RESUMED: ("later: requested if", "the file is gone")},
    ),
    State.UNASKED: Place(
        _RIGHT,
        206,
        ("never requested", "the run gave up first"),
        "orange",
        {Event.RESUMED: ("later: requested",)},
    ),
    State.REFUSED: Place(
        _RIGHT,
        304,
        ("refused", "no export was made"),
        "orange",
        {Event.RESUMED: ("later: requested, but", "not after 404 or 410")},
    ),
    State.UNKNOWN: Place(
        _RIGHT,
        406,
        ("unknown", "it may be running"),
        "orange",
        {Event.OPTED_IN: ("later: again only by", "on_unknown")},
    ),
    State.FAILED: Place(
        _RIGHT,
        508,
        ("failed", "the vendor says so"),
        "orange",
        {Event.OPTED_IN: ("later: again only by", "retry_failed")},
    ),
    State.BROKEN_OFF: Place(
        _RIGHT,
        _COMPLETE,
        ("broken off", "it can be resumed"),
        "orange",
        {Event.RESUMED: ("later: polled again",)},
    ),
    State.EXPIRED: Place(
        _RIGHT,
        _FETCHING,
        ("expired", "the file was deleted"),
        "orange",
        {Event.OPTED_IN: ("later: again only by", "on_expired")},
    ),
}

_MIDDLE = _LEFT + _LEFT_WIDTH / 2
_TO_BROKEN_OFF, _TO_EXPIRED = _EDGE + 32, _EDGE + 16  # where arrows to these two turn

WAYS = {
    (State.NEW, Event.INTENT): Way(((108, 174), (108, 326)), ("its turn", "has come"), (116, 250)),
    (State.NEW, Event.ADOPTED): Way(
        ((_LEFT, 150), (32, 150), (32, 496), (_LEFT, 496)),
        ("another", "call's", "export", "serves"),
        (32, 420),
        "middle",
    ),
    (State.NEW, Event.UNCHANGED): Way(
        ((_EDGE, 142), (_EDGE + 16, 142), (_EDGE + 16, 106), (_RIGHT, 106)),
        ("not run since", "(only_changed)"),
        (_EDGE + 12, 80),
    ),
    (State.NEW, Event.GAVE_UP): Way(
        ((_EDGE, 158), (_EDGE + 16, 158), (_EDGE + 16, 206), (_RIGHT, 206)),
        ("time is up",),
        (_EDGE + 22, 194),
    ),
    (State.INTENT, Event.NOT_SENT): Way(
        ((202, 326), (202, 174)), ("not sent, or", "“not now”"), (210, 254)
    ),
    (State.INTENT, Event.ACCEPTED): Way(
        ((_MIDDLE, 374), (_MIDDLE, 472)), ("accepted:", "an id came"), (_MIDDLE + 8, 423)
    ),
    (State.INTENT, Event.REFUSED): Way(
        ((_EDGE, 342), (_EDGE + 16, 342), (_EDGE + 16, 304), (_RIGHT, 304)),
        ("answer 4xx",),
        (_EDGE + 22, 292),
    ),
    (State.INTENT, Event.LOST): Way(
        ((_EDGE, 358), (_EDGE + 16, 358), (_EDGE + 16, 406), (_RIGHT, 406)),
        ("answer lost,", "5xx, or killed"),
        (_EDGE + 20, 380),
    ),
    (State.SUBMITTED, Event.COMPLETED): Way(
        ((_MIDDLE, 520), (_MIDDLE, 570)), ("polled:", "COMPLETE"), (_MIDDLE + 8, 545)
    ),
    (State.SUBMITTED, Event.FAILED): Way(
        ((_EDGE, 488), (_RIGHT, 488)), ("polled: FAILED",), (_EDGE + 8, 476)
    ),
    (State.SUBMITTED, Event.GAVE_UP): Way(
        ((_EDGE, 504), (_TO_BROKEN_OFF, 504), (_TO_BROKEN_OFF, 602), (_RIGHT, 602)),
        ("time is up,", "bad link"),
        (_TO_BROKEN_OFF + 6, 576),
    ),
    (State.COMPLETE, Event.FETCH): Way(
        ((_MIDDLE, 634), (_MIDDLE, 680)), ("download", "begins"), (_MIDDLE + 8, 657)
    ),
    (State.COMPLETE, Event.FETCHED): Way(
        ((_LEFT, 602), (32, 602), (32, 824), (_LEFT, 824)),
        ("only", "links", "wanted"),
        (32, 760),
        "middle",
    ),
    (State.COMPLETE, Event.EXPIRED): Way(
        ((_EDGE, 616), (_TO_EXPIRED, 616), (_TO_EXPIRED, 712), (_RIGHT, 712)),
        ("after 48 h",),
        (_TO_BROKEN_OFF + 6, 700),
    ),
    (State.COMPLETE, Event.GAVE_UP): Way(((_EDGE, 602), (_RIGHT, 602))),
    (State.FETCHING, Event.FETCHED): Way(
        ((_MIDDLE, 744), (_MIDDLE, 792)), ("whole, synced,", "renamed"), (_MIDDLE + 8, 768)
    ),
    (State.FETCHING, Event.EXPIRED): Way(((_EDGE, 712), (_RIGHT, 712))),
    (State.FETCHING, Event.GAVE_UP): Way(
        ((_EDGE, 698), (_TO_BROKEN_OFF, 698), (_TO_BROKEN_OFF, 602), (_RIGHT, 602))
    ),
}


def table() -> dict[tuple[State, Event], State]:
    """The library's table: the state after each event that may happen in a state."""
    found = {}
    for state in State:
        for event in Event:
            try:
                found[state, event] = advance(state, event)
            except IllegalTransition:
                continue
    return found


def check() -> None:
    """Compare the layout with the library's table.

    Raises:
        Incomplete: a state or an event has no place, or a place has none.
    """
    _same("states", set(State), set(PLACES))
    at_once = {key for key in table() if key[1] not in LATER}
    _same("events", at_once, set(WAYS))
    later = {key for key in table() if key[1] in LATER}
    _same("events of a later session", later, {(s, e) for s in PLACES for e in PLACES[s].later})
    _same("ends", set(ENDS), {state for state in PLACES if state not in {s for s, _ in WAYS}})


def _same(what: str, there: AbstractSet[object], here: AbstractSet[object]) -> None:
    if there != here:
        raise Incomplete(f"{what} without a place: {there - here}; places without: {here - there}")


def draw() -> str:
    """The picture."""
    check()
    diagram = Diagram(WIDTH, HEIGHT, TITLE, DESCRIPTION)
    diagram.text(18, 30, "One export in one run", "bold", size=16)
    diagram.arrow(((_MIDDLE, 84), (_MIDDLE, 126)))
    diagram.text(_MIDDLE, 76, "the run starts", anchor="middle", size=SMALL)
    for way in WAYS.values():
        diagram.arrow(way.points)
    for place in PLACES.values():
        _draw_state(diagram, place)
    for way in WAYS.values():
        diagram.label(*way.at, way.label, anchor=way.anchor)
    diagram.rule(18, 866, WIDTH - 18, 866)
    diagram.paragraph(
        18, 888, ("Blue boxes: under way. Green: a file. Orange: an end without a file.",)
    )
    diagram.paragraph(18, 905, ("later: what a later session of the same run does",), "blue")
    return diagram.svg()


def _draw_state(diagram: Diagram, place: Place) -> None:
    later = [(line, "blue") for lines in place.later.values() for line in lines]
    lines = [*place.lines, *later]
    height = 12 + 18 + 17 * (len(lines) - 1)
    diagram.box(place.x, place.y - height / 2, place.width, lines, colour=place.colour)
