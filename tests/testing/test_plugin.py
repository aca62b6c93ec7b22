"""The pytest plugin, as a service's tests use it: in a pytest within this one."""

from __future__ import annotations

import subprocess
import sys

import pytest

# pytester forgets the modules that its pytest imported first. The package, which stays, would keep
# their classes, and the next pytest would have them twice.
import segments_async.testing.account
import segments_async.testing.clock
import segments_async.testing.loop  # noqa: F401

#: A service's code, which knows nothing of tests: it makes its own client.
SERVICE = """
import math
from segments_async import SegmentsClient

async def export_all(to):
    async with SegmentsClient.from_env() as client:
        return await client.bulk_export(await client.list_segments(), to)

async def export_with_its_own_credentials(to, **options):
    async with SegmentsClient("a key", "a token", **options) as client:
        return await client.bulk_export(await client.list_segments(), to)
"""

#: For each plugin that runs async tests: its options, and the mark of an async test.
RUNNERS = {
    "anyio-asyncio": ("anyio", "@pytest.fixture\ndef anyio_backend(): return 'asyncio'"),
    "anyio-trio": ("anyio", "@pytest.fixture\ndef anyio_backend(): return 'trio'"),
    "anyio-uvloop": (
        "anyio",
        "@pytest.fixture\ndef anyio_backend(): return 'asyncio', {'use_uvloop': True}",
    ),
    "pytest-asyncio": ("asyncio", ""),
}


@pytest.fixture(params=RUNNERS)
def runner(request: pytest.FixtureRequest) -> str:
    """A plugin that runs async tests."""
    return str(request.param)


def run(
    pytester: pytest.Pytester, runner: str, tests: str, *, marks: str = "", ini: str = ""
) -> pytest.RunResult:
    """Run these tests of the service in a pytest within this one."""
    mark, conftest = RUNNERS[runner]
    pytester.makeini(
        f"[pytest]\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n{ini}"
    )
    pytester.makeconftest(f"import pytest\n{conftest}")
    pytester.makepyfile(service=SERVICE)
    pytester.makepyfile(
        f"import anyio, time, pytest, service\npytestmark = [pytest.mark.{mark}{marks}]\n" + tests
    )
    # Each pytest imports its plugins anew, and schemathesis takes most of a second.
    unused = [f"-pno:{name}" for name in ("cacheprovider", "xdist", "schemathesis")]
    return pytester.runpytest_inprocess(*unused)


VIRTUAL = ", pytest.mark.segments_virtual_time"


def test_clients_made_deep_inside_are_answered(pytester: pytest.Pytester, runner: str) -> None:
    """Clients of the environment, and those with credentials of their own, reach the account."""
    tests = """
@pytest.mark.segments_sandbox(segments=5)
@pytest.mark.parametrize("export", [service.export_all, service.export_with_its_own_credentials])
async def test_export(export, segments_sandbox, tmp_path):
    report = await export(tmp_path)
    assert report.ok and len(report.exported) == 5
    assert len(segments_sandbox.record.submits()) == 5
    for outcome in report.exported:
        assert outcome.file.path.read_bytes() == segments_sandbox.content(outcome)
"""
    run(pytester, runner, tests, marks=VIRTUAL).assert_outcomes(passed=2)


@pytest.mark.parametrize("runner", ["anyio-asyncio", "anyio-trio"], indirect=True)
def test_a_night_of_four_hours_takes_no_time(pytester: pytest.Pytester, runner: str) -> None:
    """In virtual time a vendor may be away for four hours, and its exports take hours."""
    tests = """
from segments_async.sandbox import Durations

@pytest.mark.segments_sandbox(segments=1, durations=Durations(median=7200, sigma=0, longest=7200))
async def test_export(segments_sandbox, tmp_path):
    began, real = anyio.current_time(), time.monotonic()
    segments_sandbox.storage_away(4 * 3600)
    report = await service.export_all(tmp_path)
    assert report.ok
    assert anyio.current_time() - began > 4 * 3600
    assert time.monotonic() - real < 60
"""
    run(pytester, runner, tests, marks=VIRTUAL).assert_outcomes(passed=1)


def test_real_time_without_the_marker(pytester: pytest.Pytester, runner: str) -> None:
    """Unmarked tests, and those that switch the option off, have the event loop of before."""
    tests = """
async def test_unmarked():
    before = time.monotonic()
    await anyio.sleep(0.05)
    assert time.monotonic() - before >= 0.04

@pytest.mark.segments_virtual_time
async def test_marked():
    before = time.monotonic()
    await anyio.sleep(3600)
    assert time.monotonic() - before < 60
"""
    run(pytester, runner, tests).assert_outcomes(passed=2)


def test_the_option_is_for_all_tests(pytester: pytest.Pytester, runner: str) -> None:
    """With the option every async test has virtual time, but for those that say no."""
    tests = """
async def test_virtual():
    await anyio.sleep(36000)

@pytest.mark.segments_virtual_time(False)
async def test_real():
    before = time.monotonic()
    await anyio.sleep(0.05)
    assert time.monotonic() - before >= 0.04
"""
    outcome = run(pytester, runner, tests, ini="segments_virtual_time = true")
    outcome.assert_outcomes(passed=2)


def test_worker_threads_are_waited_for(pytester: pytest.Pytester, runner: str) -> None:
    """Time stands still while a worker thread is at work."""
    tests = """
async def test_thread():
    with anyio.fail_after(5):
        await anyio.to_thread.run_sync(time.sleep, 0.2)
    assert anyio.current_time() < 100
"""
    run(pytester, runner, tests, marks=VIRTUAL).assert_outcomes(passed=1)


FAULTS = {
    "throttle": ("segments_sandbox.throttle(3, retry_after=2)", "len(record.throttled()) == 3"),
    "limit": ("segments_sandbox.limit(2, burst=5)", "len(record.throttled()) > 0"),
    "lose_answer": (
        "segments_sandbox.lose_answer('poll', times=2)",
        "[e.lost for e in record.polls()].count('after') == 2",
    ),
    "internal_error": (
        "segments_sandbox.internal_error('poll')",
        "[e.status for e in record.polls()].count(500) == 1",
    ),
    "away": (
        "segments_sandbox.away(3)",
        "record.lists()[0].status == 503 and record.submits()[0].at > 3",
    ),
    "unreachable": ("segments_sandbox.away(3, status=None)", "record.lists()[0].at >= 3"),
    "storage_away": (
        "segments_sandbox.storage_away(90)",
        "503 in {e.status for e in record.files()}",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_that_pass(pytester: pytest.Pytester, fault: str) -> None:
    """Each fault happens, by the vendor's record, and the run is whole all the same."""
    inject, seen = FAULTS[fault]
    tests = f"""
@pytest.mark.segments_sandbox(segments=8)
async def test_export(segments_sandbox, tmp_path):
    {inject}
    report = await service.export_all(tmp_path)
    record = segments_sandbox.record
    assert {seen}
    assert report.ok
    assert record.duplicates() == {{}}
"""
    run(pytester, "anyio-asyncio", tests, marks=VIRTUAL).assert_outcomes(passed=1)


ENDS = {
    "fail": ("segments_sandbox.fail(one)", "ExportFailedError"),
    "expire": ("segments_sandbox.expire(one)", "ExportExpiredError"),
    "lost": ("segments_sandbox.lose_answer(segment=one)", "SubmitUnknownError"),
    "not acted": (
        "segments_sandbox.lose_answer(segment=one, acted=False)",
        "SubmitUnknownError",
    ),
    "500": ("segments_sandbox.internal_error(segment=one)", "ServerError"),
}


@pytest.mark.parametrize("end", ENDS)
def test_faults_of_one_segment(pytester: pytest.Pytester, end: str) -> None:
    """A fault that names a segment ends that one, by its error, and no other."""
    inject, error = ENDS[end]
    tests = f"""
@pytest.mark.segments_sandbox(segments=4)
async def test_export(segments_sandbox, tmp_path):
    one = segments_sandbox.segment_ids[2]
    {inject}
    report = await service.export_all(tmp_path)
    assert [(o.segment_id, type(o.error).__name__) for o in report.not_exported] == [
        (one, {error!r})
    ]
"""
    run(pytester, "anyio-asyncio", tests, marks=VIRTUAL).assert_outcomes(passed=1)


def test_a_fault_that_cannot_happen_is_refused(pytester: pytest.Pytester) -> None:
    """A segment that the account hasn't, and a misspelt request, are errors of the test."""
    tests = """
def test_faults(segments_sandbox):
    for fault in (
        lambda: segments_sandbox.fail("nope"),
        lambda: segments_sandbox.expire("nope"),
        lambda: segments_sandbox.lose_answer(segment="nope"),
        lambda: segments_sandbox.lose_answer("sumbit"),
    ):
        with pytest.raises(ValueError, match="the account has no segment|no such request"):
            fault()
"""
    run(pytester, "anyio-asyncio", tests).assert_outcomes(passed=1)


def test_other_credentials_are_refused(pytester: pytest.Pytester) -> None:
    """An account that accepts only one pair answers others with 401."""
    tests = """
from segments_async import AuthenticationError

async def test_export(segments_sandbox, tmp_path):
    segments_sandbox.accept_only("a key", "a token")
    assert (await service.export_with_its_own_credentials(tmp_path)).ok
    with pytest.raises(AuthenticationError):
        await service.export_all(tmp_path)
"""
    run(pytester, "anyio-asyncio", tests, marks=VIRTUAL).assert_outcomes(passed=1)


# --------------------------------------------------------------------- the checks at the end

TWICE = """
async def test_export(segments_sandbox):
    async with segments_sandbox.client() as client:
        await client.request_export(segments_sandbox.segment_ids[0])
        await client.request_export(segments_sandbox.segment_ids[0])
"""


def test_a_second_post_fails_the_test(pytester: pytest.Pytester, runner: str) -> None:
    """A segment that is asked for while its export runs fails the test, in a sentence."""
    result = run(pytester, runner, TWICE, marks=VIRTUAL)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*duplicate_exports: segment * was exported again*"])


@pytest.mark.parametrize(
    "allowing",
    [
        "@pytest.mark.segments_sandbox(allow=['duplicate_exports'])" + TWICE,
        "@pytest.mark.segments_sandbox(allow='duplicate_exports')" + TWICE,
        TWICE.replace(
            ":\n    async with",
            ":\n    segments_sandbox.allow('duplicate_exports')\n    async with",
        ),
    ],
    ids=["marker", "one name", "method"],
)
def test_a_check_can_be_switched_off(pytester: pytest.Pytester, allowing: str) -> None:
    """A check is switched off by its name, in the marker or in the test."""
    run(pytester, "anyio-asyncio", allowing, marks=VIRTUAL).assert_outcomes(passed=1)


def test_an_unknown_check_is_refused(pytester: pytest.Pytester) -> None:
    """A misspelt name is an error that lists the names."""
    tests = "@pytest.mark.segments_sandbox(allow=['duplicates'])" + TWICE
    result = run(pytester, "anyio-asyncio", tests, marks=VIRTUAL)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*no such check: duplicates; there are: duplicate_exports, *"])


def test_a_lost_answer_that_is_repeated_fails_the_test(pytester: pytest.Pytester) -> None:
    """A service that asks again after an unknown submit has made a second export."""
    tests = """
from segments_async import SubmitUnknownError

async def test_export(segments_sandbox):
    segments_sandbox.lose_answer()
    async with segments_sandbox.client() as client:
        with pytest.raises(SubmitUnknownError):
            await client.request_export(segments_sandbox.segment_ids[0])
        await anyio.sleep(600)
        await client.request_export(segments_sandbox.segment_ids[0])
"""
    result = run(pytester, "anyio-asyncio", tests, marks=VIRTUAL)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*duplicate_exports: * was unknown"])


def test_two_nights_are_no_duplicate(pytester: pytest.Pytester) -> None:
    """A segment whose export has ended may be asked for again."""
    tests = """
async def test_nights(segments_sandbox, tmp_path):
    assert (await service.export_all(tmp_path / "monday")).ok
    assert (await service.export_all(tmp_path / "tuesday")).ok
    assert segments_sandbox.record.duplicates() != {}
"""
    run(pytester, "anyio-asyncio", tests, marks=VIRTUAL).assert_outcomes(passed=1)


def test_a_storage_that_sees_credentials_fails_the_test(pytester: pytest.Pytester) -> None:
    """A client for files that sends the API's credentials fails the test."""
    tests = """
import httpx
from segments_async import DownloadError
from segments_async.sandbox import SandboxTransport

async def test_export(segments_sandbox, tmp_path):
    async def leaks(request):
        request.headers["cookie"] = "session=1"
    http = httpx.AsyncClient(
        transport=SandboxTransport(segments_sandbox.sandbox), event_hooks={"request": [leaks]}
    )
    async with segments_sandbox.client(file_http_client=http) as client:
        await client.export(segments_sandbox.segment_ids[0], tmp_path / "a.csv")
"""
    result = run(pytester, "anyio-asyncio", tests, marks=VIRTUAL)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*credentials_at_storage: *"])


# --------------------------------------------------------------------- a good neighbour


TOO_LATE = {
    "one virtual test": ("", "@pytest.mark.segments_virtual_time"),
    "one real test": (
        "pytestmark = pytest.mark.segments_virtual_time",
        "@pytest.mark.segments_virtual_time(False)",
    ),
}


@pytest.mark.parametrize("case", TOO_LATE)
def test_a_marker_that_comes_too_late_is_refused(pytester: pytest.Pytester, case: str) -> None:
    """With a loop for the whole module, a test's own marker is refused with what to do."""
    module, test = TOO_LATE[case]
    pytester.makeini("[pytest]\n")
    pytester.makepyfile(f"""
import pytest
{module}

@pytest.fixture(scope="module")
def anyio_backend(): return "asyncio"

@pytest.mark.anyio
{test}
async def test_late(): pass
""")
    result = pytester.runpytest_inprocess("-pno:asyncio", "-pno:xdist", "-pno:schemathesis")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*mark the module*"])


def test_a_marker_without_effect_is_refused(pytester: pytest.Pytester) -> None:
    """An async test that neither plugin runs is told so; a sync one in a marked module passes."""
    pytester.makeini("[pytest]\n")
    pytester.makepyfile("""
import pytest, unittest
pytestmark = pytest.mark.segments_virtual_time

class Tests(unittest.IsolatedAsyncioTestCase):
    async def test_async(self): pass

def test_sync(): pass
""")
    result = pytester.runpytest_inprocess("-pno:asyncio", "-pno:xdist", "-pno:schemathesis")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*segments_virtual_time has no effect here*"])


def test_a_client_that_outlives_its_test_sends_nothing(pytester: pytest.Pytester) -> None:
    """A client that an account answered refuses to go on to the vendor when the test has ended."""
    tests = """
from segments_async import ConfigurationError, SegmentsClient

client = SegmentsClient("a key", "a token")

async def test_first(segments_sandbox):
    assert len(await client.list_segments()) == 1

async def test_second():
    with pytest.raises(ConfigurationError, match="that test has ended: nothing was sent"):
        await client.list_segments()
"""
    tests = tests.replace(
        "client = Seg",
        "@pytest.fixture(scope='module')\ndef anyio_backend(): return 'asyncio'\n\n"
        "@pytest.fixture(scope='module', autouse=True)\nasync def loop(): yield\n\nclient = Seg",
    )
    run(pytester, "anyio-asyncio", tests).assert_outcomes(passed=2)


def test_the_plugin_alone_imports_nothing() -> None:
    """In a project whose tests don't use it, the plugin loads neither httpx nor this library."""
    program = (
        "import sys, segments_async.testing.plugin as p\n"
        "heavy = {'httpx', 'attrs', 'cattrs', 'anyio', 'trio', 'segments_async.client'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert shown.strip() == "[]"
