"""A vendor that is away, as its answers say: few submits are unknown, none is repeated."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from client.vendor import connected, gaps
from segments_async import (
    APIStatusError,
    BulkReport,
    Completed,
    NotFoundError,
    Pacer,
    RateLimitedError,
    ServerError,
    SubmitUnknownError,
)
from segments_async.sandbox import PAGE_SEGMENT_ID, Durations, Fault, Sandbox, TokenBucket

pytestmark = pytest.mark.alternating

POST: dict[str, Any] = {"method": "POST"}

AWAY: Mapping[str, Fault] = {
    "503": Fault.status(503, body="maintenance"),
    "503 with Retry-After": Fault.status(503, headers={"retry-after": "5"}),
    "502": Fault.status(502, body="<html>"),
    "504": Fault.status(504),
    "522": Fault.status(522),
    "a login page": Fault.status(200, headers={"content-type": "text/html"}, body="<html>log in"),
    "nothing": Fault.status(204),
}
every_way = pytest.mark.parametrize("fault", AWAY.values(), ids=AWAY)


def unknown(report: BulkReport[Any]) -> list[str]:
    """The segments whose exports may be running, by the report."""
    return [o.segment_id for o in report.not_exported if o.submitted == "maybe"]


def repeated(sandbox: Sandbox) -> list[str | None]:
    """Segments whose POST was repeated although the vendor may have acted on it."""
    not_done = (404, 408, 410, 421, 425, 429)
    posts = Counter(e.segment_id for e in sandbox.record.submits() if e.status not in not_done)
    return [segment_id for segment_id, count in posts.items() if count > 1]


def on_the_wire(sandbox: Sandbox, at: float) -> int:
    """Submits sent before a time and not answered by then."""
    return sum(e.at - at < 0.1 and (e.ended_at or math.inf) >= at for e in sandbox.record.submits())


@every_way
async def test_four_seconds_at_the_beginning_cost_a_few_segments(fault: Fault) -> None:
    """Of 80 segments only the few that showed the outage are unknown; the others are exported."""
    sandbox = Sandbox(segments=80, latency=0.05)
    sandbox.inject(fault, until=4.0)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, None)
    assert len(unknown(report)) <= 5
    assert len(report.exported) == 80 - len(unknown(report))
    assert repeated(sandbox) == []


@every_way
async def test_five_minutes_in_mid_run_cost_no_more(fault: Fault) -> None:
    """At most five submits are unknown besides those on the wire; none is repeated."""
    sandbox = Sandbox(segments=120, latency=0.1, limit=TokenBucket(20, 40))
    sandbox.inject(fault, since=5.0, until=305.0)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, None)
    assert len(unknown(report)) <= 5 + on_the_wire(sandbox, 5.0)
    assert len(report.exported) == 120 - len(unknown(report))
    assert repeated(sandbox) == []


@pytest.mark.parametrize(
    "way",
    ["503", pytest.param("503 with Retry-After", marks=pytest.mark.whole), "a login page"],
)
async def test_submits_alone_are_refused_one_at_a_time(way: str) -> None:
    """While polls pass, each probe is one unknown export; gaps double up to 5 minutes."""
    fault = AWAY[way]
    sandbox = Sandbox(segments=30, latency=0.1, durations=Durations(median=3000, sigma=0.1))
    sandbox.inject(fault, **POST, since=1.0, until=3600.0)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, None)
    met = [e for e in sandbox.record.submits() if 1.0 <= e.at < 3600.0]
    apart = [gap for gap in gaps(met) if gap > 1.5]
    assert len(met) <= 5 + len(apart)
    assert all(later >= 0.9 * min(gap, 300) for gap, later in itertools.pairwise(apart))
    assert len(apart) <= 20
    assert 300 <= max(apart) <= 310
    assert sorted(unknown(report)) == sorted(str(e.segment_id) for e in met)
    assert len(report.exported) == 30 - len(met)


async def test_a_retry_after_is_heeded() -> None:
    """One 503 with a Retry-After of 20 s delays all requests for 20 s."""
    sandbox = Sandbox(segments=40, latency=0.1)
    sandbox.inject(Fault.status(503, headers={"retry-after": "20"}), since=2.0, until=12.0)
    async with connected(sandbox) as client:
        await client.bulk_export(sandbox.segment_ids, None)
    first = next(e for e in sandbox.record.api() if e.status == 503)
    assert first.ended_at is not None
    after = [e.at for e in sandbox.record.api() if e.at > first.ended_at + 0.1]
    assert after[0] >= first.ended_at + 20


async def test_the_probe_is_harmless() -> None:
    """While the vendor is away, a list or a status is the probe; no POST goes."""
    sandbox = Sandbox(segments=20, latency=0.1)
    sandbox.inject(AWAY["503"], until=60.0)
    async with connected(sandbox) as client:
        await client.bulk_export(sandbox.segment_ids, None)
    probes = [e for e in sandbox.record.api() if 1.0 < e.at < 60.0]
    assert probes
    assert {e.kind for e in probes} == {"list"}
    assert len(probes) <= 12


async def test_a_vendor_that_is_back_is_used_at_once() -> None:
    """After five minutes away, the run goes on within one pause, at its earlier pace."""
    sandbox = Sandbox(segments=200, latency=0.1, limit=TokenBucket(20, 40))
    sandbox.inject(AWAY["503"], since=5.0, until=305.0)
    async with connected(sandbox) as client:
        began = anyio.current_time()
        await client.bulk_export(sandbox.segment_ids, None)
        took = anyio.current_time() - began
    sandbox = Sandbox(segments=200, latency=0.1, limit=TokenBucket(20, 40))
    async with connected(sandbox) as client:
        began = anyio.current_time()
        await client.bulk_export(sandbox.segment_ids, None)
        undisturbed = anyio.current_time() - began
    assert took <= undisturbed + 300 + 31 + 10


async def test_an_answer_of_a_gateway_makes_nobody_faster() -> None:
    """503s don't count as granted: the rate stays as it was before them."""
    sandbox = Sandbox(segments=30, latency=0.1)
    sandbox.inject(AWAY["503"], until=120.0)
    pacer = Pacer()
    async with connected(sandbox, pacer=pacer) as client, client.open_bulk_export(
        sandbox.segment_ids, None
    ):  # fmt: skip
        await anyio.sleep(100)
        assert pacer.rate is not None
        assert pacer.rate <= 11


async def test_what_waits_is_given_back_after_ten_minutes() -> None:
    """A vendor that is away for hours ends the run: unsent submits are resumable."""
    sandbox = Sandbox(segments=500, latency=0.1)
    sandbox.inject(AWAY["503"], until=7200.0)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, None)
        assert 600 <= anyio.current_time() <= 700
    waiting = [o for o in report.not_exported if o.submitted == "no"]
    assert len(waiting) >= 495
    assert all(o.resumable and isinstance(o.error, ServerError) for o in waiting)


async def test_one_answer_of_a_gateway_holds_nobody() -> None:
    """A 502 now and then affects its own segment, and delays no other."""
    sandbox = Sandbox(segments=100, latency=0.1, limit=TokenBucket(50, 100))
    for skip in (5, 30, 60):
        sandbox.inject(AWAY["502"], **POST, skip=skip)
    async with connected(sandbox) as client:
        began = anyio.current_time()
        report = await client.bulk_export(sandbox.segment_ids, None)
        took = anyio.current_time() - began
    assert len(unknown(report)) == 3
    assert took <= max(sandbox.duration(s) for s in sandbox.segment_ids) + 10


async def test_a_502_is_told_as_what_it_is() -> None:
    """The error says that a gateway answered, and not that the answer was lost."""
    sandbox = Sandbox()
    sandbox.inject(AWAY["502"], **POST)
    async with connected(sandbox) as client:
        with pytest.raises(SubmitUnknownError, match="answered 502, not by the vendor itself"):
            await client.request_export(PAGE_SEGMENT_ID)


PROBES: Mapping[str, Fault] = {
    **AWAY,
    **{str(code): Fault.status(code) for code in (400, 404, 408, 409, 421, 425, 429, 500, 599)},
    "429 with Retry-After": Fault.status(429, headers={"retry-after": "7"}),
    "never left": Fault.UNREACHABLE,
    "lost": Fault.LOST_AFTER,
    "cut": Fault.cut(20),
    "late": Fault.slow(100.0),
    "no id": Fault.fields(exportId=None),
    "an odd id": Fault.fields(exportId="a/b"),
}


@pytest.mark.parametrize("fault", PROBES.values(), ids=PROBES)
async def test_whatever_becomes_of_the_submit_that_goes_alone_others_follow(fault: Fault) -> None:
    """After the single submit of a hold, with any result, another submit follows."""
    sandbox = Sandbox(segments=12, latency=0.1)
    sandbox.inject(Fault.LOST_AFTER, **POST, times=3)
    sandbox.inject(fault, **POST, times=2)
    async with connected(sandbox, poll_share=1.0) as client:
        report = await client.bulk_export(sandbox.segment_ids, None)
        assert anyio.current_time() < 1000
    assert len(report.exported) >= 12 - 3 - 3
    assert repeated(sandbox) == []


async def test_the_id_of_another_segments_export_is_none() -> None:
    """An id that two POSTs are answered with is one segment's: the other has none."""
    sandbox = Sandbox(segments=2, durations=Durations(median=60, sigma=0))
    first, second = sandbox.segment_ids
    mixed = Fault.fields(exportId=sandbox.export_id(first), segment=None)
    sandbox.inject(mixed, **POST, segment_id=second)
    async with connected(sandbox) as client:
        report = await client.bulk_export([first, second], None)
    (outcome,) = report.not_exported
    assert outcome.segment_id == second
    assert isinstance(outcome.error, SubmitUnknownError)


# --------------------------------------------------------------------- redirects


@pytest.mark.parametrize(
    ("status", "submitted"), [(301, "no"), (302, "maybe"), (307, "no"), (308, "no")]
)
async def test_a_redirect_ends_the_run_and_names_the_host(
    status: int, submitted: str, tmp_path: Path
) -> None:
    """A redirect is about `base_url`: it ends the run, and the next session submits the rest."""
    sandbox = Sandbox(segments=30, latency=0.1)
    headers = {"location": "https://elsewhere.example/service/v1/segments/export/?token=s3cret"}
    sandbox.inject(Fault.status(status, headers=headers), **POST, until=1000.0)
    options: dict[str, Any] = {"journal": tmp_path / "runs.db", "run": "night"}
    async with connected(sandbox) as client:
        with pytest.raises(APIStatusError, match=r"elsewhere\.example.*base_url") as caught:
            await client.bulk_export(sandbox.segment_ids, None, **options)
    assert "s3cret" not in str(caught.value)
    met = {e.segment_id for e in sandbox.record.submits()}
    assert len(met) <= 3
    await anyio.sleep(1000)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, None, **options)
    lost = met if submitted == "maybe" else set()
    assert {o.segment_id for o in report.not_exported} == lost
    assert len(report.exported) == 30 - len(lost)


# --------------------------------------------------------------------- refusals that pass


@pytest.mark.parametrize("status", [408, 421, 425, 429])
async def test_not_now_is_tried_again(status: int) -> None:
    """After 408, 421, 425 and 429 the POST goes again: the vendor did nothing."""
    sandbox = Sandbox(segments=3, latency=0.1)
    sandbox.inject(Fault.status(status), **POST, times=4)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, None)
    assert report.ok
    assert sandbox.record.duplicates() == {}


@pytest.mark.parametrize("status", [408, 425, 429])
async def test_a_list_is_tried_again(status: int) -> None:
    """A list that is answered 408, 421, 425 or 429 goes again."""
    sandbox = Sandbox(segments=3)
    sandbox.inject(Fault.status(status), times=2)
    async with connected(sandbox) as client:
        assert len(await client.list_segments()) == 3


@pytest.mark.parametrize("status", [400, 402, 409, 413, 422, 451])
@pytest.mark.parametrize("run", [None, "night"])
async def test_a_refused_segment_is_asked_for_again_by_the_next_session(
    status: int, run: str | None, tmp_path: Path
) -> None:
    """A refused POST is resumable: the next session submits again."""
    sandbox = Sandbox(segments=5)
    sandbox.inject(Fault.status(status), **POST, segment_id=sandbox.segment_ids[1])
    told: list[BulkReport[Completed]] = []
    for _ in range(2):
        async with connected(sandbox) as client:
            told.append(
                await client.bulk_export(
                    sandbox.segment_ids, None, journal=tmp_path / "runs.db", run=run
                )
            )
    (outcome,) = told[0].not_exported
    assert (outcome.submitted, outcome.resumable) == ("no", True)
    assert len(told[1].exported) == 5
    assert sandbox.record.duplicates() == {}


async def test_a_segment_that_alone_is_refused_ends_by_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A POST that always gets a 429 is given up within minutes, with a warning."""
    sandbox = Sandbox(segments=60, latency=0.1)
    alone = sandbox.segment_ids[7]
    sandbox.inject(Fault.status(429), **POST, segment_id=alone, times=math.inf)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, None)
        assert anyio.current_time() < 1200
    (outcome,) = report.not_exported
    assert outcome.segment_id == alone
    assert isinstance(outcome.error, RateLimitedError)
    assert (outcome.submitted, outcome.resumable) == ("no", True)
    assert len(sandbox.record.submits(alone)) <= 60
    assert any("refused while others pass" in r.getMessage() for r in caplog.records)


async def test_a_limit_that_refuses_all_gives_up_nobody() -> None:
    """In an hour of 429s to every request, no segment is given up."""
    sandbox = Sandbox(segments=5, latency=0.1)
    sandbox.inject(Fault.status(429), until=3600.0)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, None)
        assert anyio.current_time() >= 3600
    assert report.ok


# --------------------------------------------------------------------- a gateway without a route


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize(
    "way", [{}, {"method": "GET", "path": "export/."}, {"path": "(list|export/)$"}],
    ids=["all", "polls", "lists and submits"],
)  # fmt: skip
async def test_half_a_minute_of_404_is_no_missing_segment(status: int, way: dict[str, Any]) -> None:
    """A gateway that has no route to the API for 30 s costs two segments at most, and no export.

    The first two 404s in a row are believed: they may be about their segments.
    """
    sandbox = Sandbox(
        segments=60, durations=Durations(10.0, 0.3, 30.0), limit=TokenBucket(20, 20), latency=0.1
    )
    sandbox.inject(Fault.status(status, body="no route"), since=2.0, until=32.0, **way)
    async with connected(sandbox, pacer=Pacer(rate=15)) as client:
        report = await client.bulk_export(sandbox.segment_ids, None)
        assert anyio.current_time() < 120
    assert len(report.exported) >= 58
    assert {outcome.submitted for outcome in report.not_exported} <= {"no"}
    assert sandbox.record.duplicates() == {}


@pytest.mark.parametrize("status", [404, 405, 410])
async def test_submits_without_a_route_cost_two_segments_though_lists_have_one(status: int) -> None:
    """Where the list shows the segments, their 404s are not about them; nor is any 405.

    The first two 404s in a row are believed.
    """
    sandbox = Sandbox(segments=40, durations=Durations(10.0), limit=TokenBucket(20, 20))
    sandbox.inject(Fault.status(status), since=1.0, until=31.0, **POST)
    async with connected(sandbox, pacer=Pacer(rate=15)) as client:
        report = await client.bulk_export(sandbox.segment_ids, None)
        assert anyio.current_time() < 90
    assert len(report.exported) >= (40 if status == 405 else 38)
    assert sum(entry.status == status for entry in sandbox.record.submits()) <= 15
    assert len(sandbox.record.lists()) <= 8
    assert sandbox.record.duplicates() == {}


async def test_a_list_that_is_encoded_twice_shows_its_segments() -> None:
    """While submits have no route, a list in a string tells, too, that the segments exist."""
    sandbox = Sandbox(segments=40, durations=Durations(10.0), limit=TokenBucket(20, 20))
    sandbox.inject(Fault.status(404), since=1.0, until=31.0, **POST)
    twice = Fault.changed(lambda body: json.dumps(body.decode()).encode())
    sandbox.inject(twice, path="list", times=1000)
    async with connected(sandbox, pacer=Pacer(rate=15)) as client:
        report = await client.bulk_export(sandbox.segment_ids, None)
    assert len(report.exported) >= 38


@pytest.mark.parametrize("get", ["503", "a login page"])
async def test_a_maintenance_page_that_takes_no_post_costs_no_segment(get: str) -> None:
    """A web server answers 405 to a POST of the path of its static page, and no vendor does."""
    sandbox = Sandbox(segments=40, durations=Durations(10.0), limit=TokenBucket(20, 20))
    sandbox.inject(Fault.status(405, body="<html>Not Allowed"), since=1.0, until=31.0, **POST)
    sandbox.inject(AWAY[get], since=1.0, until=31.0, method="GET")
    async with connected(sandbox, pacer=Pacer(rate=15)) as client:
        report = await client.bulk_export(sandbox.segment_ids, None)
    assert report.ok
    assert sum(entry.status == 405 for entry in sandbox.record.submits()) <= 5


async def test_a_server_that_never_takes_submits_ends_the_run(tmp_path: Path) -> None:
    """After ten minutes all segments are resumable, and the next session exports them."""
    sandbox = Sandbox(segments=20)
    sandbox.inject(Fault.status(405), until=900.0, **POST)
    journal: dict[str, Any] = {"journal": tmp_path / "runs.db", "run": "night"}
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, None, **journal)
        assert 600 < anyio.current_time() < 700
    assert {(o.submitted, o.resumable) for o in report.not_exported} == {("no", True)}
    assert len(sandbox.record.submits()) <= 30
    await anyio.sleep(300)
    async with connected(sandbox) as client:
        assert (await client.bulk_export(sandbox.segment_ids, None, **journal)).ok


async def test_a_single_segment_waits_as_long_for_a_route_as_many_do() -> None:
    """No other request passes: its 405s aren't taken for refusals of this segment alone."""
    sandbox = Sandbox(segments=1)
    sandbox.inject(Fault.status(405), until=500.0, **POST)
    async with connected(sandbox) as client:
        assert (await client.bulk_export(sandbox.segment_ids, None)).ok


async def test_a_429_after_ten_minutes_without_a_route_gives_up_nothing() -> None:
    """The API itself answers again: what waits for its turn is exported."""
    sandbox = Sandbox(segments=5)
    sandbox.inject(Fault.status(405), until=610.0, **POST)
    sandbox.inject(Fault.status(429), since=610.0, until=650.0, **POST)
    async with connected(sandbox) as client:
        assert (await client.bulk_export(sandbox.segment_ids, None)).ok
    assert 429 in {entry.status for entry in sandbox.record.submits()}


async def test_an_idle_hour_is_no_hour_without_a_route() -> None:
    """A client that met 405 an hour ago gives up no run at the first 405 that it meets again."""
    sandbox = Sandbox(segments=5)
    sandbox.inject(Fault.status(405), until=20.0, **POST)
    sandbox.inject(Fault.status(405), since=3600.0, until=3640.0, **POST)
    async with connected(sandbox) as client:
        await client.bulk_export(sandbox.segment_ids, None, timeout=15.0)
        await anyio.sleep(3600.0)
        assert (await client.bulk_export(sandbox.segment_ids, None)).ok


async def test_listed_segments_that_cant_be_exported_end_alone() -> None:
    """Where other submits are accepted, a 404 to a segment of the list is believed."""
    sandbox = Sandbox(segments=20, latency=0.1)
    missing = sandbox.segment_ids[:5]
    for segment_id in missing:
        sandbox.inject(Fault.status(404), **POST, segment_id=segment_id, times=math.inf)
    longest = dict.fromkeys(missing, 3600.0)
    async with connected(sandbox, pacer=Pacer(rate=10)) as client:
        report = await client.bulk_export(sandbox.segment_ids, None, expected_seconds=longest)
        assert anyio.current_time() < 60
    assert {outcome.segment_id for outcome in report.not_exported} == set(missing)
    assert {outcome.resumable for outcome in report.not_exported} == {False}
    assert len(sandbox.record.submits()) <= 20 + 2 * len(missing)


async def test_answers_that_are_late_hide_no_lost_route() -> None:
    """Accepted submits that were sent before the route was lost say nothing about later 404s."""
    sandbox = Sandbox(segments=100, durations=Durations(10.0), limit=TokenBucket(40, 40))
    sandbox.inject(Fault.slow(1.5), until=1.0, times=math.inf, **POST)
    sandbox.inject(Fault.status(404, body="no route"), since=1.0, until=31.0)
    async with connected(sandbox, pacer=Pacer(rate=30)) as client:
        report = await client.bulk_export(sandbox.segment_ids, None)
    assert len(report.exported) >= 98
    assert sandbox.record.duplicates() == {}


async def test_a_route_that_is_lost_by_and_by_costs_no_export() -> None:
    """Polls of half of the exports had 404 for seconds before those of all exports have it."""
    sandbox = Sandbox(segments=40, durations=Durations(60.0), limit=TokenBucket(20, 20))
    for segment_id in sandbox.segment_ids[::2]:
        export_id = sandbox.export_id(segment_id)
        sandbox.inject(Fault.status(404), until=8.0, method="GET", path=export_id)
    sandbox.inject(Fault.status(404), since=8.0, until=38.0, method="GET", path="export/.")
    async with connected(sandbox, pacer=Pacer(rate=15)) as client:
        report = await client.bulk_export(sandbox.segment_ids, None)
    assert report.ok


async def test_no_404_is_believed_in_an_outage() -> None:
    """A submit that is tried though all lists fail is sent again after a 404."""
    sandbox = Sandbox(segments=5)
    sandbox.inject(Fault.status(503), times=2, **POST)
    sandbox.inject(Fault.status(503), until=300.0, path="list$")
    sandbox.inject(Fault.status(404), until=300.0, **POST)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, None)
    assert 404 in {entry.status for entry in sandbox.record.submits()}
    assert len(report.exported) == 3
    assert len(unknown(report)) == 2
    assert repeated(sandbox) == []


async def test_a_segment_that_isnt_there_costs_one_post() -> None:
    """After the third 404 in a row, a list shows that the API is there, before the second POST."""
    sandbox = Sandbox(segments=3)
    missing = [f"no-such-segment-{number}" for number in range(3)]
    async with connected(sandbox) as client:
        report = await client.bulk_export(missing, None)
        assert anyio.current_time() < 10
    for outcome in report.not_exported:
        assert isinstance(outcome.error, NotFoundError)
        assert (outcome.submitted, outcome.resumable) == ("no", False)
    kinds = [entry.kind for entry in sandbox.record.api()]
    assert kinds == ["submit", "submit", "submit", "list", "submit"]


async def test_segments_that_arent_there_need_no_list_while_others_are_accepted() -> None:
    """An accepted submit shows as well as a list that the API is there."""
    sandbox = Sandbox(segments=30, latency=0.1)
    missing = [f"no-such-segment-{number}" for number in range(10)]
    async with connected(sandbox, pacer=Pacer(rate=15)) as client:
        report = await client.bulk_export([*missing, *sandbox.segment_ids], None)
    assert len(report.exported) == 30
    assert {outcome.segment_id for outcome in report.not_exported} == set(missing)
    assert len(sandbox.record.lists()) <= 10
    assert len(sandbox.record.submits()) <= 30 + 2 * len(missing)


async def test_an_export_that_the_vendor_forgets_ends_alone(tmp_path: Path) -> None:
    """404s to the polls of one export end it within minutes, while other exports have a status."""
    sandbox = Sandbox(segments=5, durations=Durations(300.0, 0.0))
    forgotten = sandbox.export_id(sandbox.segment_ids[2])
    sandbox.inject(Fault.status(404), method="GET", path=forgotten, times=math.inf)
    async with connected(sandbox) as client:
        report = await client.bulk_export(
            sandbox.segment_ids, None, journal=tmp_path / "runs.db", timeout=200
        )
    [ended] = [o for o in report.not_exported if isinstance(o.error, NotFoundError)]
    assert (ended.segment_id, ended.resumable) == (sandbox.segment_ids[2], False)


# --------------------------------------------------------------------- a list that shows nothing


BROKEN_LISTS: Mapping[str, Fault] = {
    "a coding that isn't read": Fault.status(200, headers={"content-encoding": "br"}, body="?"),
    "always 504": Fault.status(504),
    "a page": Fault.status(200, body="<html>"),
    "not JSON": Fault.status(200, body="user_id\n1\n"),
    "without an answer": Fault.LOST_AFTER,
    "cut": Fault.cut(20),
    "too slow": Fault.slow(100.0),
    "not allowed": Fault.status(403),
    "not there": Fault.status(404),
}


@pytest.mark.parametrize("fault", BROKEN_LISTS.values(), ids=BROKEN_LISTS)
async def test_a_list_that_never_works_ends_no_run(fault: Fault) -> None:
    """After four seconds of 503 the run submits again, though each probe of the list fails."""
    sandbox = Sandbox(segments=20, latency=0.05)
    sandbox.inject(AWAY["503"], **POST, until=4.0)
    sandbox.inject(fault, path="list", times=math.inf)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, None)
        assert anyio.current_time() < 400
    assert len(report.exported) >= 17
    assert repeated(sandbox) == []
    assert sum(e.kind == "list" for e in sandbox.record.api()) <= 20


async def test_a_suspected_submit_is_given_up_though_no_list_can_be_read() -> None:
    """A list in an unreadable coding shows that the vendor is there: the POST is sent again."""
    sandbox = Sandbox(segments=10, latency=0.1)
    alone = sandbox.segment_ids[3]
    sandbox.inject(Fault.status(429), **POST, segment_id=alone, times=math.inf)
    sandbox.inject(BROKEN_LISTS["a coding that isn't read"], path="list", times=math.inf)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, None)
        assert anyio.current_time() < 1200
    assert [o.segment_id for o in report.not_exported] == [alone]
