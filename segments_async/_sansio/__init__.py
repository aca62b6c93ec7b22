"""Decisions, as plain synchronous code: values and `now` in, a small value out.

Nothing in here awaits, reads a clock, draws a random number, does I/O or logs; tests/test_project.py
holds that. Time comes in as seconds of one monotonic clock, chance as a number from [0, 1).
"""
