"""File names from segment names: for people, and harmless."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segments_async._sansio.files.naming import file_name, file_names, moved_path, slug

_MARKS = (chr(code) for code in range(0x300, 0x20000))
_MARK = f"[{''.join(char for char in _MARKS if unicodedata.category(char)[0] == 'M')}]"
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
IDS = st.text(ALPHABET, min_size=1, max_size=128)
# Few letters, so that ids share their first eight characters and differ in case only.
CLOSE_IDS = st.text("aA-", min_size=1, max_size=12)
CLOSE_NAMES = st.none() | st.sampled_from(
    ["a", "A", "\u00e1", "b", "a-aaaaaaaa", "", "..", "segment"]
)
UUIDS = st.builds(
    "{}-{}".format,
    st.sampled_from(["82200474", "11111111"]),
    st.uuids().map(lambda uuid: str(uuid).partition("-")[2]),
)
SEGMENTS = st.dictionaries(IDS | CLOSE_IDS, CLOSE_NAMES | st.text(), max_size=12)

ONE = "82200474-c131-4f7b-a35e-381469af31a7"
TWIN = "82200474-c131-4f7b-a35e-000000000000"  # the first eight characters are the same
OTHER = "11111111-c131-4f7b-a35e-381469af31a7"


@given(st.text())
def test_a_slug_is_harmless(name: str) -> None:
    """Of any text, a slug is 1 to 80 letters, digits, marks or `._-`, not hidden, no option."""
    made = slug(name)
    assert 1 <= len(made) <= 80
    assert len(made.encode()) <= 108
    assert made == unicodedata.normalize("NFC", made)
    assert all(
        char in "._-" or unicodedata.category(char)[0] in "LM" or char.isdecimal() for char in made
    )
    assert unicodedata.category(made[0])[0] != "M"
    assert ".." not in made
    assert made[0] not in ".-_"
    assert made[-1] not in ".-_"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", "segment"),
        ("..", "segment"),
        ("../../etc/passwd", "etc-passwd"),
        ("/", "segment"),
        ("\0", "segment"),
        ("C:\\Windows\\win.ini", "C-Windows-win.ini"),
        (".bashrc", "bashrc"),
        ("-rf", "rf"),
        ("\u202egnp.exe", "gnp.exe"),
        ("\x1b[31mred", "31mred"),
        ("line\nbreak", "line-break"),
        ("a" * 300, "a" * 80),
        (
            "\u65e5\u672c\u306e\u30e6\u30fc\u30b6\u30fc 33",
            "\u65e5\u672c\u306e\u30e6\u30fc\u30b6\u30fc-33",
        ),
        (
            "\u041f\u043e\u043a\u0443\u043f\u0430\u0442\u0435\u043b\u0438 \u2116 7",
            "\u041f\u043e\u043a\u0443\u043f\u0430\u0442\u0435\u043b\u0438-No-7",
        ),
        ("\u0438\u0306", "\u0439"),  # in two characters, and in one
        (
            "\u0939\u093f\u0928\u094d\u0926\u0940",
            "\u0939\u093f\u0928\u094d\u0926\u0940",
        ),  # marks that are vowels
        ("\u05e9\u05dc\u05d5\u05dd\u202e", "\u05e9\u05dc\u05d5\u05dd"),
        ("\u0663 days", "\u0663-days"),
        ("\ud55c\uae00\u3164", "\ud55c\uae00"),
        ("VIP \U0001f600\ufe0f!", "VIP"),
        ("\U0001f468\u200d\U0001f469", "segment"),
        ("Stra\u00dfe", "Strae"),  # as before other scripts were kept
        ("\u65e5" * 80, "\u65e5" * 36),
        ("\u0301", "segment"),
        ("\ud800", "segment"),
        ("Caf\u00e9 M\u00fcnchen", "Cafe-Munchen"),
        ("\uff21\uff22", "AB"),
        ("\u2024\u2024", "segment"),  # one-dot leaders, which become dots
        ("a...b", "a.b"),
        ("Recent Registrants", "Recent-Registrants"),
        ("v1.2_final-3", "v1.2_final-3"),
    ],
)
def test_slugs(name: str, expected: str) -> None:
    """Characters that could do harm are removed, and readable ones stay."""
    assert slug(name) == expected


@given(IDS, st.none() | st.text(), st.booleans())
def test_a_file_name_stays_in_its_directory(
    segment_id: str, name: str | None, whole_id: bool
) -> None:
    """Any name is one plain component of a path, with room for `.part` in a file system's 255."""
    made = file_name(segment_id, name, whole_id=whole_id)
    assert re.fullmatch(r"[\w-][\w.-]*\.csv", re.sub(_MARK, "", made))
    assert len(made.encode()) <= 255 - len("~999.part")


@given(st.text(st.characters(max_codepoint=0x24F)))
def test_latin_names_are_as_ever(name: str) -> None:
    """A name of Latin letters alone has the file name that it had before others were kept."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    fit = re.sub(r"\.{2,}", ".", re.sub(r"[^A-Za-z0-9._-]+", "-", plain))
    assert slug(name) == (fit[:80].strip(".-_") or "segment")


def test_a_file_name_has_the_name_and_the_ids_beginning() -> None:
    """The rule is `{slug}-{first 8 of the id}.csv`."""
    assert file_name(ONE, "My Segment") == "My-Segment-82200474.csv"


def test_without_a_name_there_is_the_id() -> None:
    """A segment whose name isn't known is named by its whole id."""
    assert file_name(ONE, None) == f"{ONE}.csv"


@given(SEGMENTS)
def test_every_segment_has_a_name(segments: dict[str, str | None]) -> None:
    """There is a name for each segment, and for nothing else."""
    assert file_names(segments.items()).keys() == segments.keys()


@given(SEGMENTS)
def test_no_two_names_are_alike(segments: dict[str, str | None]) -> None:
    """No two segments share a file, also on a file system where case doesn't count."""
    names = file_names(segments.items())
    assert len({name.casefold() for name in names.values()}) == len(segments)


@given(SEGMENTS)
def test_names_do_not_depend_on_order(segments: dict[str, str | None]) -> None:
    """The same segments in another order have the same names."""
    assert file_names(reversed(segments.items())) == file_names(segments.items())


@given(st.dictionaries(UUIDS, CLOSE_NAMES, max_size=12), UUIDS, CLOSE_NAMES)
def test_another_segment_changes_only_what_collides(
    segments: dict[str, str | None], segment_id: str, name: str | None
) -> None:
    """A segment more leaves every name as it was, but those of the same slug and short id."""
    before = file_names(segments.items())
    after = file_names(({segment_id: name} | segments).items())
    alike = file_name(segment_id, name).casefold()
    apart = {i for i, other in segments.items() if file_name(i, other).casefold() != alike}
    assert {i: after[i] for i in apart} == {i: before[i] for i in apart}


def test_two_that_collide_have_their_whole_ids() -> None:
    """Two names with equal slugs and short ids get the whole id; a third name doesn't."""
    names = file_names([(ONE, "My Segment"), (TWIN, "my segment"), (OTHER, "My Segment")])
    assert names == {
        ONE: f"My-Segment-{ONE}.csv",
        TWIN: f"my-segment-{TWIN}.csv",
        OTHER: "My-Segment-11111111.csv",
    }


def test_ids_that_differ_in_case_only_are_numbered() -> None:
    """Names that differ only in case even with the whole ids are numbered."""
    assert file_names([("abc", "n"), ("ABC", "n")]) == {"ABC": "n-ABC.csv", "abc": "n-abc~2.csv"}


def test_the_same_segment_twice_has_one_name() -> None:
    """A segment given twice doesn't collide with itself."""
    assert file_names([(ONE, "My Segment")] * 2) == {ONE: "My-Segment-82200474.csv"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/old/a.csv", "/new/a.csv"),
        ("/older/a.csv", "/new/a.csv"),
        ("/new/a.csv", "/new/a.csv"),
        ("/old/b/a.csv", "/old/b/a.csv"),
        ("/old/..", "/old/.."),
        ("/elsewhere/a.csv", "/elsewhere/a.csv"),
    ],
)
def test_a_path_in_a_former_directory(path: str, expected: str) -> None:
    """A file of a former directory is in the present one; every other path stays."""
    assert moved_path(path, "/new", {"/old", "/older"}) == expected
