"""A state machine over the sessions of one run, against a dictionary."""

from __future__ import annotations

import logging

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from reliability.machine import Sessions

STEPS = 50


@pytest.fixture(autouse=True)
def quiet() -> None:
    logging.getLogger("segments_async").setLevel(logging.CRITICAL)


@pytest.mark.counted(20, 200, f"examples of {STEPS} steps")
def test_whatever_happens_in_whatever_order(count: int) -> None:
    """Progress, leaving, death, 429s, lost answers, opting in, deleted files: the model holds."""
    run_state_machine_as_test(
        Sessions,
        settings=settings(
            max_examples=count,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
