"""The API as the page describes it."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from sandbox import printed
from sandbox.asking import EXPORT, LIST, get, headers, post, read
from segments_async.sandbox import (
    FREE_ACCESS_TOKEN,
    FREE_API_KEY,
    PAGE_API_KEY,
    PAGE_EXPORT_ID,
    PAGE_SEGMENT_ID,
    Durations,
    Sandbox,
    TokenBucket,
)


def test_list_is_the_pages_byte_for_byte() -> None:
    """With the default options the list answer is what the page prints."""
    assert get(Sandbox()).body == printed.LISTED.encode()


def test_finished_export_is_the_pages_byte_for_byte() -> None:
    """The page's export is there from the start, its s3:// link included."""
    assert get(Sandbox(), EXPORT + PAGE_EXPORT_ID).body == printed.CHECKED.encode()


def test_new_export_is_printed_as_the_page_prints_one() -> None:
    """A POST's answer differs from the page's in the id and the time alone."""
    sandbox = Sandbox(epoch=datetime(2019, 4, 9, 14, 45, 7, tzinfo=UTC))
    answer = post(sandbox, PAGE_SEGMENT_ID)
    export_id = sandbox.export_id(PAGE_SEGMENT_ID)
    assert answer.body == printed.REQUESTED.replace(PAGE_EXPORT_ID, export_id).encode()


def test_root_answers_200() -> None:
    """The page's first curl, of the bare host, "should have a 200 OK status"."""
    assert get(Sandbox(), "/").status == 200


def test_export_completes_when_its_duration_has_passed() -> None:
    """PENDING with nulls before, COMPLETE with endTime and a link from then on."""
    sandbox = Sandbox(durations=Durations(median=5.0, sigma=0))
    path = EXPORT + read(post(sandbox, now=1.5))["exportId"]
    before, after = read(get(sandbox, path, 6.49)), read(get(sandbox, path, 6.5))
    assert (before["status"], before["endTime"], before["filename"]) == ("PENDING", None, None)
    assert (after["status"], after["endTime"]) == ("COMPLETE", "2026-01-01T00:00:06.500Z")
    assert after["filename"].startswith(f"{sandbox.files_origin}/upload-bucket/path/to/")


def test_failed_export_ends_without_a_file() -> None:
    """FAILED has an endTime and a null filename."""
    sandbox = Sandbox(failed=1.0)
    export = read(get(sandbox, EXPORT + read(post(sandbox))["exportId"], 100.0))
    assert (export["status"], export["filename"]) == ("FAILED", None)
    assert export["endTime"] is not None


def test_second_export_of_a_segment_is_another() -> None:
    """POSTs aren't idempotent: each one begins an export."""
    sandbox = Sandbox()
    assert read(post(sandbox))["exportId"] != read(post(sandbox))["exportId"]
    assert sandbox.record.duplicates() == {PAGE_SEGMENT_ID: 2}


@pytest.mark.parametrize(
    "given",
    [{}, headers(password="wrong"), headers("", ""), {"authorization": "Bearer x"},
     {"authorization": "Basic ?"}, {"authorization": "Basic"}],
)  # fmt: skip
def test_strangers_get_401(given: dict[str, str]) -> None:
    """Wrong, malformed and missing credentials get a 401."""
    answer = Sandbox().answer("GET", LIST, given, b"", 0.0)
    assert answer.status == 401
    assert not answer.entry.authorized


def test_credentials_are_read_as_rfc_7617_writes_them() -> None:
    """The header's and the scheme's case don't matter."""
    value = headers()["authorization"].replace("Basic", "basic")
    assert Sandbox().answer("GET", LIST, {"Authorization": value}, b"", 0.0).status == 200


def test_account_without_the_plan_gets_403() -> None:
    """The Export API is "accessible only to Pro or Enterprise customers"."""
    given = headers(FREE_API_KEY, FREE_ACCESS_TOKEN)
    assert Sandbox().answer("GET", LIST, given, b"", 0.0).status == 403


def test_refused_requests_use_nothing_of_the_budget() -> None:
    """An unknown sender, or an account without the plan, can't use up the account's limit."""
    sandbox = Sandbox(limit=TokenBucket(rate=1, burst=1))
    for given in (headers(password="no"), headers(FREE_API_KEY, FREE_ACCESS_TOKEN)) * 5:
        sandbox.answer("GET", LIST, given, b"", 0.0)
    assert get(sandbox).status == 200
    assert get(sandbox).status == 429


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", LIST + "/", 404),
        ("GET", "/service/v1/segments", 404),
        ("POST", EXPORT.rstrip("/"), 404),
        ("GET", EXPORT + PAGE_EXPORT_ID + "/", 404),
        ("GET", EXPORT + "unknown", 404),
        ("GET", EXPORT, 405),
        ("POST", LIST, 405),
        ("HEAD", LIST, 405),
        ("DELETE", EXPORT + PAGE_EXPORT_ID, 405),
    ],
)
def test_only_the_exact_paths_and_methods_answer(method: str, path: str, status: int) -> None:
    """A slash too many or too few is another path."""
    assert Sandbox().answer(method, path, headers(), b"", 0.0).status == status


@pytest.mark.parametrize(
    ("body", "media_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"outputFormat": "csv"}', "application/json", 400),
        (b'{"segmentId": 7, "outputFormat": "csv"}', "application/json", 400),
        (b'{"segmentId": "%s"}' % PAGE_SEGMENT_ID.encode(), "application/json", 400),
        (b'{"segmentId": "x", "outputFormat": "parquet"}', "application/json", 400),
        (b'{"segmentId": "x", "outputFormat": "csv"}', "application/json", 404),
        (b'{"segmentId": "x", "outputFormat": "csv"}', "text/plain", 415),
        (b" " * (1 << 20) + b"{}", "application/json", 413),
    ],
)
def test_bad_posts_make_no_export(body: bytes, media_type: str, status: int) -> None:
    """Each malformed POST has its code, and JSON with the reason."""
    sandbox = Sandbox()
    given = {**headers(), "content-type": media_type}
    answer = sandbox.answer("POST", EXPORT, given, body, 0.0)
    assert answer.status == status
    assert "error" in read(answer)
    assert not answer.entry.acted
    assert not sandbox.record.exports_per_segment()


def test_media_type_may_have_parameters() -> None:
    """`application/json; charset=utf-8` is JSON too."""
    given = {**headers(), "content-type": "Application/JSON; charset=utf-8"}
    body = json.dumps({"segmentId": PAGE_SEGMENT_ID, "outputFormat": "CSV"}).encode()
    assert Sandbox().answer("POST", EXPORT, given, body, 0.0).status == 200


def test_throttled_answers_carry_no_header_as_on_the_page() -> None:
    """The page documents no header of a 429; by default there is none."""
    sandbox = Sandbox(limit=TokenBucket(rate=0.1))
    get(sandbox)
    answer = get(sandbox)
    assert answer.status == 429
    assert "retry-after" not in answer.headers


def test_retry_after_in_both_forms() -> None:
    """Retry-After has whole seconds, or the date of the first second with a token."""
    for form, expected in (("seconds", "10"), ("date", "Thu, 01 Jan 2026 00:00:11 GMT")):
        sandbox = Sandbox(limit=TokenBucket(rate=0.1), retry_after=form)  # type: ignore[arg-type]
        get(sandbox, now=0.5)
        assert get(sandbox, now=0.5).headers["retry-after"] == expected


def test_date_header_is_the_sandboxs_time() -> None:
    """The Date header is epoch plus now, without its fraction."""
    assert get(Sandbox(), now=61.9).headers["date"] == "Thu, 01 Jan 2026 00:01:01 GMT"


def test_pending_jobs_have_a_cap() -> None:
    """A POST beyond max_pending gets 429 until a job has ended."""
    sandbox = Sandbox(segments=3, max_pending=2, durations=Durations(median=5.0, sigma=0))
    statuses = [post(sandbox, s, float(n)).status for n, s in enumerate(sandbox.segment_ids)]
    assert statuses == [200, 200, 429]
    assert post(sandbox, sandbox.segment_ids[2], 5.0).status == 200


def test_same_seed_same_account() -> None:
    """Segments, export ids, durations and files are decided by the seed."""
    first, same, other = Sandbox(segments=50), Sandbox(segments=50), Sandbox(segments=50, seed=1)
    assert get(first).body == get(same).body != get(other).body
    one = first.segment_ids[7]
    assert first.sha256(one) == same.sha256(one) != other.sha256(one)
    assert first.export_id(one) == same.export_id(one) != first.export_id(one, attempt=1)
    assert first.duration(one) == same.duration(one) != other.duration(one)


def test_segments_have_the_pages_fields_and_the_worlds_variety() -> None:
    """Nulls where the page allows them, names that repeat, ids that don't."""
    segments = read(get(Sandbox(segments=500)))
    assert len({s["segmentId"] for s in segments}) == 500
    assert len({s["name"] for s in segments}) < 500
    assert {s["type"] for s in segments} == {"Static", "Dynamic"}
    assert {s["projectId"] for s in segments} == {PAGE_API_KEY}
    for nullable in ("description", "category", "lastRun"):
        assert 0 < sum(s[nullable] is None for s in segments) < 500
    assert any("/" in s["name"] for s in segments)
    assert any(not s["name"].isascii() for s in segments)


def test_an_account_may_be_empty() -> None:
    """`segments=0` lists none."""
    assert read(get(Sandbox(segments=0))) == []


def test_refreshed_segment_has_a_new_last_run() -> None:
    """`lastRun` is new in the list and in later exports; an earlier export keeps the old one."""
    sandbox = Sandbox()
    path = EXPORT + read(post(sandbox))["exportId"]
    sandbox.refresh(PAGE_SEGMENT_ID, 60.0)
    assert read(get(sandbox))[0]["lastRun"] == "2026-01-01T00:01:00.000Z"
    assert read(post(sandbox))["segment"]["lastRun"] == "2026-01-01T00:01:00.000Z"
    assert read(get(sandbox, path))["segment"]["lastRun"] == "2019-04-09T12:25:06.000Z"


@pytest.mark.parametrize(
    "options", [{"failed": 1.1}, {"lost_after": -0.1}, {"rows": -1}, {"segments": -1},
                {"internal_errors": 0.6, "gateway_errors": 0.6}],
)  # fmt: skip
def test_impossible_options_are_refused(options: dict[str, float]) -> None:
    """Shares beyond 1 and negative counts are refused."""
    with pytest.raises(ValueError, match=r"share|negative"):
        Sandbox(**options)  # type: ignore[arg-type]
