"""Seeded schedules of faults, in virtual time, and broken variants that they have to catch.

`benchmarks/reliability.py` plays 10 000 of them.
"""

from __future__ import annotations

import itertools
import logging

import pytest

from reliability.schedules import replay
from reliability.variants import VARIANTS

#: Schedules in the README's command, and under `--whole`.
FEW, SCHEDULES = 20, 1_000

#: Tests that share the schedules, so that a failing one says where.
GROUPS = 20

#: Seeds that catch the variants with the present library and schedules: they are tried first.
CAUGHT_BY = {"INTENT after the POST": 74, "no length check": 8, "credentials to storage": 0}


@pytest.fixture(autouse=True)
def quiet() -> None:
    """Silence thousands of warnings about scripted faults."""
    logging.getLogger("segments_async").setLevel(logging.CRITICAL)


@pytest.mark.counted(FEW // GROUPS, SCHEDULES // GROUPS, "schedules")
@pytest.mark.parametrize("group", range(GROUPS))
def test_nothing_is_lost_and_nothing_asked_for_twice(group: int, count: int) -> None:
    """After any faults, in up to five sessions, every segment has a true outcome.

    A schedule that fails is printed with its seed: `replay(seed)` repeats it.
    """
    for seed in range(group * count, (group + 1) * count):
        verdict = replay(seed)
        assert verdict.complaints == [], verdict


@pytest.mark.parametrize("seed", [20, 21])
def test_a_seed_replays(seed: int) -> None:
    """The same seed gives the same schedule, on either backend.

    The results may differ: asyncio and trio have the tasks of a group in sets, and cancel them in
    an order that depends on their places in memory.
    """
    one, two = replay(seed), replay(seed)
    assert (one.sessions, one.kills) == (two.sessions, two.kills)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_broken_variant_is_caught(name: str) -> None:
    """One of the first seeds catches the variant, with the right complaint."""
    broken, complaint = VARIANTS[name]
    with broken():
        verdicts = (replay(seed) for seed in (CAUGHT_BY[name], *range(SCHEDULES)))
        found = (c for verdict in verdicts for c in verdict.complaints if complaint in c)
        assert len(list(itertools.islice(found, 1))) == 1
