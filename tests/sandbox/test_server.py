"""The sandbox on loopback, asked with curl and a plain `httpx.Client`."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from sandbox import printed
from sandbox.asking import EXPORT, LIST, PAGE_AUTH
from segments_async.sandbox import PAGE_EXPORT_ID, PAGE_SEGMENT_ID, Durations, Fault, Sandbox
from segments_async.sandbox.server import SandboxServer

BODY = {"segmentId": PAGE_SEGMENT_ID, "outputFormat": "csv"}
HOST = "https://query.indicative-prod.mparticle.com"
AUTH = "5a6646c4-ae5a-4de4-9d47-eb6f228405b2:nux06hkn870v0ni4fhtd81kf"


@pytest.fixture
def server() -> Iterator[SandboxServer]:
    with SandboxServer(Sandbox(durations=Durations(median=0.0))) as server:
        yield server


@pytest.fixture
def http(server: SandboxServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.base_url, auth=PAGE_AUTH, trust_env=False) as client:
        yield client


def curl(command: str, server: SandboxServer) -> str:
    """Run a command of the page, with only the host changed."""
    shell = command.replace(HOST, server.base_url).removeprefix("$ ")
    environment = {**os.environ, "no_proxy": "127.0.0.1"}
    return subprocess.run(
        shell, shell=True, check=True, capture_output=True, text=True, env=environment
    ).stdout


@pytest.mark.needs("curl")
def test_page_lists_segments(server: SandboxServer) -> None:
    """The page's first command prints what the page prints."""
    assert curl(f'$ curl -s -u "{AUTH}" {HOST}/service/v1/segments/list', server) == printed.LISTED


@pytest.mark.needs("curl")
def test_page_requests_an_export(server: SandboxServer) -> None:
    """The page's second command prints what the page prints, but for the id and the time."""
    answer = curl(
        f"$ curl -s -u \"{AUTH}\" -H 'Content-Type: application/json' "
        f"{HOST}/service/v1/segments/export/ -d'{{\n"
        '  "segmentId": "82200474-c131-4f7b-a35e-381469af31a7",\n  "outputFormat": "csv"\n}\'',
        server,
    )
    as_printed = re.sub(r'(?<="startTime": ")[^"]+', "2019-04-09T14:45:07.000Z", answer)
    as_printed = re.sub(r'(?<="exportId": ")[^"]+', PAGE_EXPORT_ID, as_printed)
    assert as_printed == printed.REQUESTED


@pytest.mark.needs("curl")
def test_page_checks_an_export(server: SandboxServer) -> None:
    """The page's third command prints what the page prints."""
    path = f"{HOST}/service/v1/segments/export/{PAGE_EXPORT_ID}"
    assert curl(f'$ curl -s -u "{AUTH}" {path}', server) == printed.CHECKED


def test_export_from_post_to_file(server: SandboxServer, http: httpx.Client) -> None:
    """The second port serves the export's file."""
    path = EXPORT + http.post(EXPORT, json=BODY).json()["exportId"]
    link = http.get(path).json()["filename"]
    file = httpx.get(link, trust_env=False)
    assert link.startswith(server.files_url)
    assert server.files_url != server.base_url
    assert file.content == server.sandbox.content(PAGE_SEGMENT_ID)
    part = httpx.get(link, headers={"Range": "bytes=-10"}, trust_env=False)
    assert (part.status_code, part.content) == (206, file.content[-10:])


@pytest.mark.parametrize("fault", [Fault.LOST_BEFORE, Fault.LOST_AFTER, Fault.UNREACHABLE])
def test_lost_answer_is_not_a_byte(server: SandboxServer, http: httpx.Client, fault: Fault) -> None:
    """The connection ends without a byte; the next request is answered."""
    server.sandbox.inject(fault)
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        http.get(LIST)
    assert http.get(LIST).status_code == 200
    assert server.sandbox.record.under_way() == 0


@pytest.mark.parametrize(
    "fault", [Fault.cut(10), Fault.content_length(9999), Fault(cut_after=10, length=None)]
)
def test_cut_body(server: SandboxServer, http: httpx.Client, fault: Fault) -> None:
    """The connection ends after fewer bytes than announced, or before the last chunk."""
    server.sandbox.inject(fault)
    with pytest.raises(httpx.RemoteProtocolError):
        http.get(LIST)


def test_latency_and_slowness_are_real(server: SandboxServer, http: httpx.Client) -> None:
    """The answer comes as much later as its latency says."""
    server.sandbox.inject(Fault.slow(0.2))
    began = time.monotonic()
    http.get(LIST)
    assert time.monotonic() - began >= 0.2


def test_answers_wait_for_no_delayed_ack(http: httpx.Client) -> None:
    """On one connection: without TCP_NODELAY the fastest of thirty takes 40 ms."""
    http.get(LIST)
    took = []
    for _ in range(30):
        began = time.monotonic()
        http.get(LIST)
        took.append(time.monotonic() - began)
    assert min(took) < 0.03


def test_too_large_a_body_is_413(http: httpx.Client) -> None:
    """A body beyond 1 MiB is refused and not stored."""
    answer = http.post(
        EXPORT, content=b" " * (3 << 20), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 413


def test_many_at_once_are_recorded(server: SandboxServer, http: httpx.Client) -> None:
    """The record agrees with the clients about how many there were, and never counts more."""
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: http.get(LIST).status_code, range(200)))
    record = server.sandbox.record
    assert answers == [200] * 200
    assert len(record.lists()) == 200
    assert 1 <= record.most_at_once() <= 8
    assert record.under_way() == 0


def test_stops_at_once_whatever_is_open(caplog: pytest.LogCaptureFixture) -> None:
    """Idle, half-sent and slow requests don't delay the server's end, and nothing is logged."""
    with SandboxServer(Sandbox()) as server, httpx.Client(auth=PAGE_AUTH, trust_env=False) as http:
        http.get(server.base_url + LIST)
        host, port = server.base_url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as half:
            half.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12")
            server.sandbox.inject(Fault.slow(60.0))
            waiting = threading.Thread(target=_ask_in_vain, args=(server.base_url,))
            waiting.start()
            while server.sandbox.faults_left():
                time.sleep(0.01)
            began = time.monotonic()
            server.__exit__(None, None, None)
            took = time.monotonic() - began
            waiting.join()
    assert took < 30.0, "the slow answer takes a minute"
    assert not caplog.records


def _ask_in_vain(base_url: str) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(base_url + LIST, auth=PAGE_AUTH, trust_env=False, timeout=60)


def test_taken_port_is_an_error() -> None:
    """A taken port is an OSError, and leaves no socket behind."""
    with SandboxServer(Sandbox()) as first:
        port = int(first.files_url.rsplit(":", 1)[1])
        with pytest.raises(OSError, match="in use"), SandboxServer(Sandbox(), files_port=port):
            pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_ends_with_a_signal(number: signal.Signals) -> None:
    """`serve` returns the signal, for the exit code."""
    program = (
        "from segments_async.sandbox import Sandbox\n"
        "from segments_async.sandbox.server import serve\n"
        "ready = lambda server: print(server.base_url, flush=True)\n"
        "print(int(serve(Sandbox(), ready=ready)))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline().startswith("http://127.0.0.1:")
        run.send_signal(number)
        assert run.stdout.read() == f"{int(number)}\n"
    assert run.returncode == 0


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_a_missing_extra_is_named(package: str) -> None:
    """Where the server's extra isn't installed, the import's error says which one to install."""
    program = f"""
import sys
sys.modules["{package}"] = None
try:
    import segments_async.sandbox.server
except ModuleNotFoundError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert package in done.stdout
    assert "pip install 'segments-async[sandbox]'" in done.stdout


def test_sandbox_needs_no_server_extra() -> None:
    """Importing the sandbox imports neither starlette nor uvicorn."""
    program = (
        "import sys, segments_async.sandbox\nprint({'starlette', 'uvicorn'} & set(sys.modules))"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert out.stdout == "set()\n"
