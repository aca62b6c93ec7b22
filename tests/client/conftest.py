"""Fixtures of the client's tests."""

from __future__ import annotations

import random

import pytest


@pytest.fixture(autouse=True)
def chance() -> None:
    """Seed the jitter: it is the same in every run."""
    random.seed(20_261_123)
