"""Decisions, as plain synchronous code: values and `now` in, a small value out.

Nothing in here awaits, reads a clock, draws a random number, does I/O or logs, which
tests/test_project.py holds. Time comes in as seconds of one monotonic clock, chance as a number
from [0, 1).
"""
