"""How the processes of one account tell each other that the vendor is away, and that it is back.

Each process that a gateway answers in the vendor's place loses a POST or two before it knows: such
a POST may have begun an export whose id is lost. So the process that knows first writes an *outage*
into the journal, and the others hold their requests before they have lost any. There are two
outages, each with a row of its own: of all requests (`Outage`) and of submits (`SubmitHold`).

Only answers count. A process without a connection, or whose requests are lost, says nothing: the
reason may be its own network, and the others would stand still for it.

One process probes at a time. When the outage's pause is over, the first process that looks at the
journal and has something to send gets the *turn*. Its probe is a harmless request, or a submit
where submits alone are held. If the probe fails, the next pause begins, and the next turn is
another process's: a process with a gateway of its own that is broken can't hold the others for
longer than one pause. If the vendor answers the probe, its process deletes the row, and all go on.

False news does no harm. The turn decides who probes, and never who may send a POST for a segment:
two processes that both believe to have the turn send two probes. Times are read from the journal
once, when a process first sees a version of the row, as seconds from then on: a clock that is set
back later changes nothing. A process holds its requests for at most `HEEDED` seconds after a
version was written, and the process that wrote it writes it again while it still stands. `GRACE`
seconds later each process probes by itself. A row that is older than `WORTH` is ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

import attrs

from segments_async._sansio.pace.outage import Cause
from segments_async._sansio.pace.submit_hold import ListCounts

#: The two outages, by the names of their rows.
REQUESTS, SUBMITS = "requests", "submits"

#: Seconds for which others heed a version of the row, unless it is written again. An outage whose
#: end a `Retry-After` names may be longer: its process writes the row again every `REFRESH` s.
HEEDED = 60.0
REFRESH = 20.0

#: Seconds after which a row is of another time: the processes of then have ended.
WORTH = 600.0

#: Seconds that a turn lasts. A process that died with the turn delays the others by so much.
TURN = 20.0

#: Seconds that the process whose probe failed leaves the next turn to the others.
YIELD = 2.0

NO_LISTS = ListCounts()

#: Seconds after which a process that hears no more from the journal probes by itself.
GRACE = 5.0


@attrs.frozen
class CommonOutage:
    """An outage as the journal has it, at the moment it is read or written.

    Attributes:
        name: of the outage: another outage has another name.
        version: of the row: another one at each write.
        due: seconds until the next turn.
        age: seconds since the row was written.
        lasts: seconds since the outage began.
        member: the process that was answered last, or has the turn.
        turn: whether that process has the turn: the next one is due at the turn's end.
        failures: pauses so far, by which the next one grows.
        lists: lists that failed as probes; see `ListProbes`.
    """

    name: str
    version: str
    due: float
    age: float
    lasts: float
    member: str
    turn: bool
    failures: int
    lists: ListCounts = NO_LISTS


@attrs.frozen
class GuardNews:
    """The ticket guard, as the journal has it.

    Attributes:
        left: seconds until a request may go.
        pause: seconds that the next 500 would delay all requests.
        version: another one for each state that was stored.
    """

    left: float
    pause: float
    version: str


@attrs.frozen
class News:
    """What the processes of the account tell each other, apart from the limit.

    Attributes:
        outages: of the vendor, by their names (`REQUESTS`, `SUBMITS`).
        guard: the ticket guard; None where it holds nothing.
    """

    outages: Mapping[str, CommonOutage] = attrs.field(factory=dict[str, CommonOutage])
    guard: GuardNews | None = None


@attrs.frozen
class OwnOutage:
    """An outage as one process has it.

    Attributes:
        armed: whether it holds its requests.
        cause: how it knows.
        fresh: whether it was answered in the vendor's place since its last look at the journal.
        due: seconds until its next probe by itself; below 0 where the time is over.
        lasts: seconds since the process found it.
        failures: pauses so far.
        lists: as in `CommonOutage`.
        known: the name of the common outage that it knows; empty for none.
        version: of the row, as it last saw it.
        row_due: seconds until the turn that that version names.
        row_age: seconds since it saw that version first.
        wants: whether a request waits that can be a probe.
        refuted: whether other processes have found the vendor there lately.
        hurried: whether the vendor has just answered this process again.
        setbacks: of the outage or hold, as these values were read.
    """

    member: str
    armed: bool = False
    cause: Cause | None = None
    fresh: bool = False
    due: float = 0.0
    lasts: float = 0.0
    failures: int = 0
    lists: ListCounts = NO_LISTS
    known: str = ""
    version: str = ""
    row_due: float = 0.0
    row_age: float = 0.0
    wants: bool = False
    refuted: bool = False
    hurried: bool = False
    setbacks: int = 0

    @property
    def reports(self) -> bool:
        """Whether the process tells the others: it was answered in the vendor's place."""
        return self.armed and self.cause is Cause.ANSWERED and not self.refuted

    def has_seen(self, row: CommonOutage) -> bool:
        """Whether the process has seen this version of the row before."""
        return row.version == self.version

    def due_of(self, row: CommonOutage) -> float:
        """Seconds until the turn that the row names; below 0 where the time is over."""
        if self.has_seen(row):
            return self.row_due
        return min(row.due, HEEDED - max(0.0, row.age))


class Word(Enum):
    """What a look at the journal says to a process."""

    NOTHING = "nothing"  # go on by yourself
    HOLD = "hold"  # send nothing until the next turn
    PROBE = "probe"  # send one probe
    BACK = "back"  # the vendor is there


@attrs.frozen
class Agreed:
    """What this process does after a look at the journal.

    Attributes:
        word: what the look says to the process.
        row: the row as it stands after the look; None: there is no row.
        written: whether `row` is written, or deleted, by this look.
    """

    word: Word
    row: CommonOutage | None = None
    written: bool = False


def agree(own: OwnOutage, row: CommonOutage | None, *, others: int, token: str) -> Agreed:
    """What this process does, by the journal's row and by its own state.

    Args:
        own: this process's state.
        row: the journal's row; None where it has none.
        others: other processes that looked lately.
        token: a text that was never used, for a name or a version.
    """
    if row is None:
        if own.known:
            return Agreed(Word.BACK if own.armed else Word.NOTHING)
        return _told(own, others, token) if own.reports else Agreed(Word.NOTHING)
    if not own.has_seen(row) and not -GRACE <= row.age <= WORTH:
        if own.reports:
            return _told(own, others, token)
        # The row is too old, or of the future: delete it, so that no process looks at it again.
        return Agreed(Word.NOTHING, None, written=True)
    if row.name == own.known and not own.armed:
        # The vendor answered this process since.
        return Agreed(Word.NOTHING, None, written=True)
    if own.fresh and own.reports:
        return _told_again(own, row, others, token)
    return _heeded(own, row, others, token)


def _told(own: OwnOutage, others: int, token: str) -> Agreed:
    row = CommonOutage(
        name=token,
        version=token,
        due=max(0.0, own.due),
        age=0.0,
        lasts=own.lasts,
        member=own.member,
        turn=False,
        failures=own.failures,
        lists=own.lists,
    )
    return Agreed(Word.HOLD if others else Word.NOTHING, row, written=True)


def _told_again(own: OwnOutage, row: CommonOutage, others: int, token: str) -> Agreed:
    """A gateway answered this process in the vendor's place again: a pause begins."""
    longer = row.due if not row.turn else 0.0
    written = attrs.evolve(
        row,
        version=token,
        due=max(0.0, own.due, longer),
        age=0.0,
        member=own.member,
        turn=False,
        failures=max(own.failures, row.failures),
        lists=own.lists.merged(row.lists),
    )
    return Agreed(Word.HOLD if others else Word.NOTHING, written, written=True)


def _heeded(own: OwnOutage, row: CommonOutage, others: int, token: str) -> Agreed:
    """The outage stands: wait for the next turn, take it, or give it on."""
    mine, due = row.member == own.member, own.due_of(row)
    if mine and row.turn:
        if own.fresh and own.cause is Cause.UNREACHED:
            # The probe was lost, which says nothing about the vendor: the next process tries.
            given = attrs.evolve(row, version=token, due=0.0, age=0.0, turn=False)
            return Agreed(Word.HOLD, given, written=True)
        if due > 0:
            # The probe is on the wire, or waits for the pacer.
            return Agreed(Word.NOTHING, attrs.evolve(row, due=due))
    elif mine and not others:
        # Alone: by its own times. The row is for a process that starts meanwhile.
        return _refreshed(own, row, Word.NOTHING, max(0.0, own.due), token)
    if due > 0 and not own.hurried:
        return _refreshed(own, row, Word.HOLD, due, token)
    if own.wants and _may_probe(own, row, others, due):
        turn = attrs.evolve(row, version=token, due=TURN, age=0.0, member=own.member, turn=True)
        return Agreed(Word.PROBE, turn, written=True)
    return Agreed(Word.HOLD, attrs.evolve(row, due=due))


def _may_probe(own: OwnOutage, row: CommonOutage, others: int, due: float) -> bool:
    """Whether the next turn may be this process's."""
    if own.hurried:
        return True
    # After its own failed probe, it leaves the next turn to the others for a while.
    late = YIELD if row.member == own.member and others else 0.0
    return own.cause is not Cause.UNREACHED and due <= -late


def _refreshed(own: OwnOutage, row: CommonOutage, word: Word, due: float, token: str) -> Agreed:
    """Write the row again where this process's word about it is getting old."""
    mine = row.member == own.member and not row.turn
    if mine and due > 0 and own.row_age > REFRESH:
        return Agreed(word, attrs.evolve(row, version=token, due=due, age=0.0), written=True)
    return Agreed(word, attrs.evolve(row, due=due))


def agree_all(
    owns: Sequence[Mapping[str, OwnOutage]], news: News, *, others: int, token: str
) -> tuple[list[dict[str, Agreed]], dict[str, CommonOutage | None]]:
    """What the clients of one process do, one after the other.

    Args:
        owns: the state of each client, by the names of the outages.
        others: other processes that looked lately.
        token: a text that was never used.

    Returns: for each client, what it does; and the rows to write, None for a row to delete.
    """
    rows: dict[str, CommonOutage | None] = dict(news.outages)
    changed: dict[str, CommonOutage | None] = {}
    result: list[dict[str, Agreed]] = []
    for number, own in enumerate(owns):
        agreed: dict[str, Agreed] = {}
        for what in (REQUESTS, SUBMITS):
            others_of_one = others + len(owns) - 1
            one = agree(own[what], rows.get(what), others=others_of_one, token=f"{token}.{number}")
            agreed[what] = one
            if one.written:
                rows[what] = changed[what] = one.row
        result.append(agreed)
    return result, changed
