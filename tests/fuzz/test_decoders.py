"""For any input, only documented errors escape, quickly, and without a secret.

A failure names decoder, seed and number of the input, which make it again:
``benchmarks/reliability.py --only fuzzing --decoder NAME --seed SEED --number NUMBER`` shows it.
"""

from __future__ import annotations

from typing import Any

import pytest

from fuzz.decoders import DECODERS
from fuzz.fuzzing import Decoder, Tally, fuzz
from fuzz.inputs import SECRET_TEXTS, Inputs
from segments_async.errors import SegmentsError

SEED = 1

#: Inputs of all decoders, in the README's command, and under `--whole`.
FEW, INPUTS = 10_000, 100_000


def by_name(decoder: Decoder[Any, Any]) -> str:
    return decoder.name


@pytest.mark.counted(-(-FEW // len(DECODERS)), -(-INPUTS // len(DECODERS)), "inputs")
@pytest.mark.parametrize("decoder", DECODERS, ids=by_name)
def test_only_own_errors_escape(decoder: Decoder[Any, Any], count: int) -> None:
    """Each input ends in a result for which the claims hold, or in a documented error."""
    tally = fuzz(decoder, SEED, range(count))
    assert tally.clean, f"{decoder.name}, seed {SEED}: {tally}"


@pytest.mark.parametrize("decoder", DECODERS, ids=by_name)
def test_a_seed_replays(decoder: Decoder[Any, Any]) -> None:
    """The same seed and number make the same input."""
    keys = [f"{SEED}/{decoder.name}/{number}" for number in range(20)]
    assert [shown(decoder, key) for key in keys] == [shown(decoder, key) for key in keys]


def shown(decoder: Decoder[Any, Any], key: str) -> str:
    given = decoder.make(Inputs(key))
    return repr(getattr(given, "pieces", given))


def tally_of(error: Exception | None = None, cause: Exception | None = None) -> Tally:
    """The results of one input with a secret, for a decoder that raises the error."""

    def decode(_: str) -> None:
        if error is not None:
            raise error from cause

    decoder = Decoder("a decoder", (SegmentsError,), lambda inputs: inputs.planting(""), decode)
    return fuzz(decoder, SEED, [0])


def test_a_result_and_an_own_error_are_clean() -> None:
    """A permitted result is no failure."""
    assert tally_of().clean
    own = tally_of(SegmentsError("not a list"))
    assert own.clean
    assert own.own == 1


def test_a_foreign_error_is_caught() -> None:
    """An undocumented error is a failure, and is kept."""
    tally = tally_of(KeyError("segmentId"))
    assert (tally.foreign, tally.own, tally.clean) == (1, 0, False)
    assert tally.faults[0].what == "KeyError: 'segmentId'"


@pytest.mark.parametrize("secret", SECRET_TEXTS)
def test_a_shown_secret_is_caught(secret: str) -> None:
    """An error that shows a secret in its text, a fact or a cause is a failure."""
    assert tally_of(SegmentsError(secret)).broken == 1
    assert tally_of(SegmentsError("no", body=secret)).broken == 1
    assert tally_of(SegmentsError("no"), ValueError(secret)).broken == 1


def test_an_endless_message_is_caught() -> None:
    """A message that would fill a log is a failure."""
    assert tally_of(SegmentsError("a" * 1001)).broken == 1
