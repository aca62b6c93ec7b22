"""The file of a download: whole under its final name, or a part that can be continued."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import math
import os
import random
import threading
import unittest.mock
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segments_async._files import digest
from segments_async._files import part as part_module
from segments_async._files.part import ChecksumMismatch, PartFile, part_of, sidecar_of
from segments_async._sansio.files.ranges import ObjectVersion

EXPORT = "export-1"
OBJECT = ObjectVersion(total=10, etag='"abc"', ranges=True)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "a.csv"


def names(target: Path) -> set[str]:
    """The names in the target's directory."""
    return {entry.name for entry in target.parent.iterdir()}


def opened(target: Path, version: ObjectVersion | None = None, export_id: str = EXPORT) -> PartFile:
    part = PartFile(target)
    part.open(export_id)
    if version is not None:
        part.version = version
    return part


def killed(part: PartFile) -> None:
    """End as a killed process does: nothing is synced or removed, and the lock is gone."""
    part.release()


# What goes wrong.


@pytest.mark.parametrize("dangling", [False, True])
def test_a_symlink_in_the_parts_place_is_refused(target: Path, dangling: bool) -> None:
    """A symbolic link where the part would be is not written through."""
    elsewhere = target.with_name("elsewhere")
    if not dangling:
        elsewhere.write_bytes(b"precious")
    part_of(target).symlink_to(elsewhere)
    with pytest.raises(OSError, match="symbolic link"):
        opened(target)
    assert names(target) == {"a.csv.part"} | (set() if dangling else {"elsewhere"})
    assert dangling or elsewhere.read_bytes() == b"precious"


@pytest.mark.parametrize("dangling", [False, True])
def test_a_symlink_in_the_sidecars_place_is_not_followed(target: Path, dangling: bool) -> None:
    """The symbolic link is not followed, and is replaced."""
    elsewhere = target.with_name("elsewhere")
    if not dangling:
        elsewhere.write_bytes(b"precious")
    sidecar_of(target).symlink_to(elsewhere)
    part = opened(target, OBJECT)
    part.write(0, b"a,b\n")
    part.keep()
    assert not sidecar_of(target).is_symlink()
    assert not elsewhere.exists() if dangling else elsewhere.read_bytes() == b"precious"


def test_a_directory_in_the_parts_place_is_refused(target: Path) -> None:
    """A directory where the part would be is an error, and stays."""
    part_of(target).mkdir()
    with pytest.raises(IsADirectoryError):
        opened(target)
    assert names(target) == {"a.csv.part"}


def test_a_directory_at_the_target_is_refused(target: Path) -> None:
    """A directory that has come to the target's place is not replaced; discarding cleans up."""
    target.mkdir()
    part = opened(target)
    with pytest.raises(IsADirectoryError):
        part.finish(b"a,b\n")
    assert not part.is_finished
    part.discard()
    assert names(target) == {"a.csv"}


def test_a_missing_directory_is_an_error(target: Path) -> None:
    """Without its directory a part can't be opened, and there is nothing to discard."""
    part = PartFile(target.parent / "gone" / "a.csv")
    with pytest.raises(FileNotFoundError):
        part.open(EXPORT)
    part.discard()


@pytest.mark.parametrize("failing", ["pwrite", "fsync", "replace"])
def test_a_failure_leaves_the_target_as_it_was(
    target: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """A full disk at any step of finishing changes nothing under the target's name."""

    def full(*_: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    target.write_bytes(b"before")
    part = opened(target, OBJECT)
    monkeypatch.setattr(os, failing, full)
    with pytest.raises(OSError, match="No space"):
        part.finish(b"a,b\n1,2\n3\n")
    part.discard()
    assert target.read_bytes() == b"before"
    assert names(target) == {"a.csv"}


def test_what_isnt_whole_is_not_put_in_place(target: Path) -> None:
    """A part with a hole, or without its end, is an OSError, and no file appears."""
    for offset, data in ((0, b"012345678"), (1, b"123456789")):
        part = opened(target, OBJECT)
        part.write(offset, data)
        with pytest.raises(OSError, match="whole"):
            part.finish()
        part.discard()
    assert names(target) == set()


def test_bytes_with_another_md5_are_not_put_in_place(target: Path) -> None:
    """An MD5 from storage is compared before the file gets its name."""
    told = attrs.evolve(OBJECT, md5=hashlib.md5(b"0123456789").hexdigest())
    part = opened(target, told)
    with pytest.raises(ChecksumMismatch):
        part.finish(b"0123456780")
    part.discard()
    assert names(target) == set()
    opened(target, told).finish(b"0123456789")
    assert target.read_bytes() == b"0123456789"


def test_nothing_appears_under_the_name_before_it_is_whole(target: Path) -> None:
    """While the file is written, there is a part and no target."""
    part = opened(target)
    part.write(0, b"a,b\n")
    assert names(target) == {"a.csv.part"}
    part.discard()


def test_durable_before_it_is_named(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content is synced before the rename, the directory after it."""
    steps: list[str] = []
    for name in ("fsync", "replace"):

        def recorded(*args: object, name: str = name, real: object = getattr(os, name)) -> object:
            steps.append(name)
            assert callable(real)
            return real(*args)

        monkeypatch.setattr(os, name, recorded)
    opened(target).finish(b"a,b\n")
    assert steps == ["fsync", "replace", "fsync"]


# Discarding.


def test_discard_leaves_nothing(target: Path) -> None:
    """After a discard no byte is left, and none can be written."""
    part = opened(target, OBJECT)
    part.write(0, b"a,b\n1,2\n")
    assert names(target) == {"a.csv.part", "a.csv.part.json"}
    part.discard()
    assert names(target) == set()
    with pytest.raises(ValueError, match="closed"):
        part.write(8, b"3\n")


def test_discarding_twice_is_discarding_once(target: Path) -> None:
    """Discarding a part that was removed already is no error."""
    part = opened(target)
    part.write(0, b"a,b\n")
    part_of(target).unlink()
    part.discard()
    part.discard()
    assert names(target) == set()


def test_discarding_what_was_never_opened_removes_nothing(target: Path) -> None:
    """A part that was not opened here may be another process's: it stays, and is not opened later.

    A task may be cancelled between handing the opening to a thread and the thread's beginning.
    """
    part_of(target).write_bytes(b"another's")
    part = PartFile(target)
    part.discard()
    part.open(EXPORT)
    assert part_of(target).read_bytes() == b"another's"
    opened(target).discard()


def test_discarding_what_is_finished_removes_nothing(target: Path) -> None:
    """Once the file is in place, there is nothing to discard or to keep."""
    part = opened(target)
    part.finish(b"a,b\n")
    assert part.is_finished
    part.discard()
    part.keep()
    assert target.read_bytes() == b"a,b\n"
    assert names(target) == {"a.csv"}


# Keeping and going on.

LEAVE: dict[str, Callable[[PartFile], None]] = {"kept": PartFile.keep, "killed": killed}


def test_a_kill_costs_what_came_since_the_last_note(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes in the sidecar are continued; bytes written after the sidecar are fetched again."""
    monkeypatch.setattr(part_module, "SIDECAR_INTERVAL", math.inf)
    part = opened(target, OBJECT)
    part.write(0, b"012")
    part.write(3, b"345")
    killed(part)
    part = opened(target)
    assert part.held == ((0, 3),)
    part.discard()


@pytest.mark.parametrize("leave", LEAVE.values(), ids=LEAVE)
def test_the_next_download_of_the_export_goes_on(
    target: Path, leave: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes of an earlier download count, in any order; the hash is of the whole file."""
    monkeypatch.setattr(part_module, "SIDECAR_INTERVAL", 0.0)
    part = opened(target, OBJECT)
    part.write(0, b"012")
    part.write(6, b"67")
    leave(part)
    assert names(target) == {"a.csv.part", "a.csv.part.json"}
    part = opened(target)
    assert part.held == ((0, 3), (6, 8))
    assert part.version == OBJECT
    part.write(8, b"89")
    part.write(3, b"345")
    while not part.hash_on():
        pass
    assert part.finish() == (10, hashlib.sha256(b"0123456789").hexdigest())
    assert target.read_bytes() == b"0123456789"
    assert names(target) == {"a.csv"}


@pytest.mark.parametrize("leave", LEAVE.values(), ids=LEAVE)
def test_another_export_starts_over(target: Path, leave: Any) -> None:
    """A part of another export's file is not continued."""
    part = opened(target, OBJECT)
    part.write(0, b"012")
    leave(part)
    part = opened(target, export_id="export-2")
    assert (part.held, part.version) == ((), None)
    assert part_of(target).read_bytes() == b""
    assert names(target) == {"a.csv.part"}
    part.discard()


def test_a_part_of_another_user_is_replaced(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that only its owner may write (root, once) is replaced by one of this user."""
    part_of(target).write_bytes(b"root's")
    open_file = os.open

    def refuse(path: Any, flags: int, mode: int = 0o777) -> int:
        mine = flags & os.O_EXCL or not os.path.lexists(path) or flags & os.O_DIRECTORY
        if not mine:  # root, which runs the tests of some machines, may write to any file
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return open_file(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse)
    part = opened(target, OBJECT)
    assert part.finish(b"0123456789").size == 10
    assert target.read_bytes() == b"0123456789"
    assert names(target) == {"a.csv"}


@pytest.mark.parametrize(
    ("leave", "goes_on"), [(PartFile.keep, True), (killed, False)], ids=["kept", "killed"]
)
def test_after_a_restart_of_the_system_only_what_was_synced_counts(
    target: Path, monkeypatch: pytest.MonkeyPatch, leave: Any, goes_on: bool
) -> None:
    """A power failure may have lost unsynced bytes: after a restart they aren't trusted."""
    monkeypatch.setattr(part_module, "boot_id", lambda: "before")
    part = opened(target, OBJECT)
    part.write(0, b"012")
    leave(part)
    monkeypatch.setattr(part_module, "boot_id", lambda: "after")
    part = opened(target)
    assert bool(part.held) is goes_on
    part.discard()


def test_a_part_shorter_than_its_sidecar_says_starts_over(target: Path) -> None:
    """A part that is shorter than its sidecar says is begun anew."""
    part = opened(target, OBJECT)
    part.write(0, b"01234")
    part.keep()
    os.truncate(part_of(target), 4)
    assert opened(target).held == ()


@pytest.mark.parametrize(
    "version", [None, ObjectVersion(total=10), ObjectVersion(total=None, etag='"abc"')]
)
def test_what_cant_be_continued_is_not_kept(target: Path, version: ObjectVersion | None) -> None:
    """Without a version or a length the part can't be continued."""
    part = opened(target, version)
    part.write(0, b"01234")
    part.keep()
    assert names(target) == set()


def test_a_part_that_cant_be_kept_is_removed(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed sync the part is discarded."""

    def fails(_: int) -> NoReturn:
        raise OSError(5, "Input/output error")

    part = opened(target, OBJECT)
    part.write(0, b"01234")
    monkeypatch.setattr(os, "fsync", fails)
    part.keep()
    assert names(target) == set()


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("end", ["keep", "finish"])
def test_a_part_whose_sync_failed_is_of_no_use(
    target: Path, monkeypatch: pytest.MonkeyPatch, end: str, again: bool
) -> None:
    """The system reports a failed write once: a later fsync that succeeds proves nothing."""

    def fails(_: int) -> NoReturn:
        raise OSError(5, "Input/output error")

    part = opened(target, OBJECT)
    part.write(0, b"0123456789")
    with monkeypatch.context() as failing:
        failing.setattr(os, "fsync", fails)
        with pytest.raises(OSError, match="Input/output"):
            part.sync()
    if again:
        part.sync()
    if end == "finish":
        with pytest.raises(OSError, match="disk"):
            part.finish()
    part.keep()
    assert names(target) == set()


def test_a_sync_is_due_after_so_many_bytes(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next sync is due so many bytes after the last one."""
    monkeypatch.setattr(part_module, "UNSYNCED", 6)
    part = opened(target, OBJECT)
    part.write(0, b"01234")
    assert not part.wants_sync
    part.write(5, b"5")
    assert part.wants_sync
    part.sync()
    assert not part.wants_sync
    part.keep()
    assert opened(target).held == ((0, 6),)


@pytest.mark.parametrize("data", [b"", b"{}", b"\x00" * 4096, b"[" * 4096, b'{"version":1}'])
def test_a_sidecar_that_isnt_one_starts_over(target: Path, data: bytes) -> None:
    """A sidecar with any content is no error."""
    part = opened(target, OBJECT)
    part.write(0, b"01234")
    part.keep()
    sidecar_of(target).write_bytes(data)
    part = opened(target)
    assert part.held == ()
    assert names(target) == {"a.csv.part"}
    part.discard()


def test_a_sidecar_is_private_and_of_one_page(target: Path) -> None:
    """The sidecar has mode 0600, is written in place, and has only the facts for continuing."""
    part = opened(target, OBJECT)
    part.write(0, b"01234")
    first = sidecar_of(target).stat()
    part.write(5, b"5")
    second = sidecar_of(target).stat()
    assert first.st_mode & 0o777 == 0o600
    assert first.st_ino == second.st_ino
    assert first.st_size == second.st_size == 4096
    assert set(json.loads(sidecar_of(target).read_bytes())) == {
        "version", "export", "total", "etag", "modified", "md5", "held", "boot", "synced",
        "inode", "hashed",
    }  # fmt: skip
    part.discard()


def test_starting_over_leaves_nothing_of_the_old(target: Path) -> None:
    """A reset leaves neither old bytes nor a sidecar that lists them."""
    part = opened(target, OBJECT)
    part.write(0, b"01234")
    part.reset()
    assert part_of(target).read_bytes() == b""
    assert names(target) == {"a.csv.part"}
    part.version = ObjectVersion(total=3)
    assert part.finish(b"new") == (3, hashlib.sha256(b"new").hexdigest())


# What goes well.


@pytest.mark.parametrize("taken", [1, 3, 1000])
def test_a_short_write_is_no_short_file(
    target: Path, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    """If the system writes fewer bytes than given, the rest follows, and the hash is right."""
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: write(fd, data[:taken], at))
    data = b"a,b\n" * 100 + b"1,2\n" * 100
    digest = opened(target).finish(data).sha256
    assert target.read_bytes() == data
    assert digest == hashlib.sha256(data).hexdigest()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> _Slow:
    """A hash in a thread of its own for each piece, for parts that are opened from now on."""
    found = _Slow()
    monkeypatch.setattr(digest, "PARALLEL_HASH_FROM", 1)
    monkeypatch.setattr(hashlib, "sha256", lambda: found)
    return found


def test_what_is_hashed_beside_is_hashed_in_its_order(target: Path, slow: _Slow) -> None:
    """Slow hashing delays the piece after the next, and the end."""
    part = opened(target, ObjectVersion(total=3, etag='"x"', ranges=True))
    part.write(0, b"0")
    assert slow.taken == []
    slow.may_go_on.release()
    part.write(1, b"1")
    assert slow.taken == [b"0"]
    slow.may_go_on.release(2)
    part.write(2, b"2")
    part.finish()
    assert slow.taken == [b"0", b"1", b"2"]
    for thread in threading.enumerate():
        if thread.name.startswith("segments-async-hash"):
            thread.join(10)
            assert not thread.is_alive()


def test_a_small_piece_waits_for_a_large_one(
    target: Path, slow: _Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small piece is hashed at once, after the pieces before it."""
    monkeypatch.setattr(digest, "PARALLEL_HASH_FROM", 2)
    part = opened(target, ObjectVersion(total=3, etag='"x"', ranges=True))
    part.write(0, b"01")
    threading.Timer(0.1, slow.may_go_on.release, [2]).start()
    part.write(2, b"2")
    assert slow.taken == [b"01", b"2"]
    part.discard()


def test_what_is_forgotten_is_not_hashed_later(target: Path, slow: _Slow) -> None:
    """A reset waits until the last piece is hashed."""
    part = opened(target, ObjectVersion(total=2, etag='"x"', ranges=True))
    part.write(0, b"01")
    threading.Timer(0.1, slow.may_go_on.release).start()
    part.reset()
    assert slow.taken == [b"01"]
    part.discard()


class _Slow:
    """A hash that waits before each piece."""

    def __init__(self) -> None:
        self.may_go_on = threading.Semaphore(0)
        self.taken: list[bytes] = []

    def update(self, data: Any, /) -> None:
        assert self.may_go_on.acquire(timeout=10)
        self.taken.append(bytes(data))

    def hexdigest(self) -> str:
        return ""


def test_a_part_whose_write_failed_is_never_put_in_place(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that could not be written may be hashed already, so the part is never put in place."""
    monkeypatch.setattr(digest, "PARALLEL_HASH_FROM", 1)
    part = opened(target, ObjectVersion(total=2, etag='"x"', ranges=True))
    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", lambda *_: fails_with(errno.ENOSPC))
        with pytest.raises(OSError, match="No space"):
            part.write(0, b"01")
    part.write(0, b"01")
    with pytest.raises(OSError, match="failed to take"):
        part.finish()
    part.discard()
    assert names(target) == set()


def fails_with(number: int) -> NoReturn:
    raise OSError(number, os.strerror(number))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.binary(max_size=200), st.lists(st.integers(0, 200)), st.integers(), st.sampled_from([1, 20])
)
def test_the_file_is_what_was_written(
    tmp_path: Path, data: bytes, cuts: Any, seed: int, beside: int
) -> None:
    """In any pieces and any order, the file has all bytes, and the hash is the file's.

    PrefixHash beside the writing or not, from memory that is used again after the next piece.
    """
    target = tmp_path / f"{uuid.uuid4()}.csv"
    part = opened(target, ObjectVersion(total=len(data), etag='"x"', ranges=True))
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = list(itertools.pairwise(edges))
    random.Random(seed).shuffle(pieces)
    memory = [bytearray(200), bytearray(200)]
    with unittest.mock.patch.object(digest, "PARALLEL_HASH_FROM", beside):
        for start, stop in pieces:
            memory.reverse()
            memory[0][: stop - start] = data[start:stop]
            part.write(start, memoryview(memory[0])[: stop - start])
        placed = part.finish()
    assert target.read_bytes() == data
    assert placed == (len(data), hashlib.sha256(data).hexdigest())
    assert not part_of(target).exists()
    assert not sidecar_of(target).exists()


def test_a_file_of_nothing(target: Path) -> None:
    """A file of 0 bytes is whole."""
    assert opened(target).finish() == (0, hashlib.sha256(b"").hexdigest())
    assert target.read_bytes() == b""


def test_a_symlink_at_the_target_is_replaced_and_not_followed(target: Path) -> None:
    """A symbolic link under the target's name is replaced; the file it pointed to stays."""
    elsewhere = target.with_name("elsewhere")
    elsewhere.write_bytes(b"precious")
    target.symlink_to(elsewhere)
    opened(target).finish(b"a,b\n")
    assert elsewhere.read_bytes() == b"precious"
    assert not target.is_symlink()
    assert target.read_bytes() == b"a,b\n"


def test_a_file_at_the_target_is_replaced_at_once(target: Path) -> None:
    """A reader that has the old file open reads the old file on."""
    target.write_bytes(b"before")
    with target.open("rb") as reader:
        opened(target).finish(b"after")
        assert reader.read() == b"before"
    assert target.read_bytes() == b"after"


def test_the_part_is_beside_the_target(target: Path) -> None:
    """The part is in the target's directory, since a rename within one directory is atomic."""
    assert part_of(target) == target.parent / "a.csv.part"
    assert sidecar_of(target) == target.parent / "a.csv.part.json"
