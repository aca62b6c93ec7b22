"""Other programs change parts at random moments: no file has other bytes than those reported."""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import anyio
import pytest
from client.vendor import STEADY, connected, names_in

from segments_async import ExportedFile
from segments_async._files import body_writer, download
from segments_async._files.part import part_of, sidecar_of
from segments_async.sandbox import PAGE_SEGMENT_ID, Fault, FileHost, Sandbox

#: Bytes per second, so that a file of some 180 000 bytes takes four seconds or more.
RATE = 50_000


def empty(part: Path, _: random.Random) -> None:
    os.truncate(part, 0)


def shorten(part: Path, chance: random.Random) -> None:
    os.truncate(part, chance.randrange(part.stat().st_size + 1))


def lengthen(part: Path, chance: random.Random) -> None:
    with part.open("ab") as file:
        file.write(chance.randbytes(chance.randrange(1, 40_000)))


def write_into(part: Path, chance: random.Random) -> None:
    with part.open("r+b") as file:
        file.seek(chance.randrange(part.stat().st_size + 1))
        file.write(chance.randbytes(chance.randrange(1, 2_000)))


def swap(part: Path, chance: random.Random) -> None:
    stranger = part.with_name("stranger")
    stranger.write_bytes(chance.randbytes(part.stat().st_size))
    stranger.replace(part)


def remove(part: Path, _: random.Random) -> None:
    part.unlink()


def rename(part: Path, _: random.Random) -> None:
    part.rename(part.with_name("renamed"))


def damage_sidecar(part: Path, chance: random.Random) -> None:
    path = sidecar_of(_target_of(part))
    with path.open("r+b") as file:
        file.seek(chance.randrange(path.stat().st_size + 1))
        file.write(chance.randbytes(8))


def remove_sidecar(part: Path, _: random.Random) -> None:
    sidecar_of(_target_of(part)).unlink()


def _target_of(part: Path) -> Path:
    return part.with_name("a.csv")


DISTURBANCES: list[Callable[[Path, random.Random], None]] = [
    empty, shorten, lengthen, write_into, swap, remove, rename, damage_sidecar, remove_sidecar,
]  # fmt: skip


async def disturb(target: Path, chance: random.Random, done: Counter[str]) -> None:
    """Change the part or its sidecar again and again, and sometimes lock what is there then."""
    part = part_of(target)
    for _ in range(chance.randrange(1, 6)):
        await anyio.sleep(chance.uniform(0.2, 3.0))
        with suppress(FileNotFoundError), ExitStack() as held:
            way = chance.choice(DISTURBANCES)
            way(part, chance)
            done[way.__name__] += 1
            if chance.random() < 0.3:
                file = held.enter_context(part.open("rb"))
                with suppress(BlockingIOError):  # the download has it, where the file is still its
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                await anyio.sleep(chance.uniform(0.2, 90.0))


def faults(chance: random.Random) -> Iterator[Fault]:
    """Bodies that are cut, which makes the download go on from the part."""
    for _ in range(chance.randrange(3)):
        yield Fault.cut(chance.randrange(1, 150_000))


@pytest.mark.counted(8, 200, "disturbed exports")
async def test_every_file_is_the_one_that_was_told(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever happens to the part, and whenever: the file in place has the reported hash."""
    monkeypatch.setattr(body_writer, "FIRST_BATCH", 20_000)
    monkeypatch.setattr(download, "BATCH", 20_000)
    done = Counter[str]()
    for seed in range(count):
        chance = random.Random(seed)
        sandbox = Sandbox(rows=3000, durations=STEADY, file_host=FileHost(rate=RATE), seed=seed)
        for fault in faults(chance):
            sandbox.inject(fault, origin="files")
        directory = tmp_path / str(seed)
        directory.mkdir()
        target = directory / "a.csv"
        files: list[ExportedFile] = []
        async with connected(sandbox) as client, anyio.create_task_group() as tasks:
            export = await client.wait_for_export(await client.request_export(PAGE_SEGMENT_ID))
            tasks.start_soon(disturb, target, chance, done)
            files.append(await client.download_export(export, target))
            tasks.cancel_scope.cancel()
        [file] = files
        assert hashlib.sha256(target.read_bytes()).hexdigest() == file.sha256, seed
        assert file.sha256 == sandbox.sha256(PAGE_SEGMENT_ID), seed
        assert {*names_in(directory)} <= {"a.csv", "renamed", "stranger"}, seed
    assert done.total() >= count, done
