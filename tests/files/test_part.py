"""One file on its way: whole under its name, or not there."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segments_async._files.part import PartFile, part_of


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "a.csv"


def names(target: Path) -> set[str]:
    """What is in the target's directory."""
    return {entry.name for entry in target.parent.iterdir()}


# What goes wrong.


@pytest.mark.parametrize("dangling", [False, True])
def test_a_symlink_in_the_parts_place_is_refused(target: Path, dangling: bool) -> None:
    """A symbolic link where the part would be is not written through."""
    elsewhere = target.with_name("elsewhere")
    if not dangling:
        elsewhere.write_bytes(b"precious")
    part_of(target).symlink_to(elsewhere)
    with pytest.raises(OSError, match="symbolic link"):
        PartFile(target).write([b"a,b\n"])
    assert names(target) == {"a.csv.part"} | (set() if dangling else {"elsewhere"})
    assert dangling or elsewhere.read_bytes() == b"precious"


def test_a_directory_in_the_parts_place_is_refused(target: Path) -> None:
    """A directory where the part would be is an error, and stays."""
    part_of(target).mkdir()
    with pytest.raises(IsADirectoryError):
        PartFile(target).write([b"a,b\n"])
    assert names(target) == {"a.csv.part"}


def test_a_directory_at_the_target_is_refused(target: Path) -> None:
    """A directory that has come to the target's place is not replaced; discarding cleans up."""
    target.mkdir()
    part = PartFile(target)
    with pytest.raises(IsADirectoryError):
        part.finish([b"a,b\n"])
    assert part.is_open
    part.discard()
    assert names(target) == {"a.csv"}


def test_a_missing_directory_is_an_error(target: Path) -> None:
    """Where the directory is gone, writing fails, and nothing is open."""
    part = PartFile(target.parent / "gone" / "a.csv")
    with pytest.raises(FileNotFoundError):
        part.write([b"a,b\n"])
    assert not part.is_open


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
def test_a_failure_leaves_the_target_as_it_was(
    target: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """A full disk at any step of finishing changes nothing under the target's name."""

    def full(*_: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    target.write_bytes(b"before")
    part = PartFile(target)
    part.write([b"a,b\n"])
    monkeypatch.setattr(os, failing, full)
    with pytest.raises(OSError, match="No space"):
        part.finish([b"1,2\n"])
    part.discard()
    assert target.read_bytes() == b"before"
    assert names(target) == {"a.csv"}


def test_nothing_appears_under_the_name_before_it_is_whole(target: Path) -> None:
    """While it is written, there is a part and no target."""
    part = PartFile(target)
    part.write([b"a,b\n"])
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
    PartFile(target).finish([b"a,b\n"])
    assert steps == ["fsync", "replace", "fsync"]


# Discarding.


def test_discard_leaves_nothing(target: Path) -> None:
    """Whatever was written, nothing is left of it."""
    part = PartFile(target)
    part.write([b"a,b\n", b"1,2\n"])
    part.discard()
    assert names(target) == set()
    assert not part.is_open


def test_discarding_twice_is_discarding_once(target: Path) -> None:
    """A part that is gone already, by this or by other hands, is no error."""
    part = PartFile(target)
    part.write([b"a,b\n"])
    part_of(target).unlink()
    part.discard()
    part.discard()
    assert names(target) == set()


def test_discarding_what_was_never_written_removes_nothing(target: Path) -> None:
    """A part that was not opened here may be another process's, and stays."""
    part_of(target).write_bytes(b"another's")
    PartFile(target).discard()
    assert part_of(target).read_bytes() == b"another's"


def test_discarding_what_is_finished_removes_nothing(target: Path) -> None:
    """Once the file is in place, there is nothing to discard."""
    part = PartFile(target)
    part.finish([b"a,b\n"])
    assert not part.is_open
    part.discard()
    assert target.read_bytes() == b"a,b\n"


def test_a_discarded_part_can_be_begun_anew(target: Path) -> None:
    """A second attempt begins with an empty part, whatever an earlier process left there."""
    part_of(target).write_bytes(b"left by a process that was killed")
    PartFile(target).finish([b"a,b\n"])
    assert target.read_bytes() == b"a,b\n"


# What goes well.


@pytest.mark.parametrize("taken", [1, 3, 1000])
def test_a_short_write_is_no_short_file(
    target: Path, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    """Where the system takes less than it was given, the rest follows, and the hash is right."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:taken]))
    chunks = [b"a,b\n" * 100, b"", b"1,2\n" * 100]
    digest = PartFile(target).finish(chunks)
    assert target.read_bytes() == b"".join(chunks)
    assert digest == hashlib.sha256(b"".join(chunks)).hexdigest()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.lists(st.binary(), max_size=4), max_size=4), st.lists(st.binary(), max_size=4))
def test_the_file_is_what_was_written(
    tmp_path: Path, batches: list[list[bytes]], last: list[bytes]
) -> None:
    """In whatever batches it comes, the file is their sum, and the sha256 is the file's."""
    target = tmp_path / "a.csv"
    part = PartFile(target)
    for batch in batches:
        part.write(batch)
    digest = part.finish(last)
    assert target.read_bytes() == b"".join(b"".join(batch) for batch in [*batches, last])
    assert digest == hashlib.sha256(target.read_bytes()).hexdigest()
    assert names(target) == {"a.csv"}


def test_a_file_of_nothing(target: Path) -> None:
    """A file of 0 bytes is whole."""
    assert PartFile(target).finish([]) == hashlib.sha256(b"").hexdigest()
    assert target.read_bytes() == b""


def test_a_symlink_at_the_target_is_replaced_and_not_followed(target: Path) -> None:
    """A symbolic link under the target's name makes room; what it pointed to stays as it was."""
    elsewhere = target.with_name("elsewhere")
    elsewhere.write_bytes(b"precious")
    target.symlink_to(elsewhere)
    PartFile(target).finish([b"a,b\n"])
    assert elsewhere.read_bytes() == b"precious"
    assert not target.is_symlink()
    assert target.read_bytes() == b"a,b\n"


def test_a_file_at_the_target_is_replaced_at_once(target: Path) -> None:
    """Who has the old file open goes on reading the old one."""
    target.write_bytes(b"before")
    with target.open("rb") as reader:
        PartFile(target).finish([b"after"])
        assert reader.read() == b"before"
    assert target.read_bytes() == b"after"


def test_the_part_is_beside_the_target(target: Path) -> None:
    """A rename within one directory is atomic: the part is there, under the name and `.part`."""
    assert part_of(target) == target.parent / "a.csv.part"
