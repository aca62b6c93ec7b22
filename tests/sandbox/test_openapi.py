"""The OpenAPI description: valid, honest about its assumptions, and what the sandbox answers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

import segments_async.sandbox
from sandbox import printed
from sandbox.asking import EXPORT, LIST, PAGE_AUTH, headers, post, read
from segments_async import ExportStatus, SegmentType
from segments_async.sandbox import (
    FREE_ACCESS_TOKEN,
    FREE_API_KEY,
    PAGE_EXPORT_ID,
    PAGE_SEGMENT_ID,
    Answer,
    Durations,
    Fault,
    Sandbox,
    SandboxTransport,
    TokenBucket,
)
from segments_async.sandbox.server import SandboxServer

FILE = Path(segments_async.sandbox.__file__).with_name("openapi.json")
DESCRIPTION: dict[str, Any] = json.loads(FILE.read_text())
DOCS = Path(__file__).parents[2] / "docs/openapi.md"
FORMATS = Draft202012Validator.FORMAT_CHECKER

#: The codes of the page's "Common Response Codes".
ON_THE_PAGE = {"200", "401", "403", "429", "500"}

#: Of each operation: its place in the description, and a request of it.
OPERATIONS: Mapping[str, tuple[str, str, str]] = {
    "checkCredentials": ("GET", "/", "/"),
    "listSegments": ("GET", LIST, LIST),
    "requestExport": ("POST", EXPORT, EXPORT),
    "getExport": ("GET", EXPORT + "{exportId}", EXPORT + PAGE_EXPORT_ID),
}
BODY = json.dumps({"segmentId": PAGE_SEGMENT_ID, "outputFormat": "csv"}).encode()
PATIENCE = 300.0  # seconds, for a test that hangs


def resolved(value: dict[str, Any]) -> dict[str, Any]:
    """The object that a reference names, or the object itself."""
    found: dict[str, Any] = value
    if "$ref" in value:
        found = DESCRIPTION
        for key in value["$ref"].removeprefix("#/").split("/"):
            found = found[key]
    return found


def operation(name: str) -> dict[str, Any]:
    method, path, _ = OPERATIONS[name]
    found: dict[str, Any] = DESCRIPTION["paths"][path][method.lower()]
    assert found["operationId"] == name
    return found


def faults(schema: dict[str, Any], value: Any) -> list[str]:
    """What the schema says against the value."""
    whole = {**schema, "components": DESCRIPTION["components"]}
    return [
        e.message for e in Draft202012Validator(whole, format_checker=FORMATS).iter_errors(value)
    ]


def check(name: str, answer: Answer) -> None:
    """The answer is one that the description of this operation has."""
    response = resolved(operation(name)["responses"][str(answer.status)])
    for header, about in response.get("headers", {}).items():
        given = answer.headers.get(header.lower())
        assert given is not None or not about.get("required"), header
        assert given is None or faults(about["schema"], given) == []
    body = b"".join(answer.pieces())
    ((media_type, content),) = response["content"].items()
    assert answer.headers["content-type"] == media_type
    value: Any = json.loads(body) if media_type == "application/json" else body.decode()
    assert faults(content["schema"], value) == []


def objects(value: Any = DESCRIPTION, pointer: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Each object of the description, with its JSON pointer."""
    if isinstance(value, dict):
        yield pointer, value
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        if isinstance(inner, dict | list):
            yield from objects(inner, f"{pointer}/{str(key).replace('~', '~0').replace('/', '~1')}")


ASSUMED = {pointer for pointer, value in objects() if "x-assumption" in value}


# What the description says


def test_is_valid() -> None:
    """The description is valid OpenAPI 3.1."""
    assert list(OpenAPIV31SpecValidator(DESCRIPTION).iter_errors()) == []


def test_examples_are_the_pages() -> None:
    """Each example of an answer is what the page prints, and valid."""
    answers = {
        "listSegments": printed.LISTED,
        "requestExport": printed.REQUESTED,
        "getExport": printed.CHECKED,
    }
    for name, text in answers.items():
        content = operation(name)["responses"]["200"]["content"]["application/json"]
        assert content["examples"]["page"]["value"] == json.loads(text)
        assert faults(content["schema"], json.loads(text)) == []


def test_codes_that_the_page_lacks_are_assumptions() -> None:
    """A response or header that isn't on the page is marked, and every response on it is not."""
    for name in OPERATIONS:
        responses = operation(name)["responses"]
        assert responses.keys() >= ON_THE_PAGE
        for status, response in responses.items():
            assert ("x-assumption" in resolved(response)) == (status not in ON_THE_PAGE)
            for header in resolved(response).get("headers", {}).values():
                assert header["x-assumption"]


def test_assumptions_are_told() -> None:
    """Each assumption is described where it stands, and docs/openapi.md lists all of them."""
    marked = {p: value for p, value in objects() if "x-assumption" in value}
    for value in marked.values():
        assert value["x-assumption"] is True
        assert re.search(r"[Aa]ssumed", value["description"])
    listed = re.findall(r"^\| `(/[^`]+)` \|", DOCS.read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(marked)


def test_what_says_assumed_is_marked() -> None:
    """No description speaks of an assumption without the mark that tools read."""
    for pointer, value in objects():
        if re.search(r"\b[Aa]ssumed\b", str(value.get("description", ""))):
            assert pointer in ASSUMED, pointer


def test_the_client_reads_what_is_described() -> None:
    """The client knows each type and status of the description, and no other."""
    schemas = DESCRIPTION["components"]["schemas"]
    assert set(schemas["Segment"]["properties"]["type"]["enum"]) == set(SegmentType)
    assert set(schemas["Export"]["properties"]["status"]["enum"]) == set(ExportStatus)


# What the sandbox answers


def ask(sandbox: Sandbox, name: str, **changed: Any) -> Answer:
    method, _, path = OPERATIONS[name]
    request = {"path": path, "headers": headers(), "body": BODY if method == "POST" else b""}
    return sandbox.answer(method, **{**request, **changed}, now=10.0)


def with_status(name: str, status: int, **options: Any) -> Answer:
    """An answer with this status of a sandbox that draws faults."""
    sandbox = Sandbox(**options)
    return next(a for a in (ask(sandbox, name) for _ in range(100)) if a.status == status)


def throttled(name: str, retry_after: Literal["seconds", "date"] | None = None) -> Answer:
    sandbox = Sandbox(limit=TokenBucket(rate=0.01, burst=1), retry_after=retry_after)
    ask(sandbox, "listSegments")
    return ask(sandbox, name)


def answer_with(name: str, status: int) -> Answer:
    """The sandbox's answer with this status to this operation."""
    match name, status:
        case _, 401:
            return ask(Sandbox(), name, headers={})
        case _, 403:
            return ask(Sandbox(), name, headers=headers(FREE_API_KEY, FREE_ACCESS_TOKEN))
        case _, 429:
            return throttled(name)
        case _, 500:
            return with_status(name, 500, internal_errors=1.0)
        case _, 502 | 503 | 504:
            return with_status(name, status, gateway_errors=1.0)
        case "requestExport", 400:
            return ask(Sandbox(), name, body=b"{}")
        case "requestExport", 404:
            return ask(Sandbox(), name, body=BODY.replace(b"8220", b"0000"))
        case "requestExport", 413:
            return ask(Sandbox(), name, body=b" " * (1 << 20) + BODY)
        case "requestExport", 415:
            return ask(Sandbox(), name, headers={**headers(), "content-type": "text/plain"})
        case "getExport", 404:
            return ask(Sandbox(), name, path=EXPORT + "unknown")
        case _:
            return ask(Sandbox(), name)


@pytest.mark.parametrize(
    ("name", "status"),
    [(name, int(status)) for name in OPERATIONS for status in operation(name)["responses"]],
)
def test_each_described_answer_is_the_sandboxes(name: str, status: int) -> None:
    """Of each operation, the sandbox has an answer with each code, and it is as described."""
    answer = answer_with(name, status)
    assert answer.status == status
    check(name, answer)


@pytest.mark.parametrize("retry_after", ["seconds", "date"])
def test_a_429_with_retry_after(retry_after: Literal["seconds", "date"]) -> None:
    """Both forms of Retry-After are described."""
    answer = throttled("listSegments", retry_after)
    assert "retry-after" in answer.headers
    check("listSegments", answer)


@pytest.mark.parametrize("segments", [0, 1, 200])
def test_lists(segments: int) -> None:
    """Lists with every kind of segment are as described."""
    check("listSegments", ask(Sandbox(segments=segments), "listSegments"))


@pytest.mark.parametrize(
    ("status", "options"),
    [
        ("PENDING", {"durations": Durations(median=50.0, sigma=0)}),
        ("COMPLETE", {}),
        ("FAILED", {"failed": 1.0}),
    ],
)
def test_exports(status: str, options: dict[str, Any]) -> None:
    """An export is as described in each status, and in its POST's answer."""
    sandbox = Sandbox(segments=5, **{"durations": Durations(median=1.0), **options})
    for segment_id in sandbox.segment_ids:
        created = post(sandbox, segment_id, now=0.0)
        check("requestExport", created)
        found = ask(sandbox, "getExport", path=EXPORT + read(created)["exportId"])
        assert read(found)["status"] == status
        check("getExport", found)


# The sandbox serves it


async def test_served_in_process() -> None:
    """It is served without credentials, uses nothing of the limit, and names the sandbox itself."""
    sandbox = Sandbox(limit=TokenBucket(rate=0.01, burst=1), internal_errors=1.0)
    transport = SandboxTransport(sandbox)
    async with httpx.AsyncClient(transport=transport, base_url=sandbox.api_origin) as http:
        answers = [await http.get("/openapi.json") for _ in range(3)]
        assert (await http.get(LIST, auth=PAGE_AUTH)).status_code == 500, "not 429"
        assert (await http.post("/openapi.json", auth=PAGE_AUTH)).status_code == 429
    assert [answer.status_code for answer in answers] == [200] * 3
    assert sandbox.record.lists()[0].kind == "list"
    assert [entry.kind for entry in sandbox.record][:3] == ["openapi"] * 3


@pytest.mark.real_time
def test_served_over_http() -> None:
    """The served description is the file's, with the server's own address."""
    with SandboxServer(Sandbox()) as server:
        answer = httpx.get(server.base_url + "/openapi.json", trust_env=False)
        (described,) = answer.json()["servers"]
        assert described["url"] == server.base_url
    assert answer.headers["content-type"] == "application/json"
    assert {**answer.json(), "servers": DESCRIPTION["servers"]} == DESCRIPTION


# Schemathesis


def schemathesis(
    server: SandboxServer, cwd: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """A run of schemathesis against the server, the same each time; it keeps its finds in `cwd`."""
    program = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file"),
        *(Path(__file__).with_name("schemathesis.toml"), "run"),
        *(f"{server.base_url}/openapi.json", "--auth", ":".join(PAGE_AUTH)),
        *arguments,
    ]
    return subprocess.run(program, cwd=cwd, capture_output=True, text=True, timeout=PATIENCE)


@pytest.mark.whole
def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    """Odd, false and valid requests, alone and in sequence, are answered as described.

    Credentials that are missing or false, bodies of the wrong type, methods that no
    operation has, and exports of segments that were listed.
    """
    with SandboxServer(Sandbox(segments=3, durations=Durations(median=0.0))) as server:
        done = schemathesis(server, tmp_path, "--max-examples", "10")
        seen = {(entry.kind, entry.status) for entry in server.sandbox.record}
    assert done.returncode == 0, done.stdout + done.stderr
    expected = [
        *(("list", 200), ("list", 401), ("submit", 200), ("submit", 400), ("submit", 401)),
        *(("submit", 415), ("poll", 200), ("poll", 401), ("other", 405)),
    ]
    assert [one for one in expected if one not in seen] == []


@pytest.mark.whole
def test_schemathesis_finds_a_deviation(tmp_path: Path) -> None:
    """An answer that isn't as described is found: a time that is null, against the page."""
    with SandboxServer(Sandbox(durations=Durations(median=0.0))) as server:
        server.sandbox.inject(Fault.fields(startTime=None), method="GET", times=10_000)
        done = schemathesis(server, tmp_path, "--phases", "examples")
    assert done.returncode == 1
    assert "Response violates schema" in done.stdout
    assert "startTime" in done.stdout
