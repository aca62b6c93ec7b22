"""Runs a decoder on inputs from a seed, and counts what escapes from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

import attrs

from fuzz.inputs import SECRET, Inputs

I = TypeVar("I")  # noqa: E741 - what goes in
O = TypeVar("O")  # noqa: E741 - what comes out

#: Seconds of processor time that one input may take. The largest have some 200 KB, gzip's 2 MiB:
#: a pattern that is quadratic in them takes minutes, one that isn't milliseconds.
MOST_SECONDS = 2.0

#: Characters that an error's message may have: what a server says must not fill a log.
LONGEST_MESSAGE = 1000

#: Faults kept of one decoder; the rest is counted.
_MOST_KEPT = 20


def _nothing(_given: Any, _found: Any) -> None:
    """No further claim."""


@attrs.frozen
class Decoder(Generic[I, O]):
    """A decoder, and the claims about it.

    Attributes:
        name: its own, for the table.
        own: the errors that it documents.
        make: draws an input.
        decode: the decoder itself; its time is taken.
        check: AssertionError where a claim about an input and its result doesn't hold.
        refused: the same for an input and the own error that it ended in.
    """

    name: str
    own: tuple[type[Exception], ...]
    make: Callable[[Inputs], I]
    decode: Callable[[I], O]
    check: Callable[[I, O], None] = _nothing
    refused: Callable[[I, Exception], None] = _nothing


@attrs.frozen
class Fault:
    """The failure of one input; seed, decoder and number reproduce it."""

    kind: str
    number: int
    what: str


@attrs.define
class Tally:
    """The results of a decoder's inputs."""

    decoder: str
    inputs: int = 0
    own: int = 0
    foreign: int = 0
    broken: int = 0
    slow: int = 0
    slowest: float = 0.0
    slowest_number: int = 0
    faults: list[Fault] = attrs.Factory(list)

    @property
    def clean(self) -> bool:
        return not (self.foreign or self.broken or self.slow)

    def add(self, other: Tally) -> None:
        """Add the results of the same decoder."""
        self.inputs += other.inputs
        self.own += other.own
        self.foreign += other.foreign
        self.broken += other.broken
        self.slow += other.slow
        self.faults = (self.faults + other.faults)[:_MOST_KEPT]
        if other.slowest > self.slowest:
            self.slowest, self.slowest_number = other.slowest, other.slowest_number

    def note(self, kind: str, number: int, what: str) -> None:
        if len(self.faults) < _MOST_KEPT:
            self.faults.append(Fault(kind, number, what[:500]))


def fuzz(decoder: Decoder[Any, Any], seed: int, numbers: Iterable[int]) -> Tally:
    """Run the decoder on its inputs of these numbers."""
    tally = Tally(decoder.name)
    for number in numbers:
        tally.inputs += 1
        _fuzz_one(decoder, seed, number, tally)
    return tally


def _fuzz_one(decoder: Decoder[Any, Any], seed: int, number: int, tally: Tally) -> None:
    inputs = Inputs(f"{seed}/{decoder.name}/{number}")
    given = decoder.make(inputs)
    started = time.thread_time()
    error: Exception | None = None
    found: Any = None
    try:
        found = decoder.decode(given)
    except Exception as exc:  # noqa: BLE001 - which errors escape is the question
        error = exc
    took = time.thread_time() - started
    if took > tally.slowest:
        tally.slowest, tally.slowest_number = took, number
    if took > MOST_SECONDS:
        tally.slow += 1
        tally.note("slow", number, f"{took:.3f} s")
    if error is not None and not isinstance(error, decoder.own):
        tally.foreign += 1
        tally.note("foreign", number, f"{type(error).__name__}: {error}")
        return
    try:
        if error is None:
            decoder.check(given, found)
        else:
            tally.own += 1
            decoder.refused(given, error)
            assert len(str(error)) <= LONGEST_MESSAGE, f"a message of {len(str(error))} characters"
        if inputs.planted:
            for shown in (error, found):
                if isinstance(shown, Exception):
                    check_hidden(shown)
    except AssertionError as exc:
        tally.broken += 1
        tally.note("broken", number, str(exc))


def check_hidden(error: BaseException) -> None:
    """AssertionError if a traceback, a repr or a log shows the secret."""
    for shown in _shown(error):
        assert SECRET not in shown, f"the secret is shown: {shown:.200}"


def _shown(error: BaseException) -> Iterator[str]:
    yield str(error)
    yield repr(error)
    yield repr(vars(error))
    if error.__cause__ is not None:
        yield from _shown(error.__cause__)
    elif error.__context__ is not None and not error.__suppress_context__:
        yield from _shown(error.__context__)
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _shown(inner)
