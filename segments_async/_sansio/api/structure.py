"""Exports and segments from JSON objects, and to them.

Every field that only decorates is None if it can't be read; see `decoding` for why.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, override

from segments_async.models import Export, ExportStatus, Segment, SegmentType

T = TypeVar("T")


@attrs.frozen
class Fault:
    """A fault in an answer, and the JSON path to the fault."""

    where: str
    what: str


def export_to_json(value: Export | Segment) -> dict[str, Any]:
    """An export in the vendor's form, without the fields that are None."""
    return {
        _camel(a.name): _to_json(inner)
        for a in attrs.fields(type(value))
        if (inner := getattr(value, a.name)) is not None
    }


def _to_json(value: str | datetime | Segment) -> Any:
    if isinstance(value, Segment):
        return export_to_json(value)
    return value.isoformat() if isinstance(value, datetime) else value


def export_from_json(value: Any) -> Export:
    """Read what :func:`export_to_json` wrote; ValueError, with a JSON path, for anything else."""
    try:
        return _own().structure(value, Export)
    except Exception as exc:
        where, what = _fault(exc, "$")
        raise ValueError(f"{what} at {where}") from exc


def structured(value: Any, shape: type[T], path: str) -> T | Fault:
    try:
        return _vendor.structure(value, shape)
    except Exception as exc:  # noqa: BLE001
        # cattrs lets the errors of its hooks through. Each of them means that the vendor's answer
        # doesn't have the form that the page describes.
        return Fault(*_fault(exc, path))


def _fault(exc: Exception, path: str) -> tuple[str, str]:
    """The JSON path and the description of the first fault in a cattrs error."""
    if not isinstance(exc, cattrs.BaseValidationError):
        what = "missing" if isinstance(exc, KeyError) else str(exc) or "of another shape"
        return path, what
    inner = exc.exceptions[0]
    for note in getattr(inner, "__notes__", ()):
        if isinstance(note, cattrs.IterableValidationNote):
            path = f"{path}[{note.index}]"
        elif isinstance(note, cattrs.AttributeValidationNote):
            path = f"{path}.{_camel(note.name)}"
    return _fault(inner, path)


class _Mismatch(Exception):
    """A value of another type or form than expected."""


def _string(value: object, _: object) -> str:
    if not isinstance(value, str):
        raise _Mismatch(f"expected a string, found {type(value).__name__}")
    return value


def _timestamp(value: object, _: object) -> datetime:
    """The page's ``2019-04-09T12:25:06.000Z``. Without an offset it is taken as UTC."""
    try:
        moment = datetime.fromisoformat(_string(value, None))
        if moment.tzinfo is UTC:
            return moment
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        # `from None`: the cause repeats the text, which may be a link in the wrong field.
        raise _Mismatch("expected a date and time") from None


def _nullable(hook: Callable[[object, object], T]) -> Callable[[object, object], T | None]:
    return lambda value, shape: None if value is None else hook(value, shape)


def _readable(hook: Callable[[object, object], T]) -> Callable[[object, object], T | None]:
    """The value; None if it can't be read, or is null."""

    def read(value: object, shape: object) -> T | None:
        try:
            return None if value is None else hook(value, shape)
        except _Mismatch:
            return None

    return read


def _readable_string(value: object, _: object) -> str | None:
    """As `_readable(_string)`, in one call: most of an answer's fields are such."""
    return value if isinstance(value, str) else None


def _open_enum(members: type[StrEnum]) -> Callable[[object, object], StrEnum | str]:
    """A known value, in whatever case, becomes the member; an unknown one stays a string."""
    known: dict[str, StrEnum] = {member.value.casefold(): member for member in members}

    def hook(value: object, _: object) -> StrEnum | str:
        text = _string(value, None)
        return known.get(text.strip().casefold(), text)

    return hook


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def _mapping_of(shape: type[Any], converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    """The structure function for a class whose attributes are in camelCase on the wire."""
    renamed = {a.name: override(rename=_camel(a.name)) for a in attrs.fields(shape)}
    structure: Any = make_dict_structure_fn(shape, converter, **renamed)  # type: ignore[arg-type]

    def hook(value: object, _: object) -> Any:
        if not isinstance(value, dict):
            raise _Mismatch(f"expected an object, found {type(value).__name__}")
        return structure(value, shape)

    return hook


def _make_converter(
    optional: Callable[[Callable[[object, object], Any]], Callable[[object, object], Any]],
    optional_string: Callable[[object, object], str | None],
) -> cattrs.Converter:
    """A converter of exports and segments; `optional` makes the hooks of optional fields."""
    converter = cattrs.Converter(detailed_validation=True)
    converter.register_structure_hook(str, _string)
    # cattrs' own hooks for optional values take two more calls for each value.
    converter.register_structure_hook(str | None, optional_string)
    converter.register_structure_hook(datetime | None, optional(_timestamp))
    converter.register_structure_hook(SegmentType | str | None, optional(_open_enum(SegmentType)))
    converter.register_structure_hook(ExportStatus | str, _open_enum(ExportStatus))
    converter.register_structure_hook(Segment, _mapping_of(Segment, converter))
    converter.register_structure_hook(Export, _mapping_of(Export, converter))
    return converter


#: For the vendor's answers: an optional field that can't be read is None.
_vendor = _make_converter(_readable, _readable_string)


@cache
def _own() -> cattrs.Converter:
    """The converter for texts of this library: a field that can't be read is an error.

    Made when it is first used, since a program without a journal doesn't use it.
    """
    return _make_converter(_nullable, _nullable(_string))
