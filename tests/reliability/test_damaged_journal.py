"""A journal that is cut off or gets a flipped byte between two sessions of a run.

tests/journal/test_damage.py damages each 512 bytes of a journal. Here, a run meets the damage: it
goes on, or refuses before any request is sent.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import anyio
import pytest
from scratch import fast

from reliability.judge import duplicates, unaccounted
from reliability.world import Plan, World
from segments_async import JournalError
from segments_async.sandbox import Durations, Sandbox
from segments_async.testing import virtual_time

#: Journals damaged in each way, in the README's command, and under `--whole`.
FEW, SEEDS = 8, 24

#: The one seed whose flipped byte makes the next session refuse the journal: it is tried first.
REFUSED = 22

Damage = Callable[[bytes, random.Random], bytes]


def cut_off(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def flipped(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ chance.randrange(1, 256)]) + data[at + 1 :]


class Copied(World):
    """A life whose journal is copied at its death, before its files are closed."""

    def files(self) -> dict[Path, bytes]:
        path = Path(self.journal)
        beside = [path, path.with_name(path.name + "-journal")]
        return {one: one.read_bytes() for one in beside if one.exists()}

    def play(self, plan: Plan, seed: int) -> None:
        name, options = virtual_time(("asyncio", "trio")[seed % 2])
        with self.told_the_time():
            anyio.run(partial(self.session, plan), backend=name, backend_options=options)


@pytest.mark.counted(FEW, SEEDS, "journals")
@pytest.mark.parametrize(
    ("way", "which", "damage"),
    [
        ("leave", "runs.db", cut_off),
        ("leave", "runs.db", flipped),
        ("kill", "runs.db", flipped),
    ],
    ids=["cut off", "flipped", "flipped after a kill"],
)
def test_between_two_sessions(way: str, which: str, damage: Damage, count: int) -> None:
    """The run goes on, or a JournalError refuses it and nothing is sent; never a second POST."""
    refused = 0
    for seed in sorted(range(SEEDS), key=lambda seed: seed != REFUSED)[:count]:
        with tempfile.TemporaryDirectory(dir=fast()) as directory:
            refused += _damaged(seed, way, which, damage, Path(directory))
    assert refused > 0


def _damaged(seed: int, way: str, which: str, damage: Damage, directory: Path) -> bool:
    """Run with a damaged journal. Returns whether it was refused."""
    chance = random.Random(f"{seed} {which}")
    sandbox = Sandbox(segments=6, rows=3, seed=seed, latency=0.1, durations=Durations(2.0, 0.5))
    world = Copied(sandbox, directory, disk=random.Random(seed))
    left: dict[Path, bytes] = {}
    die = world.life.__class__.die

    def die_and_copy(life: object) -> None:
        die(world.life)
        left.update(world.files())

    after = chance.uniform(1.0, 5.0)
    with mock.patch.object(type(world.life), "die", die_and_copy):
        world.play(Plan("kill" if way == "kill" else "leave", after), seed)
    left = left or world.files()
    for path, data in left.items():
        path.write_bytes(damage(data, chance) if path.name == which else data)
    before = len(sandbox.record)
    world.play(Plan(), seed)
    assert duplicates(sandbox.record) == [], seed
    assert world.complaints == [], seed
    if world.error is not None:
        assert isinstance(world.error, JournalError)
        assert len(sandbox.record) == before, seed
        return True
    told = unaccounted(sandbox, world.contents, world.outcomes, killed=world.killed)
    assert told == [], seed
    return False
