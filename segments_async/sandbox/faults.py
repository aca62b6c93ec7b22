"""Faults that a test scripts: what goes wrong, and with which request."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from attrs import astuple, define, field, frozen

from .answer import Reply
from .record import Entry, Lost, Origin
from .request import error


@frozen(kw_only=True)
class Fault:
    """What goes wrong with one request; make it with the constants and class methods."""

    UNREACHABLE: ClassVar[Fault]
    """No connection: provably nothing was sent, and the record doesn't show it."""
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
        """The vendor's true reply, as this fault leaves it."""
        if self.reply is not None:
            return self.reply
        if self.change is None:
            return reply
        body = reply.body if isinstance(reply.body, bytes) else b"".join(reply.body)
        headers = {k: v for k, v in reply.headers.items() if k != "content-length"}
        return Reply(reply.status, self.change(body), headers)

    @classmethod
    def status(
        cls,
        status: int,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | str = b"",
        acts: bool = False,
    ) -> Fault:
        """This very answer. `acts`: the vendor did what was asked all the same."""
        data = body.encode() if isinstance(body, str) else body
        lower = {name.lower(): value for name, value in (headers or {}).items()}
        return cls(reply=Reply(status, data, lower), acts=acts)

    @classmethod
    def changed(cls, change: Callable[[bytes], bytes]) -> Fault:
        """The true answer with its body changed: another id, a missing field."""
        return cls(change=change)

    @classmethod
    def fields(cls, **fields: object) -> Fault:
        """The true answer, with these fields of its export changed; `segment` goes deeper.

        An answer that is no export, as a list's is not, stays as it is.
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
        """The true answer, broken off after so many bytes of its body."""
        return cls(cut_after=after)

    @classmethod
    def slow(cls, seconds: float) -> Fault:
        """The true answer, so many seconds late; the vendor has acted before them."""
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
    """The shares of API requests that meet with each fault of the options."""

    internal_errors: float
    gateway_errors: float
    lost_before: float
    lost_after: float

    def __attrs_post_init__(self) -> None:
        parts = astuple(self)
        if min(parts) < 0 or sum(parts) > 1:
            raise ValueError("shares are not negative, and add up to at most 1")

    def draw(self, chance: random.Random) -> Fault | None:
        """One draw decides between them, so that they exclude each other."""
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
        # The gateway waited too long: half of these the vendor has acted on.
        _gateway_error(504, acts=False),
        _gateway_error(504, acts=True),
    ),
    (Fault.LOST_BEFORE,),
    (Fault.LOST_AFTER,),
)


@define
class Rule:
    """A fault, and the requests it is for."""

    fault: Fault
    origin: Origin
    method: str | None
    path: re.Pattern[str] | None
    segment_id: str | None
    times: float  # how often yet; inf: for ever
    skip: int = field(default=0)  # how many matching requests pass untouched first
    since: float = field(default=-math.inf)  # when it begins, and is over
    until: float = field(default=math.inf)

    def matches(self, entry: Entry) -> bool:
        """Whether this request is one of them."""
        return (
            entry.origin == self.origin
            and self.since <= entry.at < self.until
            and self.method in (None, entry.method)
            and self.segment_id in (None, entry.segment_id)
            and (self.path is None or self.path.search(entry.path) is not None)
        )


class Script:
    """The faults still to come, first scripted first served."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []

    def __len__(self) -> int:
        return len(self._rules)

    def add(self, rule: Rule) -> None:
        """Script one more."""
        self._rules.append(rule)

    def clear(self) -> None:
        """Forget them all."""
        self._rules.clear()

    def rule_for(self, entry: Entry) -> Rule | None:
        """The rule this request falls under; it isn't used up until `take`."""
        return next((rule for rule in self._rules if rule.matches(entry)), None)

    def take(self, rule: Rule) -> Fault | None:
        """Use the rule once; None while it lets requests pass."""
        if rule.skip:
            rule.skip -= 1
            return None
        rule.times -= 1
        if rule.times <= 0:
            self._rules.remove(rule)
        return rule.fault
