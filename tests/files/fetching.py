"""A process that fetches the file of one export, for `test_processes.py`.

The process takes the sandbox's base URL, the export's id and the target, and prints a line when the
file is in place.
"""

from __future__ import annotations

import sys

import anyio

from segments_async import DownloadError, SegmentsClient
from segments_async.sandbox import PAGE_ACCESS_TOKEN, PAGE_API_KEY


async def main(base_url: str, export_id: str, target: str) -> None:
    async with SegmentsClient(PAGE_API_KEY, PAGE_ACCESS_TOKEN, base_url=base_url) as client:
        try:
            file = await client.download_export(export_id, target)
        except DownloadError as exc:
            print(exc.reason, exc)  # noqa: T201 (what the test reads)
        else:
            print("whole", file.sha256)  # noqa: T201


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2], sys.argv[3])
