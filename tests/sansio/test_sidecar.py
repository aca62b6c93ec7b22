"""What is written beside a part: enough to go on, or nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segments_async._sansio.files.ranges import ObjectVersion
from segments_async._sansio.files.sidecar import SIZE, Sidecar, load

WHOLE = Sidecar(
    export_id="export-1",
    version=ObjectVersion(total=100, etag='"abc"', ranges=True, md5="0" * 32),
    held=((0, 10), (20, 30)),
    boot_id="boot",
    synced=False,
)


def test_what_is_written_is_read() -> None:
    """Of one size, whatever is in it."""
    data = WHOLE.dump()
    assert len(data) == SIZE
    assert load(data) == WHOLE


def test_the_largest_has_room() -> None:
    """What doesn't fit of many ranges is fetched again."""
    most = 10**18 - 1
    large = Sidecar(
        export_id="e" * 128,
        version=ObjectVersion(
            total=most, etag='"' + "\\" * 256 + '"', modified="d" * 64, ranges=True
        ),
        held=tuple((most - 3 * n, most - 3 * n + 1) for n in range(500, 0, -1)),
        boot_id="b" * 64,
        synced=True,
    )
    found = load(large.dump())
    assert found is not None
    assert found.held == large.held[:64]


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"version": None},
        {"export": 7},
        {"total": None},
        {"total": -1},
        {"total": True},
        {"total": 1e300},
        {"total": 25},
        {"etag": None},
        {"etag": 7},
        {"etag": 'W/"abc"'},  # from here on: nothing to send in a header
        {"etag": '"\u00e9"'},
        {"etag": '"abc"\r\nX: 1'},
        {"etag": None, "modified": "\ufeff"},
        {"etag": None, "modified": "d" * 65},
        {"held": [0]},
        {"held": [0, "10"]},
        {"held": [-1, 10]},
        {"held": [0, 101]},
        {"held": {"0": 10}},
        {"boot": []},
    ],
)
def test_what_makes_no_sense_is_nothing(change: dict[str, Any]) -> None:
    """Another version's, or somebody's who has been at it."""
    document = json.loads(WHOLE.dump()) | change
    assert load(json.dumps(document).encode().ljust(SIZE)) is None


@given(st.binary(max_size=64) | st.integers(0, SIZE).map(lambda n: WHOLE.dump()[:n]))
def test_anything_is_a_sidecar_or_nothing(data: bytes) -> None:
    """Cut off, or never one: no error."""
    assert load(data) in (None, WHOLE)


@given(st.integers(0, SIZE - 1), st.integers(0, 255))
def test_a_flipped_byte_never_brings_bytes_that_arent_there(at: int, value: int) -> None:
    """It may make another sidecar of it, and not one with more than its total."""
    data = bytearray(WHOLE.dump())
    data[at] = value
    found = load(bytes(data))
    assert found is None or not found.held or found.held[-1][1] <= (found.version.total or 0)


@pytest.mark.parametrize(
    ("written", "now", "synced", "trusted"),
    [
        ("a", "a", False, True),
        ("a", "b", False, False),
        ("a", "b", True, True),
        (None, None, False, False),
        (None, "a", False, False),
        (None, None, True, True),
    ],
)
def test_whom_to_trust(written: str | None, now: str | None, synced: bool, trusted: bool) -> None:
    """The same system since it was started, or what was synced."""
    note = Sidecar(
        export_id="e", version=WHOLE.version, held=((0, 1),), boot_id=written, synced=synced
    )
    assert note.trusted(now) is trusted
