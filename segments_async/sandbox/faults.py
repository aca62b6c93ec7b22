"""Faults that a test scripts or the sandbox draws: their effects, and which requests get them.

A fault changes the vendor's reply (`Fault.alter`), or the answer on its way (`Fault.spoil`). The
`transport` and the `server` carry out what an `Answer` says of its connection.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from attrs import astuple, define, evolve, field, frozen

from .answer import Answer, Reply
from .record import Entry, Lost, Origin
from .request import error


@frozen(kw_only=True)
class Fault:
    """A fault of one request. Use the constants and the class methods to make one.

    Attributes:
        unreachable: no connection is made.
        lost: whether the answer is lost, before or after the vendor acted.
        reply: answered instead of the true reply; None for the true one.
        acts: whether the vendor does what is asked.
        change: changes the body of the true reply; None leaves it.
        cut_after: bytes of the body after which the connection breaks; None for none.
        delay: seconds that the answer is late.
        length: the Content-Length; ``"true"`` for the true one, None for none.
    """

    UNREACHABLE: ClassVar[Fault]
    """No connection is made. Nothing is sent, and the record has no entry."""
    LOST_BEFORE: ClassVar[Fault]
    """The connection breaks before the vendor acts."""
    LOST_AFTER: ClassVar[Fault]
    """The vendor acts, and the connection breaks before a byte of the answer."""

    unreachable: bool = False
    lost: Lost = "no"
    reply: Reply | None = None
    acts: bool = True
    change: Callable[[bytes], bytes] | None = None
    cut_after: int | None = None
    delay: float = 0.0
    length: int | Literal["true"] | None = "true"

    def alter(self, reply: Reply) -> Reply:
        """The vendor's reply, with this fault."""
        if self.reply is not None:
            return self.reply
        if self.change is None:
            return reply
        body = reply.body if isinstance(reply.body, bytes) else b"".join(reply.body)
        headers = {k: v for k, v in reply.headers.items() if k != "content-length"}
        return Reply(reply.status, self.change(body), headers)

    def spoil(self, answer: Answer) -> Answer:
        """The answer to a request with this fault, as it goes out."""
        answer.entry.status, answer.entry.lost = answer.status or None, self.lost
        headers = dict(answer.headers)
        if self.length != "true":
            headers.pop("content-length", None)
            headers |= {} if self.length is None else {"content-length": str(self.length)}
        return evolve(
            answer, headers=headers, lost=self.lost, cut_after=self.cut_after, delay=self.delay
        )

    @classmethod
    def status(
        cls,
        status: int,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | str = b"",
        acts: bool = False,
    ) -> Fault:
        """Answer with this status. `acts`: the sandbox carries the request out all the same."""
        data = body.encode() if isinstance(body, str) else body
        lower = {name.lower(): value for name, value in (headers or {}).items()}
        return cls(reply=Reply(status, data, lower), acts=acts)

    @classmethod
    def changed(cls, change: Callable[[bytes], bytes]) -> Fault:
        """The true answer, its body changed: another id, a missing field."""
        return cls(change=change)

    @classmethod
    def fields(cls, **fields: object) -> Fault:
        """The true answer, with these fields of its export changed.

        `segment` is a mapping of fields of the export's segment. An answer that is no export, such
        as a list, stays as it is.
        """

        def change(body: bytes) -> bytes:
            answer: Any = json.loads(body)
            if isinstance(answer, list) or "exportId" not in answer:
                return body
            inner = fields.get("segment")
            if isinstance(inner, Mapping):
                answer["segment"].update(inner)
            answer.update({k: v for k, v in fields.items() if not isinstance(v, Mapping)})
            return json.dumps(answer).encode()

        return cls(change=change)

    @classmethod
    def cut(cls, after: int) -> Fault:
        """The true answer, broken off after `after` bytes of its body."""
        return cls(cut_after=after)

    @classmethod
    def slow(cls, seconds: float) -> Fault:
        """The true answer, `seconds` late. The vendor acts before the delay."""
        return cls(delay=seconds)

    @classmethod
    def content_length(cls, length: int | None) -> Fault:
        """The true answer with a false Content-Length, or with none (chunked)."""
        return cls(length=length)


Fault.UNREACHABLE = Fault(unreachable=True, acts=False)
Fault.LOST_BEFORE = Fault(lost="before", acts=False)
Fault.LOST_AFTER = Fault(lost="after")


@frozen
class Shares:
    """The parts of API requests that get each fault of the sandbox's options."""

    internal_errors: float
    gateway_errors: float
    lost_before: float
    lost_after: float

    def __attrs_post_init__(self) -> None:
        parts = astuple(self)
        if min(parts) < 0 or sum(parts) > 1:
            raise ValueError("shares are not negative, and add up to at most 1")

    def draw(self, chance: random.Random) -> Fault | None:
        """Draw a fault for one request, or none: at most one, since one draw decides."""
        u = chance.random()
        for share, faults in zip(astuple(self), _FAULTS, strict=True):
            if u < share:
                return chance.choice(faults)
            u -= share
        return None


def _gateway_error(status: int, *, acts: bool) -> Fault:
    page = f"<html><head><title>{status}</title></head></html>\n"  # a gateway doesn't speak JSON
    return Fault.status(status, headers={"content-type": "text/html"}, body=page, acts=acts)


_FAULTS: tuple[tuple[Fault, ...], ...] = (
    (Fault(reply=error(500, "Internal Error"), acts=False),),
    (
        _gateway_error(502, acts=False),
        _gateway_error(503, acts=False),
        # The gateway waited too long. The vendor has acted on half of these requests.
        _gateway_error(504, acts=False),
        _gateway_error(504, acts=True),
    ),
    (Fault.LOST_BEFORE,),
    (Fault.LOST_AFTER,),
)


@define
class Rule:
    """A fault, and the requests that get it."""

    fault: Fault
    origin: Origin
    method: str | None
    path: re.Pattern[str] | None
    segment_id: str | None
    times: float  # how many more requests get the fault; inf: all
    skip: int = field(default=0)  # how many matching requests pass first
    since: float = field(default=-math.inf)  # seconds between which requests match
    until: float = field(default=math.inf)

    def matches(self, entry: Entry) -> bool:
        """Whether this request gets the fault."""
        return (
            entry.origin == self.origin
            and self.since <= entry.at < self.until
            and self.method in (None, entry.method)
            and self.segment_id in (None, entry.segment_id)
            and (self.path is None or self.path.search(entry.path) is not None)
        )


class Script:
    """The faults still to come, in the order in which they were scripted."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []

    def __len__(self) -> int:
        return len(self._rules)

    def add(self, rule: Rule) -> None:
        """Script a fault."""
        self._rules.append(rule)

    def clear(self) -> None:
        """Forget them all."""
        self._rules.clear()

    def rule_for(self, entry: Entry) -> Rule | None:
        """The first rule that matches the request; `take` uses the rule."""
        return next((rule for rule in self._rules if rule.matches(entry)), None)

    def take(self, rule: Rule) -> Fault | None:
        """Use the rule once. None: it lets this request pass."""
        if rule.skip:
            rule.skip -= 1
            return None
        rule.times -= 1
        if rule.times <= 0:
            self._rules.remove(rule)
        return rule.fault
