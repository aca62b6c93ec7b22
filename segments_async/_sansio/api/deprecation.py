"""The vendor's notice, in the headers of an answer, that a part of the API will end."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def deprecation_notice(headers: Mapping[str, str]) -> str | None:
    """What the headers ``Deprecation`` and ``Sunset`` say, as the end of a sentence; None: nothing.

    Deprecation is a date like ``@1688169599`` (RFC 9745), in earlier drafts ``true`` or an HTTP
    date. Sunset is an HTTP date (RFC 8594). Neither is on the vendor's page.

    Args:
        headers: by lower-case names.
    """
    deprecated, sunset = headers.get("deprecation"), headers.get("sunset")
    if deprecated is None and sunset is None:
        return None
    since = "" if deprecated is None else _since(deprecated)
    ends = "" if sunset is None else f"will stop answering on {sunset[:40]}"
    return " and ".join(part for part in (since, ends) if part)


def _since(value: str) -> str:
    if value.startswith("@"):
        try:
            time = _EPOCH + timedelta(seconds=int(value[1:]))
        except (ValueError, OverflowError):
            return "is deprecated"
        return f"is deprecated since {time:%Y-%m-%d}"
    return "is deprecated" if value.lower() == "true" else f"is deprecated since {value[:40]}"
