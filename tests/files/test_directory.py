"""Destinations: a path that can't be written is refused before any request to the vendor."""

from __future__ import annotations

import os
import stat
import tempfile
import time
from pathlib import Path
from typing import NoReturn

import pytest

from segments_async._files.directory import Directory, append_lines, check_target
from segments_async.errors import ConfigurationError

ONE = "82200474-c131-4f7b-a35e-381469af31a7"
TWO = "11111111-c131-4f7b-a35e-381469af31a7"
ONE_FILE = "My-Segment-82200474.csv"


def prepare(directory: Path | str, *, overwrite: bool = False) -> dict[str, str]:
    """The problem of each segment that can't be exported to the directory."""
    segments = [(ONE, "My Segment"), (TWO, "Other")]
    problems = Directory(directory, segments, overwrite=overwrite).prepare()
    return {segment_id: str(error) for segment_id, error in problems.items()}


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file can be made anywhere. Permissions wouldn't do: root may write where none may."""

    def refuse(**_: object) -> NoReturn:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)


# A directory.


def test_a_read_only_directory_is_found(tmp_path: Path, read_only: None) -> None:
    """A directory in which no file can be created is refused, with the system's reason."""
    with pytest.raises(ConfigurationError, match="Read-only file system"):
        prepare(tmp_path)


@pytest.mark.parametrize("below", ["", "a", "a/b"])
def test_a_file_in_the_directorys_place_is_found(tmp_path: Path, below: str) -> None:
    """A destination that is a file, or would be below one, is refused."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="can't write"):
        prepare(tmp_path / "file" / below)


@pytest.mark.parametrize("path", ["", "~", "~/exports", "~operator/exports"])
def test_what_only_a_shell_makes_a_path_is_refused(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither an empty path nor a `~` writes anything into the current directory."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"is empty|begins with '~'"):
        prepare(path)
    with pytest.raises(ConfigurationError, match=r"is empty|begins with '~'"):
        check_target(path, overwrite=True)
    assert list(tmp_path.iterdir()) == []


def test_a_path_below_the_current_directory_may_begin_with_a_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `./`, or as an absolute path, `~` is a name like any other; a Path drops the `./`."""
    monkeypatch.chdir(tmp_path)
    assert prepare("./~exports") == {}
    assert prepare(tmp_path / "~exports") == {}
    for path in ("./~exports/a.csv", tmp_path / "~exports" / "a.csv"):
        assert check_target(path, overwrite=False) == tmp_path / "~exports" / "a.csv"
    with pytest.raises(ConfigurationError, match="the absolute path"):
        check_target(Path("./~exports/a.csv"), overwrite=False)


def test_a_current_directory_that_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path is refused there, and an absolute one works."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for check in (prepare, lambda path: check_target(path, overwrite=True)):
        with pytest.raises(ConfigurationError, match="current directory"):
            check("exports")
    assert prepare(tmp_path / "exports") == {}


@pytest.mark.parametrize("name", ["a\0b", "a" * 300])
def test_a_directory_that_can_not_be_is_found(tmp_path: Path, name: str) -> None:
    """A name that no directory can have, too long or with a NUL, is refused."""
    with pytest.raises(ConfigurationError, match="can't write"):
        prepare(f"{tmp_path}/{name}")


def test_a_symlink_to_nowhere_is_found(tmp_path: Path) -> None:
    """A dangling symbolic link in the directory's place is refused, and left as it is."""
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="can't write"):
        prepare(tmp_path / "link")
    assert not (tmp_path / "nowhere").exists()


def test_a_foreign_file_concerns_its_segment_only(tmp_path: Path) -> None:
    """A file that would be replaced is a problem of its segment, and of no other."""
    (tmp_path / ONE_FILE).write_bytes(b"precious")
    assert list(prepare(tmp_path)) == [ONE]


def test_a_foreign_file_is_left_alone(tmp_path: Path) -> None:
    """Preparing doesn't change an existing file, with and without `overwrite`."""
    (tmp_path / ONE_FILE).write_bytes(b"precious")
    for overwrite in (False, True):
        prepare(tmp_path, overwrite=overwrite)
    assert (tmp_path / ONE_FILE).read_bytes() == b"precious"


def test_a_foreign_file_names_what_would_replace_it(tmp_path: Path) -> None:
    """The reason says which option admits it, in Python and on the command line."""
    (tmp_path / ONE_FILE).touch()
    assert "overwrite=True replaces" in prepare(tmp_path)[ONE]


def test_overwrite_admits_a_foreign_file(tmp_path: Path) -> None:
    """With `overwrite`, an existing file is no problem."""
    (tmp_path / ONE_FILE).touch()
    assert prepare(tmp_path, overwrite=True) == {}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_directory_in_a_files_place_is_found(tmp_path: Path, overwrite: bool) -> None:
    """A directory where a file should go is a problem that `overwrite` doesn't solve."""
    (tmp_path / ONE_FILE).mkdir()
    assert "is a directory" in prepare(tmp_path, overwrite=overwrite)[ONE]


@pytest.mark.parametrize("target", ["nowhere", "."])
def test_a_symlink_in_a_files_place(tmp_path: Path, target: str) -> None:
    """A symbolic link, dangling or to a directory, is a foreign file like any other."""
    (tmp_path / ONE_FILE).symlink_to(tmp_path / target)
    assert "exists" in prepare(tmp_path)[ONE]
    assert prepare(tmp_path, overwrite=True) == {}


def test_a_new_directory_is_made(tmp_path: Path) -> None:
    """A directory that doesn't exist is made, with those above it."""
    assert prepare(tmp_path / "a" / "b") == {}
    assert (tmp_path / "a" / "b").is_dir()


def test_preparing_leaves_nothing(tmp_path: Path) -> None:
    """The file by which `prepare` tests the directory is removed."""
    prepare(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unrelated_files_are_no_problem(tmp_path: Path) -> None:
    """Other files in the directory don't matter."""
    (tmp_path / "notes.csv").touch()
    assert prepare(tmp_path) == {}


def test_every_segment_has_its_path(tmp_path: Path) -> None:
    """A segment's file is in the directory, under its name."""
    there = Directory(tmp_path, [(ONE, "My Segment"), (TWO, None)], overwrite=False)
    assert there.target(ONE).location == str(tmp_path / ONE_FILE)
    assert there.target(TWO).location == str(tmp_path / f"{TWO}.csv")


def test_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative destination stays where it was meant when the process changes its directory."""
    monkeypatch.chdir(tmp_path)
    there = Directory("exports", [(ONE, "My Segment")], overwrite=False)
    monkeypatch.chdir("/")
    assert there.target(ONE).location == str(tmp_path / "exports" / ONE_FILE)
    assert there.location == str(tmp_path / "exports")


# A single file.


def test_a_read_only_target_is_found(tmp_path: Path, read_only: None) -> None:
    """A target beside which no file can be created is refused."""
    with pytest.raises(ConfigurationError, match="Read-only file system"):
        check_target(tmp_path / "a.csv", overwrite=True)


@pytest.mark.parametrize("name", ["nowhere/a.csv", "file/a.csv", "a\0b.csv", "a" * 252, "a" * 300])
def test_a_target_that_can_not_be_is_found(tmp_path: Path, name: str) -> None:
    """No directory, a file as the directory, a NUL, a name too long for itself or its part."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="can't write"):
        check_target(f"{tmp_path}/{name}", overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("target", [".", "/"])
def test_a_directory_is_no_target(target: str, overwrite: bool) -> None:
    """A target that is a directory is refused, with `overwrite` too."""
    with pytest.raises(ConfigurationError, match="is a directory"):
        check_target(target, overwrite=overwrite)


@pytest.mark.parametrize("target", ["/dev/stdout", "/dev/null", "/dev/no-such-disk"])
def test_no_file_is_made_among_the_devices(target: str) -> None:
    """Not even where `/dev/stdout` leads to a regular file: root would replace the link."""
    with pytest.raises(ConfigurationError, match="is not a regular file"):
        check_target(target, overwrite=True)


def test_a_path_with_a_slash_at_its_end_is_no_file(tmp_path: Path) -> None:
    """`exports/` means a directory, also where there is none yet."""
    with pytest.raises(ConfigurationError, match="names a directory"):
        check_target(f"{tmp_path}/exports/", overwrite=True)


@pytest.mark.parametrize("link", [False, True])
def test_a_foreign_target_takes_overwrite(tmp_path: Path, link: bool) -> None:
    """Without `overwrite`, an existing file or a dangling link in the target's place is refused."""
    target = tmp_path / "a.csv"
    target.symlink_to("nowhere") if link else target.touch()
    with pytest.raises(ConfigurationError, match="overwrite=True"):
        check_target(target, overwrite=False)
    assert check_target(target, overwrite=True) == target


def test_a_target_comes_back_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative target that may be written is returned as an absolute path, and not made."""
    monkeypatch.chdir(tmp_path)
    assert check_target("a.csv", overwrite=False) == tmp_path / "a.csv"
    assert list(tmp_path.iterdir()) == []


# Lines.


def test_lines_are_not_written_through_a_symlink(tmp_path: Path) -> None:
    """A symbolic link in the manifest's place is refused, not followed."""
    (tmp_path / "elsewhere").write_text("precious\n")
    (tmp_path / "manifest.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        append_lines(tmp_path / "manifest.jsonl", ["{}"])
    assert (tmp_path / "elsewhere").read_text() == "precious\n"


def test_a_short_write_loses_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a short write of the system, the rest of the lines is written."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:5]))
    append_lines(tmp_path / "lines", ["one line", "another line"])
    assert (tmp_path / "lines").read_text() == "one line\nanother line\n"


def test_lines_are_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All lines of a call go in one write, so that two processes' lines don't mix."""
    sizes: list[int] = []
    write = os.write

    def counted(descriptor: int, data: bytes) -> int:
        sizes.append(len(data))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", counted)
    append_lines(tmp_path / "lines", ["one", "two", "three"])
    assert sizes == [len("one\ntwo\nthree\n")]


def test_lines_are_appended(tmp_path: Path) -> None:
    """Earlier lines stay, and each line ends with a newline."""
    for line in ("caf\u00e9", "two"):
        append_lines(tmp_path / "lines", [line])
    assert (tmp_path / "lines").read_bytes() == "caf\u00e9\ntwo\n".encode()


def test_a_line_without_a_newline_stays_a_line(tmp_path: Path) -> None:
    """After a line that an editor or a crash left unfinished, the new line is one of its own."""
    (tmp_path / "lines").write_text('{"a": 1}\n{"b"')
    append_lines(tmp_path / "lines", ["{}", "{}"])
    assert (tmp_path / "lines").read_text() == '{"a": 1}\n{"b"\n{}\n{}\n'


def test_a_line_that_another_process_is_writing_gets_no_newline_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the file grows, its last line isn't torn: a line without text would follow it."""
    (tmp_path / "lines").write_text('{"b"')
    parts = [": 1", "}\n"]

    def others_write(_: float) -> None:
        with (tmp_path / "lines").open("a") as file:
            file.write(parts.pop(0))

    monkeypatch.setattr(time, "sleep", others_write)
    append_lines(tmp_path / "lines", ["{}"])
    assert (tmp_path / "lines").read_text() == '{"b": 1}\n{}\n'


@pytest.mark.parametrize("taken", [0, 1, 12])
def test_a_full_disk_leaves_no_part_of_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    """Where the disk takes a part of the lines and no more, none of them is in the file."""
    (tmp_path / "lines").write_text("before\n")
    write, room = os.write, [taken]

    def full(descriptor: int, data: bytes) -> int:
        size = min(room[0], len(data))
        room[0] -= size
        if not size:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:size])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        append_lines(tmp_path / "lines", ["one line", "another line"])
    assert (tmp_path / "lines").read_text() == "before\n"
    room[0] = 1000
    append_lines(tmp_path / "lines", ["one line", "another line"])
    assert (tmp_path / "lines").read_text() == "before\none line\nanother line\n"


def test_no_descriptor_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails leaves no open file behind."""
    closed: list[int] = []
    close = os.close

    def closing(descriptor: int) -> None:
        closed.append(descriptor)
        close(descriptor)

    monkeypatch.setattr(os, "close", closing)

    def full(*_: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        append_lines(tmp_path / "lines", ["one"])
    assert len(closed) == 1


@pytest.mark.parametrize("spelling", ["link", "sub/../real", "link/../real/."])
def test_one_directory_by_several_names(tmp_path: Path, spelling: str) -> None:
    """Links and dots lead to the same files."""
    (tmp_path / "real").mkdir()
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to("real")
    found = Directory(tmp_path / spelling, [("s1", None)], overwrite=False)
    assert found.location == os.path.realpath(tmp_path / "real")
    assert str(check_target(tmp_path / spelling / "a.csv", overwrite=False).parent) == (
        found.location
    )


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("by_link", [False, True])
def test_what_is_no_regular_file_is_refused(tmp_path: Path, overwrite: bool, by_link: bool) -> None:
    """A FIFO or a device, also behind a link, is never replaced by a file."""
    target = tmp_path / "a.csv"
    place = tmp_path / "fifo" if by_link else target
    os.mkfifo(place)
    if by_link:
        target.symlink_to(place)
    with pytest.raises(ConfigurationError, match="not a regular file"):
        check_target(target, overwrite=overwrite)
    assert stat.S_ISFIFO(place.stat().st_mode)
