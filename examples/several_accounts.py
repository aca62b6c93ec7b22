"""All segments of several accounts at once, each account with a client of its own.

    pip install 'segments-async[journal]'
    export EU_API_KEY=... EU_ACCESS_TOKEN=... US_API_KEY=... US_ACCESS_TOKEN=...
    python several_accounts.py exports eu us

The vendor's limit is one for each account, and each client learns its own: an account that answers
429 slows no other down. Files go to `exports/eu` and `exports/us`, with a journal beside each:
a journal belongs to one account. An error of one account is its result, and the others go on.
`EU_BASE_URL`, where it is set, is the address of that account, such as a sandbox's. Without it, the
credentials go to the vendor's own address.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import anyio

from segments_async import BulkReport, ConfigurationError, Exported, SegmentsClient, SegmentsError

#: What became of an account: the report of its run, or the error that ended it.
Result = BulkReport[Exported] | SegmentsError


async def export_account(client: SegmentsClient, to: Path) -> BulkReport[Exported]:
    """Export the segments of one account that have run since the last time."""
    segments = await client.list_segments()
    return await client.bulk_export(
        segments, to, journal=to.with_suffix(".journal.db"), only_changed=True
    )


async def export_accounts(clients: Mapping[str, SegmentsClient], to: Path) -> dict[str, Result]:
    """Export all accounts at once.

    Args:
        clients: by the name of their account.
        to: a directory, in which each account gets one of its name.

    Returns:
        by the name of the account, its report, or the error that ended its run.
    """
    results: dict[str, Result] = {}

    async def export(name: str, client: SegmentsClient) -> None:
        try:
            results[name] = await export_account(client, to / name)
        except SegmentsError as error:
            results[name] = error

    await anyio.Path(to).mkdir(parents=True, exist_ok=True)
    async with anyio.create_task_group() as tasks:
        for name, client in clients.items():
            tasks.start_soon(export, name, client)
    return results


def client_of(name: str) -> SegmentsClient:
    """A client of the account whose credentials are in the environment: `EU_API_KEY` for `eu`."""
    prefix = name.upper().replace("-", "_")
    try:
        key, token = os.environ[f"{prefix}_API_KEY"], os.environ[f"{prefix}_ACCESS_TOKEN"]
    except KeyError as missing:
        raise ConfigurationError(f"{missing.args[0]} is not set") from None
    base_url = os.environ.get(f"{prefix}_BASE_URL")
    return SegmentsClient(key, token, base_url=base_url) if base_url else SegmentsClient(key, token)


def summary(result: Result) -> str:
    """What became of an account, in a line for each fact."""
    if isinstance(result, SegmentsError):
        return f"nothing more was exported: {result}"
    done = len(result.exported), len(result.exported) + len(result.not_exported)
    lines = [f"{done[0]} of {done[1]} segments"]
    lines += [f"    {o.name or o.segment_id}: {o.error}" for o in result.not_exported]
    return "\n".join(lines)


async def main(to: Path, names: list[str]) -> int:
    async with contextlib.AsyncExitStack() as stack:
        clients = {name: await stack.enter_async_context(client_of(name)) for name in names}
        results = await export_accounts(clients, to)
    for name in names:
        print(f"{name}: {summary(results[name])}")
    return 0 if all(isinstance(r, BulkReport) and r.ok for r in results.values()) else 1


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: several_accounts.py DIRECTORY ACCOUNT...")
    try:
        sys.exit(anyio.run(main, Path(sys.argv[1]), sys.argv[2:]))
    except ConfigurationError as wrong:
        sys.exit(f"several_accounts.py: {wrong}")
