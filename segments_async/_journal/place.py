"""The path or URL of a journal. A URL may have a password. Needs no SQLAlchemy (an extra)."""

from __future__ import annotations

import os
import re

from segments_async._sansio.api.credentials import Secret


def hidden(where: str | os.PathLike[str] | Secret) -> Secret:
    """The place as a Secret, for local variables, which error reporters show."""
    return where if isinstance(where, Secret) else Secret(os.fspath(where))


#: libpq's list of parameters ("host=db dbname=runs"), and a URL that lacks a slash.
_OTHER_NOTATION = re.compile(
    r"(?is)\s*(?:(?:\w+\s*=.*\s)?"
    r"(?:host|hostaddr|port|dbname|user|password|passfile|service|sslmode)\s*="
    r"|(?:jdbc:)?(?:postgres(?:ql)?|sqlite|mysql)(?:\+\w+)?:(?!//))"
)


def is_other_notation(text: str) -> bool:
    """Whether the text is a database's address that is no URL, and may have a password.

    As a path, it would be a new SQLite file, another one on each machine.
    """
    return _OTHER_NOTATION.match(text) is not None
