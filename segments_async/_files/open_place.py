"""The place that a caller's `to` names: a directory, object storage, or the caller's own."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial

from segments_async._files.destination import Destination
from segments_async._files.directory import Directory, absolute, check_target, on_disk
from segments_async._files.places import Place
from segments_async._files.remote import RemotePlace
from segments_async._files.target import LocalTarget, Target
from segments_async._sansio.files.naming import scheme_of
from segments_async._sansio.files.urls import OBJECT_SCHEMES, check_location, object_place
from segments_async.errors import ConfigurationError, printable

To = str | os.PathLike[str] | Destination


def open_place(
    to: To, segments: Iterable[tuple[str, str | None]] = (), *, overwrite: bool = False
) -> Place:
    """The place for the files of these segments. Nothing is read or written yet.

    Raises:
        ConfigurationError: a URL that can't be one of a destination, or a missing extra.
    """
    if not isinstance(to, str | os.PathLike):
        return RemotePlace(_checked_destination(to), segments, overwrite=overwrite)
    if is_object_url(to):
        return RemotePlace(_object_storage(os.fspath(to)), segments, overwrite=overwrite)
    return Directory(to, segments, overwrite=overwrite)


def location_of(to: To) -> str:
    """The location by which a journal knows a place: an absolute path, or a URL.

    Raises:
        ConfigurationError: a URL that can't be one of a destination.
    """
    if not isinstance(to, str | os.PathLike):
        return check_location(_checked_destination(to).location)
    if is_object_url(to):
        return object_place(os.fspath(to)).location
    return str(absolute(to))


async def open_target(to: str | os.PathLike[str], *, overwrite: bool) -> Target:
    """The place of a single file, which was checked.

    Raises:
        ConfigurationError: the file can't be written, or is there.
        DestinationError: the object storage refuses it.
    """
    if not is_object_url(to):
        check = partial(check_target, to, overwrite=overwrite)
        return LocalTarget(await on_disk(to, check))
    url = object_place(os.fspath(to)).location
    directory, _, name = url.rpartition("/")
    if directory.endswith(":/") or os.fspath(to).endswith("/"):
        raise ConfigurationError(f"{printable(os.fspath(to))}: names no object for the file")
    place = RemotePlace(_object_storage(directory), (), overwrite=overwrite)
    named = place.with_names({name: name})
    for error in (await named.obstacles(())).values():
        raise error
    return named.target(name)


def is_object_url(to: str | os.PathLike[str]) -> bool:
    """Whether this names object storage: ``s3://``, ``gs://`` or ``az://``."""
    # A Path has merged the slashes of a URL, and so is none.
    return isinstance(to, str) and "://" in to and (scheme_of(to) or "").lower() in OBJECT_SCHEMES


def _checked_destination(to: object) -> Destination:
    if not isinstance(to, Destination):
        raise ConfigurationError(
            f"to: a {type(to).__name__} is no path, no URL, and no Destination. Nothing was sent"
        )
    return to


def _object_storage(url: str) -> Destination:
    # Not at the top: obstore is an extra.
    from segments_async._files.object_storage import ObjectStorage

    return ObjectStorage.at(object_place(url))
