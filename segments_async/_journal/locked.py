"""Somebody else has it, for now."""

from __future__ import annotations


class Locked(Exception):
    """Another process has the run, or the database. Nothing was read or written; try again."""
