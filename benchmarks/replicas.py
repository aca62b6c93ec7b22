"""A hundred processes share one run of a million exports: a simulation, without real time.

The decisions are the real ones: claims, take-overs, each process's pacer and scheduler, and the
division of the limit. The vendor is the sandbox's token bucket; exports take minutes, spread
log-normally. The store is counted: what one operation asks of it is measured on the real code once
(`replicas_store.py`), and multiplied. Some processes die, and are started again.

The bound is for one client that knows the limit and every duration, with `poll_share` at 0.2. It
is the later of two times. By the first, the limit let through a POST and a poll for each export.
By the second, the last export ended, where the POSTs take 0.8 of the limit from the beginning on.

Prints the time over the bound, the 429s, the busiest second after the first twentieth, and what the
store is asked. Exits 1 where an export is lost, or the time is more than 1.10 of the bound.

    python benchmarks/replicas.py            # 100 processes, 1 000 000 exports: three minutes
    python benchmarks/replicas.py --quick    # 10 processes, 20 000 exports: seconds
"""

from __future__ import annotations

import argparse
import bisect
import heapq
import itertools
import math
import random
import sys
from array import array
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import attrs

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parent)]

from pacing_scenarios import admissions, seconds_to_admit
from replicas_store import IDS_AT_ONCE, Costs, measure

from segments_async import Pacer
from segments_async._http.api import SLOTS
from segments_async._journal.limit import LEASE
from segments_async._requests.sharing import BUSY, IDLE
from segments_async._run.shared_session import LOOK
from segments_async._sansio.jobs.parts import (
    PartView,
    SharedView,
    claim_size,
    most_by_pace,
    wants_more,
)
from segments_async._sansio.pace.scheduler import (
    Kind,
    PollScheduler,
    QueuedRequest,
    next_poll_at,
)
from segments_async._sansio.pace.shared_limit import GroupView, Share
from segments_async.sandbox import TokenBucket

LATENCY = 0.08
POLL_SHARE = 0.2
MOST_OVER_BOUND = 1.10

#: Seconds between the starts of two processes, and after which a dead one is started again.
BETWEEN_STARTS, UNTIL_RESTARTED = 0.2, 5.0


@attrs.frozen
class Scenario:
    """What is simulated. Times in seconds."""

    replicas: int
    exports: int
    limit: TokenBucket
    median: float
    spread: float
    deaths: int
    seed: int


@attrs.define
class Part:
    """A part in the store. Segments are numbers."""

    run_id: int
    segments: range
    left: int
    owner: Replica | None


class World:
    """The clock, the vendor, and the store."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.chance = random.Random(scenario.seed)
        self.counter = scenario.limit.counter()
        self.now = 0.0
        self.sent = array("d")
        self.refused = 0
        self.durations = array(
            "d",
            (
                scenario.median * math.exp(scenario.spread * self.chance.gauss(0, 1))
                for _ in range(scenario.exports)
            ),
        )
        self.submitted = array("d", [math.nan]) * scenario.exports
        self.ended = bytearray(scenario.exports)
        self.parts: dict[int, Part] = {}
        self.orphans = 0
        self.claimed = 0
        self.number = 0
        self.most_parts = 0
        self.rows_looked_at = 0
        self.counts: Counter[str] = Counter()
        self.sum: float | None = None
        self.waiting: dict[int, float] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def at(self, when: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), do))

    def step(self) -> None:
        self.now, _, do = heapq.heappop(self._events)
        do()

    @property
    def done(self) -> bool:
        return self.claimed == self.scenario.exports and not self.parts

    def view(self) -> SharedView:
        """The run as the journal has it."""
        views = [
            PartView(
                part.run_id,
                1,
                left=False,
                locked=part.owner is not None,
                member=str(part.owner.number if part.owner else 0),
            )
            for part in self.parts.values()
        ]
        return SharedView(ended=False, round=1, internal_errors=0, parts=views)


class Replica:
    """One process."""

    def __init__(self, world: World) -> None:
        world.number += 1
        self.number = world.number
        self._world = world
        self._began = world.now
        self._pacer = Pacer()
        self._share = Share()
        self._scheduler: PollScheduler[tuple[Part, int]] = PollScheduler(poll_share=POLL_SHARE)
        self._parts: dict[int, Part] = {}
        self._free = SLOTS
        self._waiting = 0
        self._submitted = self._submitted_before = 0
        self._looked_at = -math.inf
        self._scanned = 0
        self._wakes_at = self._looks_at = math.inf
        self._exchanged_at = -math.inf
        self._dead = False
        self._exchange()
        self._look()

    def die(self) -> None:
        self._dead = True
        for part in self._parts.values():
            part.owner = None
        self._world.orphans += len(self._parts)

    # ----------------------------------------------------------------- requests

    def _wake(self) -> None:
        if self._world.now < self._wakes_at:
            return  # an earlier one has come since, and has set another time
        self._wakes_at = math.inf
        self._send()

    def _wake_at(self, when: float) -> None:
        if when < self._wakes_at:
            self._wakes_at = when
            self._world.at(when, self._wake)

    def _send(self) -> None:
        """Send what may go now, and wake up when the next one may: as `Admission.next` decides."""
        now, pacer, scheduler = self._world.now, self._pacer, self._scheduler
        while not self._dead:
            due = scheduler.next_at(now)
            if due > now or not self._free:
                pacer.on_idle()
                if self._free and due < math.inf:
                    self._wake_at(due)
                return
            at = pacer.next_at()
            if at > now + 1e-6:
                pacer.on_waiting()
                self._wake_at(at)
                return
            queued = scheduler.pop(now)
            if queued is not None:
                self._begin(queued, pacer.take(now))

    def _begin(self, queued: QueuedRequest[tuple[Part, int]], epoch: int) -> None:
        world = self._world
        self._free -= 1
        arrives = world.now + 0.25 * LATENCY
        world.sent.append(arrives)
        wait = world.counter.admit(arrives)
        seconds = LATENCY * math.exp(0.35 * world.chance.gauss(0, 1))
        world.at(arrives + seconds, lambda: self._answered(queued, epoch, arrives, wait))

    def _answered(
        self, queued: QueuedRequest[tuple[Part, int]], epoch: int, at: float, wait: float | None
    ) -> None:
        world, scheduler, now = self._world, self._scheduler, self._world.now
        part, segment = queued.target
        submit = queued.kind is Kind.SUBMIT
        if submit and wait is None:
            world.submitted[segment] = at  # the vendor has it, also if this process is dead
        if self._dead:
            return
        self._free += 1
        if wait is not None:
            world.refused += 1
            self._refused(queued, epoch)
        else:
            scheduler.on_granted(queued.kind)
            self._pacer.on_accepted(now, epoch)
            if submit:
                self._waiting -= 1
                self._submitted += 1
            if not submit and at >= world.submitted[segment] + world.durations[segment]:
                self._export_ended(part, segment)
            else:
                again = next_poll_at(now, world.submitted[segment])
                scheduler.add(QueuedRequest(Kind.POLL, (part, segment), again))
        self._send()

    def _refused(self, queued: QueuedRequest[tuple[Part, int]], epoch: int) -> None:
        now, pacer, scheduler = self._world.now, self._pacer, self._scheduler
        if scheduler.on_refused(now, queued.kind, retry_after=None, rate=pacer.rate):
            pacer.on_mistaken(now, scheduler.cap.rate_before)
        else:
            chance = self._world.chance.random()
            pacer.on_throttled(now, epoch, retry_after=None, chance=chance)
        if queued.kind is Kind.SUBMIT:
            scheduler.not_started()
        scheduler.add(queued)

    def _export_ended(self, part: Part, segment: int) -> None:
        world = self._world
        self._scheduler.ended()
        world.ended[segment] += 1
        part.left -= 1
        if not part.left:
            del self._parts[part.run_id], world.parts[part.run_id]
            self._look()  # the end of a part is news

    # ----------------------------------------------------------------- the shared run

    def _next_look(self) -> None:
        if not self._dead and self._world.now >= self._looks_at:
            self._look()

    def _look(self) -> None:
        """As `SharedSession` does: look, take over, claim."""
        world = self._world
        world.counts["look"] += 1
        world.rows_looked_at += len(world.parts)
        if world.orphans:
            for run_id in world.view().orphans(self._parts):
                self._adopt(world.parts[run_id])
        rate = self._rate()
        if world.claimed < world.scenario.exports and wants_more(self._waiting, rate):
            self._claim(rate)
        self._looks_at = world.now + LOOK
        if not world.done:
            world.at(self._looks_at, self._next_look)

    def _rate(self) -> float:
        now, submitted = self._world.now, self._submitted
        since, self._looked_at = self._looked_at, now
        before, self._submitted_before = self._submitted_before, submitted
        return 0.0 if since < 0 else (submitted - before) / max(LOOK / 2, now - since)

    def _claim(self, rate: float) -> None:
        world = self._world
        members = {part.owner for part in world.parts.values() if part.owner} | {self}
        unclaimed = world.scenario.exports - world.claimed
        most = most_by_pace(rate, world.now - self._began)
        size = claim_size(unclaimed, len(members), most)
        world.number += 1
        segments = range(world.claimed, world.claimed + size)
        world.claimed += size
        world.counts["claim"] += 1
        # The list is read from where this process stopped, past what the others have claimed.
        ids = world.claimed - self._scanned + size
        world.counts["claim chunk"] += math.ceil(ids / IDS_AT_ONCE)
        self._scanned = world.claimed
        part = Part(world.number, segments, size, self)
        world.parts[part.run_id] = part
        world.most_parts = max(world.most_parts, len(world.parts))
        self._parts[part.run_id] = part
        self._queue(part)

    def _adopt(self, part: Part) -> None:
        self._world.counts["take over"] += 1
        part.owner = self
        self._world.orphans -= 1
        self._parts[part.run_id] = part
        self._queue(part)

    def _queue(self, part: Part) -> None:
        world, scheduler = self._world, self._scheduler
        for segment in part.segments:
            if world.ended[segment]:
                continue
            if math.isnan(world.submitted[segment]):
                scheduler.add(QueuedRequest(Kind.SUBMIT, (part, segment), 0.0))
                self._waiting += 1
            else:
                scheduler.pending += 1
                scheduler.add(QueuedRequest(Kind.POLL, (part, segment), world.now))
        self._send()

    # ----------------------------------------------------------------- the shared limit

    def _exchange(self) -> None:
        """As `Sharing` does: once a second while a request waits for the pacer, or every ten."""
        world = self._world
        if self._dead or world.done:
            return
        world.at(world.now + BUSY, self._exchange)
        if not self._pacer.waited and world.now < self._exchanged_at + IDLE:
            return
        self._exchanged_at = world.now
        world.counts["exchange"] += 1
        since = world.now - LEASE.total_seconds()
        others = sum(at >= since for one, at in world.waiting.items() if one != self.number)
        own = self._share.own(self._pacer)
        report = own.tell(GroupView(world.sum, others, "the sum"))
        world.sum = report.limit
        world.waiting.pop(self.number, None)
        if report.waits:
            world.waiting[self.number] = world.now
        if self._share.took(self._pacer, own, report):
            self._send()


def simulate(scenario: Scenario) -> World:
    """Let all processes work until the run has ended."""
    world = World(scenario)
    replicas: list[Replica] = []

    def start() -> None:
        replicas.append(Replica(world))

    def kill() -> None:
        replicas.pop(world.chance.randrange(len(replicas))).die()
        world.at(world.now + UNTIL_RESTARTED, start)

    for number in range(scenario.replicas):
        world.at(BETWEEN_STARTS * number, start)
    least = 2 * scenario.exports / scenario.limit.rate
    for number in range(scenario.deaths):
        world.at(least * (0.2 + 0.6 * number / scenario.deaths), kill)
    while not world.done:
        world.step()
    return world


def bound(scenario: Scenario, world: World) -> float:
    """The seconds that a single client needs that knows the limit and every duration."""
    for_posts = attrs.evolve(scenario.limit, rate=(1 - POLL_SHARE) * scenario.limit.rate)
    posted = admissions(for_posts, scenario.exports)
    tail = max(at + seconds for at, seconds in zip(posted, world.durations, strict=True))
    return max(seconds_to_admit(scenario.limit, 2 * scenario.exports), tail) + LATENCY


def report(scenario: Scenario, world: World, costs: Costs) -> bool:
    """Print the figures. Returns whether they are within their bounds."""
    least, sent, took = bound(scenario, world), world.sent, world.now
    first = bisect.bisect_left(sent, 0.05 * took)
    busiest, end = 0, first
    for begin in range(first, len(sent)):
        while end < len(sent) and sent[end] < sent[begin] + 1.0:
            end += 1
        busiest = max(busiest, end - begin)
    once = all(count == 1 for count in world.ended)
    print(f"{scenario.replicas} processes, {scenario.exports} exports, "
          f"{scenario.limit.rate:g} requests/s, {scenario.deaths} deaths")  # fmt: skip
    print(
        f"time {took:.0f} s, bound {least:.0f} s: {took / least:.3f}; the last POST after "
        f"{max(world.submitted):.0f} s"
    )
    print(
        f"requests per export {len(sent) / scenario.exports:.2f}, 429s {world.refused} "
        f"({world.refused / len(sent):.2%}), busiest second {busiest}"
    )
    print(f"claims {world.counts['claim']}, take-overs {world.counts['take over']}, parts open at "
          f"once {world.most_parts} (a connection each), rows of parts read per second "
          f"{world.rows_looked_at / took:.0f}")  # fmt: skip
    print("\n| operation | a second | statements/s | commits/s |\n|---|--:|--:|--:|")
    rows = [
        ("look", world.counts["look"], costs.look),
        ("exchange", world.counts["exchange"], costs.exchange),
        ("claim", world.counts["claim"], costs.claim),
        ("claim: 500 ids", world.counts["claim chunk"], costs.claim_chunk),
        ("events of an export", scenario.exports, costs.export),
    ]
    for name, count, cost in rows:
        print(f"| {name} | {count / took:.2f} | {count * cost.statements / took:.0f} "
              f"| {count * cost.commits / took:.0f} |")  # fmt: skip
    total = sum(count * cost.statements for _, count, cost in rows) / took
    commits = sum(count * cost.commits for _, count, cost in rows) / took
    print(f"| all | | {total:.0f} | {commits:.0f} |")
    return once and took <= MOST_OVER_BOUND * least


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="10 processes, 20 000 exports")
    parser.add_argument("--replicas", type=int)
    parser.add_argument("--exports", type=int)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--deaths", type=int)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    quick = options.quick
    rate = options.rate or (200.0 if quick else 1000.0)
    scenario = Scenario(
        replicas=options.replicas or (10 if quick else 100),
        exports=options.exports or (20_000 if quick else 1_000_000),
        limit=TokenBucket(rate, 0.2 * rate),
        median=15.0 if quick else 60.0,
        spread=0.5 if quick else 0.7,
        deaths=(2 if quick else 5) if options.deaths is None else options.deaths,
        seed=options.seed,
    )
    costs = measure()
    return 0 if report(scenario, simulate(scenario), costs) else 1


if __name__ == "__main__":
    sys.exit(main())
