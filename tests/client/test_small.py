"""Time limits of single calls, refusals in a sentence, short reprs, and the vendor's notices."""

from __future__ import annotations

import inspect
import logging
from pathlib import Path
from typing import Any

import anyio
import pytest

from client.vendor import STEADY, connected
from segments_async import (
    APIConnectionError,
    APITimeoutError,
    ConfigurationError,
    HeldReason,
    NotExported,
    Pacer,
    SegmentsClient,
)
from segments_async.sandbox import (
    PAGE_ACCESS_TOKEN,
    PAGE_API_KEY,
    PAGE_EXPORT_ID,
    Fault,
    Sandbox,
)

pytestmark = pytest.mark.alternating

# --------------------------------------------------------------------- time limits


async def test_a_list_that_is_held_ends_in_time() -> None:
    """In the minute after a 500 a list ends after its timeout, and sends nothing more."""
    sandbox = Sandbox()
    sandbox.inject(Fault.status(500), path="/list")
    async with connected(sandbox) as client:
        before = anyio.current_time()
        with pytest.raises(APITimeoutError, match=r"no answer within 5 s.*`held`") as caught:
            await client.list_segments(timeout=5)
        assert anyio.current_time() - before == pytest.approx(5)
        assert client.held is not None, "as the error's text says"
        assert client.held.reason is HeldReason.TICKET_GUARD
        await anyio.sleep(100)
        assert client.held is None
    assert len(sandbox.record.lists()) == 1
    assert (caught.value.seconds, caught.value.path) == (5, "/service/v1/segments/list")
    assert caught.value.sent, "the list that got the 500 was sent"
    assert isinstance(caught.value, APIConnectionError)


async def test_a_list_that_never_got_its_turn_was_not_sent() -> None:
    """A list that waits for another call's ticket guard is known not to have been sent."""
    sandbox = Sandbox()
    sandbox.inject(Fault.status(500), method="GET", path="/export/")
    async with connected(sandbox) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.get_export, PAGE_EXPORT_ID)
        await anyio.sleep(1)
        with pytest.raises(APITimeoutError) as caught:
            await client.list_segments(timeout=5)
        assert not caught.value.sent
        assert sandbox.record.lists() == []


@pytest.mark.parametrize("fault", [Fault.status(503), Fault.UNREACHABLE], ids=["503", "refused"])
async def test_a_list_with_a_time_outlives_an_outage(fault: Fault) -> None:
    """With a timeout a list is tried as long as the vendor is away, and no longer than that."""
    sandbox = Sandbox()
    sandbox.inject(fault, since=0, until=90)
    async with connected(sandbox) as client:
        assert len(await client.list_segments(timeout=600)) == 1
        assert anyio.current_time() >= 90
    assert len(sandbox.record.lists()) < 20
    sandbox = Sandbox()
    sandbox.inject(fault, times=10_000)
    async with connected(sandbox) as client:
        with pytest.raises(APITimeoutError):
            await client.list_segments(timeout=120)
    assert len(sandbox.record.lists()) < 30


async def test_a_status_that_is_slow_ends_in_time() -> None:
    """A status whose answer doesn't come ends after its timeout."""
    sandbox = Sandbox()
    async with connected(sandbox) as client:
        export = await client.request_export(sandbox.segment_ids[0])
        sandbox.inject(Fault.slow(20), method="GET")
        with pytest.raises(APITimeoutError, match="within 2 s"):
            await client.get_export(export, timeout=2)
        assert (await client.get_export(export, timeout=2)).export_id == export.export_id


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
async def test_a_time_limit_is_above_zero(timeout: float) -> None:
    """A timeout of zero or less is refused, and nothing is sent."""
    sandbox = Sandbox()
    async with connected(sandbox) as client:
        for call in (client.list_segments, lambda **k: client.get_export("an-export", **k)):
            with pytest.raises(ConfigurationError, match="timeout"):
                await call(timeout=timeout)
    assert len(sandbox.record) == 0


async def test_a_callers_own_scope_is_not_a_timeout() -> None:
    """A cancellation from outside stays a cancellation."""
    sandbox = Sandbox()
    sandbox.inject(Fault.slow(60))
    async with connected(sandbox) as client:
        with anyio.move_on_after(1) as scope:
            await client.list_segments(timeout=30)
        assert scope.cancelled_caught


# --------------------------------------------------------------------- refusals and names


async def test_a_run_is_entered_once(tmp_path: Path) -> None:
    """A run that is entered a second time would export everything again; it is refused."""
    sandbox = Sandbox(durations=STEADY)
    async with connected(sandbox) as client:
        run = client.open_bulk_export(sandbox.segment_ids, tmp_path)
        async with run:
            await run.report()
        with pytest.raises(ConfigurationError, match="entered once"):
            async with run:
                pass
    assert len(sandbox.record.submits()) == 1


async def test_only_changed_with_ids_is_refused(tmp_path: Path) -> None:
    """An id doesn't say when its segment last ran; every night would export all of them."""
    sandbox = Sandbox(segments=3)
    async with connected(sandbox) as client:
        segments: list[Any] = await client.list_segments()
        segments[1] = segments[1].segment_id
        with pytest.raises(ConfigurationError, match=r"1 of the segments are bare ids, the first"):
            await client.bulk_export(
                segments, tmp_path, journal=tmp_path / "runs.db", only_changed=True
            )
    assert sandbox.record.submits() == []


async def test_a_segment_that_was_not_exported_has_its_name(tmp_path: Path) -> None:
    """The name is there although the vendor refused the POST, and there is no export."""
    sandbox = Sandbox(segments=2, durations=STEADY)
    sandbox.inject(Fault.status(404), segment_id=sandbox.segment_ids[1], method="POST")
    async with connected(sandbox) as client:
        segments = await client.list_segments()
        report = await client.bulk_export(segments, tmp_path)
    (missing,) = report.not_exported
    assert isinstance(missing, NotExported)
    assert (missing.export, missing.name) == (None, segments[1].name)


def test_from_env_shows_its_keywords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each keyword of the constructor is one of `from_env`, and a misspelt one is refused."""
    made, given = inspect.signature(SegmentsClient), inspect.signature(SegmentsClient.from_env)
    assert list(given.parameters) == list(made.parameters)[2:]
    monkeypatch.setenv("SEGMENTS_API_KEY", "key")
    monkeypatch.setenv("SEGMENTS_ACCESS_TOKEN", "token")
    misspelt: dict[str, Any] = {"download": 4}
    with pytest.raises(TypeError, match="download"):
        SegmentsClient.from_env(**misspelt)


async def test_reprs_are_short_and_have_no_secret(tmp_path: Path) -> None:
    """A client, a pacer, a run, a body: less than 200 characters each, and no secret."""
    sandbox = Sandbox(segments=3, rows=1, durations=STEADY)
    pacer = Pacer()
    shown = [repr(pacer)]
    async with connected(sandbox, pacer=pacer) as client:
        run = client.open_bulk_export(sandbox.segment_ids, tmp_path)
        shown += [repr(client), repr(run)]
        async with run:
            await anyio.sleep(1)
            shown += [repr(run), repr(client)]
            report = await run.report()
        shown += [repr(run), repr(report)]
        async with client.open_export(report.exported[0].export) as body:
            shown.append(repr(body))
    assert "3 of 3 segments have ended" in shown[5]
    for text in shown:
        assert len(text) < 200
        assert text.startswith("<")
        for secret in (PAGE_API_KEY, PAGE_ACCESS_TOKEN, "Signature", "amazonaws"):
            assert secret not in text


# --------------------------------------------------------------------- the vendor's notices

NOTICES = {
    "both": (
        {"deprecation": "@1782864000", "sunset": "Fri, 01 Jan 2027 00:00:00 GMT"},
        "is deprecated since 2026-07-01 and will stop answering on Fri, 01 Jan 2027 00:00:00 GMT",
    ),
    "true": ({"deprecation": "true"}, "is deprecated"),
    "a date": ({"deprecation": "Wed, 01 Jul 2026 00:00:00 GMT"}, "is deprecated since Wed, 01"),
    "sunset": ({"sunset": "Fri, 01 Jan 2027 00:00:00 GMT"}, "will stop answering on Fri"),
    "no number": ({"deprecation": "@soon"}, "is deprecated:"),
    "too large": ({"deprecation": "@9999999999999999"}, "is deprecated:"),
}


@pytest.mark.parametrize("notice", NOTICES)
async def test_a_notice_of_the_vendor_is_a_warning(
    notice: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A notice in every answer is one warning, which says what ends and when."""
    headers, said = NOTICES[notice]
    sandbox = Sandbox()
    sandbox.inject(Fault.status(200, headers=headers, body="[]"), path="/list", times=5)
    caplog.set_level(logging.WARNING)
    async with connected(sandbox) as client:
        for _ in range(5):
            await client.list_segments()
    (line,) = (r.getMessage() for r in caplog.records if "the vendor says that" in r.getMessage())
    assert said in line


async def test_notices_without_end_are_a_few_warnings(caplog: pytest.LogCaptureFixture) -> None:
    """A gateway that writes another date into every answer doesn't fill the log."""
    sandbox = Sandbox()
    for number in range(30):
        fault = Fault.status(200, headers={"sunset": f"in {number} days"}, body="[]")
        sandbox.inject(fault, path="/list")
    async with connected(sandbox) as client:
        for _ in range(30):
            await client.list_segments()
    assert 1 <= sum("the vendor says that" in r.getMessage() for r in caplog.records) <= 5
