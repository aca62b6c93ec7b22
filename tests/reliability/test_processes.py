"""Real processes that are killed: no export is requested twice or lost, no file is a half one.

`benchmarks/reliability.py` kills 2 000.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from journal.server import PostgresServer

from reliability.fleet import Plan, sail
from reliability.processes import die_everywhere, kill_runs
from segments_async.sandbox import TokenBucket

#: Kills at random times, in the README's command, and under `--whole`.
FEW, KILLS = 7, 50

#: The fewest kills of which a mean says something.
ENOUGH = 50

#: The moments of a run at which it dies are tried in so many tests, side by side.
PARTS = 3


@pytest.fixture(
    params=["sqlite", pytest.param("postgresql", marks=pytest.mark.needs("PostgreSQL"))]
)
def journal(request: pytest.FixtureRequest) -> Callable[[], str | None]:
    """Make a place for one more journal; None: beside the files."""
    if request.param == "sqlite":
        return lambda: None
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.schema


@pytest.mark.counted(FEW, KILLS, "kills")
@pytest.mark.parametrize("seed", [20261123, 20261124])
def test_killed_at_any_time(seed: int, tmp_path: Path, count: int) -> None:
    """Kill -9 at random moments, and the same program again each time."""
    tally = kill_runs(tmp_path, seed, count, lambda: None)
    assert tally.complaints == [], tally
    assert tally.kills < ENOUGH or tally.unknown_per_kill <= tally.most_unknown_per_kill
    assert tally.kills == count
    assert tally.exported > 2 * tally.unknown


@pytest.mark.counted(80, 200, "exports")
def test_four_processes_with_one_journal(tmp_path: Path, count: int) -> None:
    """Each process has a run of its own and two kills: no export is made twice, and none is lost.

    Their speed together is tested in virtual time by `client/test_shared_pacer.py`, and measured
    with real processes by the benchmark.
    """
    found = sail(tmp_path, 20261125, Plan(4, count, 8, TokenBucket(60, 20), 2.0))
    assert found.complaints == []
    assert found.exported + found.unknown == count
    assert found.exported > 2 * found.unknown


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.counted(every=43, of="moments at which something durable is done")
def test_dies_at_every_durable_operation(
    journal: Callable[[], str | None], tmp_path: Path, part: int, every: int
) -> None:
    """Before, after and in the middle of each write to the journal and each file operation."""
    tally = die_everywhere(tmp_path, journal, first=1 + part * every, every=PARTS * every)
    assert tally.complaints == [], tally
    assert tally.kills > 60 // (PARTS * every)
