"""Which workers can work at a run: each refusal is a sentence that says what to do."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from segments_async._sansio.jobs.workers import Machine, WorkerFacts, refusal

HERE = Machine(host="boot-1", name="alpha", version="1.0")
THERE = Machine(host="boot-2", name="beta", version="1.0")
GOOD = WorkerFacts(machine=HERE, account="digest", problem=None, sees_files=True, sees_journal=True)


def test_a_worker_of_this_machine_is_accepted() -> None:
    """With SQLite, a process of the same kernel that sees the files works at the run."""
    assert refusal(HERE, GOOD) is None
    assert refusal(HERE, GOOD, account="digest") is None


def test_a_worker_of_another_machine_needs_a_server_and_a_shared_directory() -> None:
    """With PostgreSQL, a worker anywhere that sees the run's directory works at the run."""
    assert refusal(HERE, attrs.evolve(GOOD, machine=THERE, sees_journal=None)) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"machine": attrs.evolve(HERE, version="0.9")}, ["alpha", "0.9", "same version"]),
        (
            {"account": None, "problem": "SEGMENTS_API_KEY is not set"},
            ["alpha", "SEGMENTS_API_KEY is not set", "never sent"],
        ),
        ({"account": "other"}, ["another account", "SEGMENTS_BASE_URL"]),
        ({"machine": THERE}, ["another machine, beta", "PostgreSQL"]),
        ({"sees_journal": False}, ["alpha", "the journal's directory"]),
        ({"machine": THERE, "sees_journal": None, "sees_files": False}, ["beta", "all machines"]),
    ],
)
def test_a_worker_that_can_not_work_is_refused(changes: dict[str, Any], words: list[str]) -> None:
    """The sentence names the machine, and what is missing there."""
    text = refusal(HERE, attrs.evolve(GOOD, **changes), account="digest")
    assert text is not None
    assert all(word in text for word in words), text
