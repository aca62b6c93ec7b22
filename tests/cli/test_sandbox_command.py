"""`segments-async sandbox`: the printed address and commands work."""

from __future__ import annotations

import json
import subprocess

import pytest
from launch import Environment, Parsed, Run, Start

from segments_async.sandbox import PAGE_EXPORT_ID, PAGE_SEGMENT_ID


def test_prints_where_it_is_and_serves_there(
    start: Start, run: Run, account: Environment, parsed: Parsed
) -> None:
    """The JSON line names an address at which the account is listed."""
    process = start("sandbox", "--port", "0", "--segments", "7")
    assert process.stdout is not None
    told = json.loads(process.stdout.readline())
    env = account(
        SEGMENTS_BASE_URL=told["base_url"],
        SEGMENTS_API_KEY=told["api_key"],
        SEGMENTS_ACCESS_TOKEN=told["access_token"],
    )
    assert len(parsed(run("list", env=env).stdout)) == 7


def test_port_in_use_is_usage(start: Start, run: Run) -> None:
    """A port in use ends with 2, and one sentence that names it and says what to do."""
    process = start("sandbox", "--port", "0")
    assert process.stdout is not None
    port = json.loads(process.stdout.readline())["base_url"].rpartition(":")[2]
    done = run("sandbox", "--port", port)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"can't listen on 127.0.0.1, port {port}:" in done.stderr
    assert "--port 0" in done.stderr


@pytest.mark.needs("curl")
def test_printed_curl_commands_answer_as_the_page(start: Start) -> None:
    """The three curl commands run as they are printed, and answer with the page's values."""
    process = start("sandbox", "--port", "0")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    printed = []
    while len([line for line in printed if "curl" in line]) < 3:
        printed.append(process.stderr.readline())
    script = "".join(printed)["".join(printed).index("curl") :].replace("\n\n", "; echo; \n")
    answers = subprocess.run(["bash", "-c", script], capture_output=True, text=True).stdout
    decoder, found = json.JSONDecoder(), []
    while answers := answers.lstrip():
        value, end = decoder.raw_decode(answers)
        found.append(value)
        answers = answers[end:]
    listed, requested, page = found
    assert listed[0]["segmentId"] == PAGE_SEGMENT_ID
    assert (requested["status"], requested["filename"]) == ("PENDING", None)
    assert page["filename"] == f"s3://upload-bucket/path/to/{PAGE_EXPORT_ID}.csv"
