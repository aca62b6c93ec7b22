"""The error for a database or run that another process has locked."""

from __future__ import annotations


class Locked(Exception):
    """Another process has locked the run or the database. Nothing was read or written; retry."""
