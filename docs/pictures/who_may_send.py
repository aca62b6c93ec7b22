"""Which request goes next, and what may delay it, in the order in which `Admission.next` asks.

The order is that of `_sansio/pace/admission.py`. Numbers come from the code, and so do the values
of `HeldReason`: each of them has to be in the picture.
"""

from __future__ import annotations

import inspect

import attrs
from diagram import SMALL, Diagram

from segments_async._http.api import SLOTS
from segments_async._sansio.pace import backoff, outage, scheduler, submit_hold
from segments_async.results import HeldReason

WIDTH, HEIGHT = 520.0, 1063.0
TITLE = "Who may send now"
DESCRIPTION = (
    "A request is chosen among calls, submits and polls. Submits may have to wait for room. The "
    "chosen request passes five gates: a free slot, the ticket guard, whether the vendor is there, "
    "whether answers come, and the pacer. The vendor's answer closes or opens gates: 429 the "
    "pacer, 500 the ticket guard, a gateway's answer or a lost connection the third gate."
)

#: Why downloads wait; no request to the API does.
OF_DOWNLOADS = (
    HeldReason.STORAGE_AWAY,
    HeldReason.STORAGE_CREDENTIALS,
    HeldReason.DESTINATION_AWAY,
)

_SHARE = inspect.signature(scheduler.PollScheduler).parameters["poll_share"].default
_LOST, _AWAY = outage.LOST_IN_A_ROW, outage.AWAY_IN_A_ROW
_MINUTE = 60


@attrs.frozen
class GateBox:
    """A condition for every request.

    Attributes:
        closed: when it is closed, and until when.
        held: the values of `progress.held` while it is closed.
        answer: of the vendor, which closes it.
    """

    name: str
    closed: tuple[str, ...]
    held: tuple[HeldReason, ...] = ()
    answer: tuple[str, ...] = ()


GATES = (
    GateBox("1  A slot is free", (f"at most {SLOTS} requests are on the wire at once",)),
    GateBox(
        "2  No ticket was raised",
        (
            f"after a 500: closed for {backoff.FIRST_GUARD:g} s, doubling to "
            f"{backoff.LONGEST_GUARD / _MINUTE:g} min;",
            "then one request goes as a probe.",
            f"A run ends after {backoff.MOST_INTERNAL_ERRORS} answers of 500",
        ),
        (HeldReason.TICKET_GUARD,),
        ("500",),
    ),
    GateBox(
        "3  The vendor is there",
        (
            f"after {_LOST} lost answers, {_AWAY} of a gateway, or no",
            f"connection: closed for up to {backoff.LONGEST_BACKOFF:g} s, then one",
            "probe: a poll, or a list in place of a submit",
        ),
        (HeldReason.VENDOR_AWAY,),
        ("502, 503,", "504, lost"),
    ),
    GateBox(
        "4  Answers come",
        (
            f"silence for {outage.SILENT_FACTOR:g} times the slowest recent answer, with",
            f"{outage.SILENT_ABOVE} or more on the wire: closed until one comes",
        ),
        (HeldReason.VENDOR_AWAY,),
        ("none yet",),
    ),
    GateBox(
        "5  The pacer says “now”",
        (
            "requests go evenly, at the learnt rate or at this",
            "process's part of it. After a 429: closed; single",
            "probes go, until one is accepted",
        ),
        (HeldReason.RATE_LIMIT, HeldReason.SHARED_LIMIT),
        ("429",),
    ),
)

#: What submits wait for besides: a text, and the value of `progress.held`.
SUBMITS_WAIT = (
    ("for room: max_pending, or a learnt cap", HeldReason.JOB_CAP),
    (f"while {submit_hold.UNKNOWN_IN_A_ROW} results in a row are unknown", HeldReason.VENDOR_AWAY),
    ("for a journal that is away", HeldReason.JOURNAL_AWAY),
)

_GATE_X, _GATE_WIDTH, _BUS, _BETWEEN = 116.0, 390.0, 22.0, 20.0
_FIRST_GATE = 340.0
_MIDDLE = _GATE_X + _GATE_WIDTH / 2


class Incomplete(AssertionError):
    """A reason for which requests are held has no place."""


def check() -> None:
    """See that each reason that users may read in `progress.held` has its place.

    Raises:
        Incomplete: one has none.
    """
    shown = {reason for gate in GATES for reason in gate.held}
    shown |= {reason for _, reason in SUBMITS_WAIT} | set(OF_DOWNLOADS)
    # A process that has nothing to send waits for no gate.
    shown.add(HeldReason.OTHER_PROCESSES)
    if missing := set(HeldReason) - shown:
        raise Incomplete(f"no place for {', '.join(sorted(missing))}")


def draw() -> str:
    """The picture."""
    check()
    diagram = Diagram(WIDTH, HEIGHT, TITLE, DESCRIPTION)
    diagram.text(18, 30, "Which request is next?", "bold", size=16)
    _draw_queues(diagram)
    diagram.text(18, 322, "May it go now?", "bold", size=16)
    bottom, first = _draw_gates(diagram, _FIRST_GATE)
    _draw_answer(diagram, bottom, first)
    return diagram.svg()


def _draw_queues(diagram: Diagram) -> None:
    gap, part = scheduler.SHORTEST_POLL_GAP, 100 * scheduler.POLL_GAP_BY_AGE
    calls = ("calls", "a list, a status:", "first, but never two", "in a row")
    submits = ("submits", "longest export first", "(if known), else in", "the order given")
    polls = (
        "polls",
        "longest due first; of",
        "one export, apart by",
        f"{gap:g} s, or {part:g} % of age",
    )
    wait = ["Submits also wait"]
    for text, reason in SUBMITS_WAIT:
        wait += [(text, ""), (reason.value, "code soft")]
    diagram.box(14, 46, 160, calls)
    diagram.box(180, 46, 160, submits, colour="blue")
    diagram.box(346, 46, 160, polls)
    diagram.arrow(((260, 127), (260, 148)), colour="blue")
    below = 148 + diagram.box(180, 148, 296, wait, colour="blue")
    diagram.arrow(((_MIDDLE, below), (_MIDDLE, _FIRST_GATE)), colour="blue")
    for x in (168, 491):  # calls and polls
        diagram.arrow(((x, 127), (x, _FIRST_GATE)))
    diagram.label(_MIDDLE + 9, below + 25, ("the next request",), anchor="start")
    turn = (
        "While submits and",
        "polls both wait,",
        f"every {1 / _SHARE:.0f}th of these",
        "requests is a poll",
        f"(poll_share {_SHARE:g}).",
    )
    diagram.paragraph(18, 180, turn)


def _draw_gates(diagram: Diagram, y: float) -> tuple[float, float]:
    """Draw the gates below one another.

    Returns: where the next box begins, and the middle of the first gate that answers close.
    """
    centres = []
    for gate in GATES:
        lines: list[str | tuple[str, str]] = [gate.name, *gate.closed]
        if gate.held:
            lines.append((" or ".join(reason.value for reason in gate.held), "code soft"))
        height = diagram.box(_GATE_X, y, _GATE_WIDTH, lines, colour="orange")
        diagram.arrow(((_MIDDLE, y + height), (_MIDDLE, y + height + _BETWEEN)))
        if gate.answer:
            centres.append(centre := y + height / 2)
            diagram.arrow(((_BUS, centre), (_GATE_X, centre)))
            diagram.label(_BUS + 6, centre - 6 - 8 * len(gate.answer), gate.answer, anchor="start")
        y += height + _BETWEEN
    return y, centres[0]


def _draw_answer(diagram: Diagram, y: float, first: float) -> None:
    """The request is sent, and its answer goes back to the gates."""
    sent = ("The request is sent", "each answer goes back to all gates")
    height = diagram.box(_GATE_X, y, _GATE_WIDTH, sent, colour="green")
    back = ((_GATE_X, y + height / 2), (_BUS, y + height / 2), (_BUS, first))
    diagram.arrow(back, head=False)
    notes = (
        "Left: the answer that closes the gate. Any other answer of the",
        "vendor's own opens gates 2 to 5. While 429 comes to submits alone",
        "and polls pass, it is taken for a cap on running exports, and the",
        "pacer stays as it is.",
    )
    below = diagram.paragraph(18, y + height + 28, notes)
    held = ("In typewriter letters: progress.held.reason. Downloads have", "three more:")
    below = diagram.paragraph(18, below + 4, held)
    diagram.text(
        18, below, ", ".join(reason.value for reason in OF_DOWNLOADS), "code soft", size=SMALL
    )
