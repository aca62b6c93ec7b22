"""Claims about two downloads to one target."""

from __future__ import annotations

from pathlib import Path

import pytest

from segments_async._files.part import PartFile


def test_two_downloads_never_write_one_part(tmp_path: Path) -> None:
    """The second to open the part is refused, and harms neither the first nor its file."""
    target = tmp_path / "a.csv"
    first, second = PartFile(target), PartFile(target)
    first.open("export-1")
    first.write(0, b"first ")
    with pytest.raises(OSError, match="another download"):
        second.open("export-1")
    second.discard()
    first.write(6, b"file")
    first.finish()
    assert target.read_bytes() == b"first file"


def test_a_part_that_a_dead_process_left_is_taken_over(tmp_path: Path) -> None:
    """A part without a sidecar and without a lock is begun anew."""
    target = tmp_path / "a.csv"
    (tmp_path / "a.csv.part").write_bytes(b"what was left of an earlier one")
    part = PartFile(target)
    part.open("export-1")
    part.finish(b"new")
    assert target.read_bytes() == b"new"
    assert not (tmp_path / "a.csv.part").exists()
