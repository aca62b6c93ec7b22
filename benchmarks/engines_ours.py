"""A bulk run of this library, for benchmarks/engines.py: one process, or several that share it."""

from __future__ import annotations

import sys

import anyio
from engines_vendor import Settings, api_client, count_statements

from segments_async import Exported, SegmentsClient
from segments_async.sandbox import PAGE_ACCESS_TOKEN, PAGE_API_KEY


async def work(settings: Settings) -> None:
    """Work at the run until it has ended. The account's rate isn't given: the client finds it."""
    async with (
        api_client(settings) as http_client,
        SegmentsClient(
            PAGE_API_KEY,
            PAGE_ACCESS_TOKEN,
            base_url=settings.base_url,
            file_hosts=["127.0.0.1"],
            http_client=http_client,
        ) as client,
        client.open_bulk_export(
            settings.segments,
            f"{settings.directory}/exports",
            journal=settings.server,
            run="nightly",
            shared=settings.shared,
        ) as run,
    ):
        async for _ in run:
            pass
        report = await run.report()
    settings.tell(
        {
            outcome.segment_id: {"file": str(outcome.file.location)}
            if isinstance(outcome, Exported)
            else {"error": type(outcome.error).__name__}
            for outcome in (*report.exported, *report.not_exported)
        }
    )


if __name__ == "__main__":
    read = Settings.read(sys.argv[2])
    count_statements(read.directory)
    anyio.run(work, read)
