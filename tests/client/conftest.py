"""What the client's tests share."""

from __future__ import annotations

import random

import pytest


@pytest.fixture(autouse=True)
def chance() -> None:
    """Jitter is the same in every run."""
    random.seed(20_261_123)
