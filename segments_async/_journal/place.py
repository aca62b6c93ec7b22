"""The path or URL of a journal. A URL may have a password. Without SQLAlchemy, an extra."""

from __future__ import annotations

import os

from segments_async._sansio.api.credentials import Secret


def hidden(where: str | os.PathLike[str] | Secret) -> Secret:
    """The place as a Secret, for local variables, which error reporters show."""
    return where if isinstance(where, Secret) else Secret(os.fspath(where))
