"""What errors of object storage mean, and how large the parts of an upload are."""

from __future__ import annotations

import pytest

from segments_async._sansio.files.destination_outage import DestinationOutage
from segments_async._sansio.files.objects import MIB, part_size, store_error
from segments_async._sansio.files.urls import object_place


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, 5), (70 * 1024 * MIB, 8), (200_000_000_000, 20), (5 * 1024**4, 530), (None, 16)],
)
def test_no_object_has_more_than_ten_thousand_parts(size: int | None, expected: int) -> None:
    """Parts grow with the object, so that 10 000 of them are enough."""
    assert part_size(size) == expected * MIB
    assert size is None or -(-size // part_size(size)) <= 10_000


def test_one_place_has_one_url() -> None:
    """A slash at the end, and the case of the scheme, make no other place; `%20` stays."""
    urls = {object_place(url).location for url in ("s3://b-1/p%20 q/", "S3://b-1/p%20 q")}
    assert urls == {"s3://b-1/p%20 q"}
    assert object_place("gs://b-1/").location == "gs://b-1"


def test_an_error_repeats_nothing_of_the_store() -> None:
    """The text of the store, which may have a signed URL, isn't part of the meaning."""
    text = (
        "Generic MicrosoftAzure error: Error performing PUT https://a.blob/x?sig=SECRET in 1ms - "
        "Server returned non-2xx status code: 403 Forbidden: <Code>AuthenticationFailed</Code>"
    )
    found = store_error("PermissionDeniedError", text)
    assert found.reason == "denied"
    assert "SECRET" not in found.text
    assert found.text.endswith("[403 AuthenticationFailed]")


def test_a_file_waits_for_its_destination_and_not_for_ever() -> None:
    """Six hours of outage; an error that isn't one, three times; a missing right, not at all."""
    outage = DestinationOutage()
    assert outage.pause("denied", 0.0, 1.0) is None
    assert outage.pause("away", 0.0, 1.0) is not None
    hours = [at for at in range(0, 8 * 3600, 600) if outage.pause("away", float(at), 1.0)]
    assert max(hours) == 6 * 3600
    fault = DestinationOutage()
    assert [fault.pause("broken", float(at), 0.5) is None for at in range(4)] == [False] * 3 + [
        True
    ]
