"""JSON of the vendor's, as far as it can be read: values, and the objects in their envelopes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, cast

#: What :func:`parsed` returns for a body that isn't JSON.
NOT_JSON = object()

#: Envelopes in envelopes that are searched.
_DEEPEST = 3

#: Fields beside a list that say, where they are not empty, that the list goes on elsewhere. Each
#: name that begins with "next" counts, except those of times: a page that isn't noticed costs
#: segments.
_TIMES = r"_?(run|update|refresh|sync|schedul|execut|calc|maintenance|time|date|at$)"
_MORE = re.compile(rf"[_@]?(odata\.)?(next(?!{_TIMES})|has_?(more|next))", re.IGNORECASE)

#: "No" as some servers write it, in a string.
_NO = frozenset({"", "0", "false", "no", "none", "null"})


def parsed(body: bytes) -> Any:
    """The JSON value, or NOT_JSON. Not an error: the parser's error would hold the whole body.

    A string that is itself the text of an object or list was encoded twice by a server, and stands
    for that object or list.
    """
    try:
        value = json.loads(body)
        return json.loads(value) if is_encoded_twice(body) else value
    except (ValueError, RecursionError):  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        return _parsed_leniently(body)


def is_encoded_twice(body: bytes) -> bool:
    """Whether this is the beginning of a JSON string with an object or a list in it."""
    return body[:64].lstrip().startswith((b'"{', b'"['))


def is_whole(body: bytes) -> bool:
    """Whether the bytes are a whole JSON object or list: what else was announced is no part of it.

    A number or a word would be whole, too, if more of it were to come.
    """
    # In any of Unicode's encodings. To read the half of a list of 200 000 segments takes 0.7 s.
    if not body.rstrip(b"\0 \t\r\n").endswith((b"}", b"]")):
        return False
    try:
        return isinstance(json.loads(body), dict | list)
    except (ValueError, RecursionError):
        return False


def _parsed_leniently(body: bytes) -> Any:
    """The value of a body with a small fault that leaves the export's id readable.

    Such faults are a byte of another encoding or a bare newline in a name, a number that Python
    can't convert, or text after the value.
    """
    text = body.decode(json.detect_encoding(body), "replace").lstrip("\ufeff \t\r\n")
    if not text.startswith(("{", "[")):
        return NOT_JSON
    try:
        return _lenient.raw_decode(text)[0]
    except (ValueError, RecursionError):
        return NOT_JSON


def _int(digits: str) -> int | None:
    try:
        return int(digits)
    except ValueError:  # a number of more than 4 300 digits
        return None


_lenient = json.JSONDecoder(strict=False, parse_int=_int)


def as_object(value: Any) -> dict[str, Any] | None:
    return cast(dict[str, Any], value) if isinstance(value, dict) else None


def as_array(value: Any) -> Sequence[Any] | None:
    return cast(Sequence[Any], value) if isinstance(value, list) else None


def objects_with(key: str, value: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    """The objects that have the key, in the value or its envelopes; none from inside another."""
    record = as_object(value)
    if record is not None and key in record:
        yield record
    elif depth <= _DEEPEST:
        for inner in record.values() if record is not None else as_array(value) or ():
            yield from objects_with(key, inner, depth + 1)


def list_with(key: str, value: Any, depth: int = 0) -> Sequence[Any] | None:
    """The list of records, also from an envelope with one such list.

    If an envelope has several lists, the one with an object that has the key counts: other lists
    hold errors, warnings or links.
    """
    envelope = as_object(value)
    if envelope is None:
        return as_array(value)
    lists = [found for found in map(as_array, envelope.values()) if found is not None]
    lists = [one for one in lists if any(key in (as_object(item) or ()) for item in one)] or lists
    if not lists and depth < _DEEPEST:
        inner = (list_with(key, v, depth + 1) for v in envelope.values() if isinstance(v, dict))
        lists = [found for found in inner if found is not None]
    return lists[0] if len(lists) == 1 else None


def goes_on(value: Any, depth: int = 0) -> bool:
    """Whether an envelope says that its list is a page, and that another one follows."""
    for key, inner in (as_object(value) or {}).items():
        # `"last": false` is that of Java's Spring.
        if (_MORE.match(key) and not _is_no(inner)) or (key == "last" and inner is False):
            return True
        if depth < _DEEPEST and goes_on(inner, depth + 1):
            return True
    return False


def _is_no(value: Any) -> bool:
    """Whether a field says that nothing follows, also as a link without an address."""
    if isinstance(value, str):
        return value.strip().lower() in _NO
    link = as_object(value)
    return not (value if link is None else link.get("href", link))


def with_text_id(value: Any, key: str) -> Any:
    """The object with its id as a text, if the vendor wrote a number or white space around it.

    Some servers write each number as a float. Above 2**53 a float may stand for another number.
    """
    record = as_object(value)
    if record is None:
        return value
    found = record.get(key)
    if isinstance(found, float) and found.is_integer() and abs(found) < 2**53:
        found = int(found)
    if type(found) is int:
        return {**record, key: str(found)}
    if isinstance(found, str) and found != found.strip():
        return {**record, key: found.strip()}
    return value
