"""Options that several commands have, as groups, and the types of their values."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated, Literal

import attrs
from cyclopts import Group, Parameter, validators

import segments_async
from segments_async.cli.exit_codes import UsageError

if TYPE_CHECKING:
    from segments_async.cli.terminal import Terminal

SELECTION = Group("Which segments", sort_key=1)
DESTINATION = Group("Where to", sort_key=2)
AGAIN = Group("Again", sort_key=3)
PACE = Group("Pace", sort_key=4)
FILES = Group("Files", sort_key=5)
WORKERS = Group("Workers", sort_key=6)
LIMIT = Group("Limit", sort_key=2)
FAULTS = Group("Faults", sort_key=3)
GENERAL = Group("General", sort_key=9)


Count = Annotated[int, Parameter(validator=validators.Number(gte=0))]
Positive = Annotated[int, Parameter(validator=validators.Number(gte=1))]
Seconds = Annotated[float, Parameter(validator=validators.Number(gt=0))]
Days = Annotated[float, Parameter(validator=validators.Number(gte=0, lte=36_500))]
Rate = Annotated[float, Parameter(validator=validators.Number(gt=0))]
Share = Annotated[float, Parameter(validator=validators.Number(gte=0, lte=1))]
Port = Annotated[int, Parameter(validator=validators.Number(gte=0, lte=65535))]

#: Patterns for names.
Names = Annotated[tuple[str, ...], Parameter(metavar="GLOB", consume_multiple=True)]

_IfLost = Literal["report", "resubmit"]


@Parameter(name="*", group=GENERAL)
@attrs.frozen(kw_only=True)
class CommonOptions:
    """The options of every command."""

    verbose: Annotated[int, Parameter(alias="-v", count=True)] = 0
    """Log lines on stderr: ends of exports, changes of the pace, retries; twice, everything."""
    quiet: Annotated[bool, Parameter(alias="-q")] = False
    """Nothing on stderr but errors and warnings: no progress, no summary of what went well."""
    json: bool = False
    """JSON lines on stdout, as where it isn't a terminal."""
    no_color: bool = False
    """No colours; so does NO_COLOR in the environment."""

    def terminal(self) -> Terminal:
        """Open the terminal, and print the library's log on it."""
        # Not at the top: rich takes as long to import as the rest of a command that draws nothing.
        from segments_async.cli.terminal import LogLines, Terminal

        terminal = Terminal.open(no_color=self.no_color, json=self.json, quiet=self.quiet)
        log = logging.getLogger("segments_async")
        log.handlers[:] = [LogLines(terminal, verbose=self.verbose > 0)]
        log.propagate = False
        log.setLevel({0: logging.WARNING, 1: logging.INFO}.get(self.verbose, logging.DEBUG))
        return terminal


@Parameter(name="*", group=PACE)
@attrs.frozen(kw_only=True)
class Pace:
    """The pace of a run. Each session of the run is given its own."""

    timeout: Annotated[Seconds | None, Parameter(metavar="SECONDS")] = None
    """Seconds for the whole run. What is unfinished then goes on at the vendor."""
    rate: Annotated[Rate | None, Parameter(metavar="PER_SECOND")] = None
    """Requests per second at most; by default the account's limit is found."""
    downloads: Annotated[Positive | None, Parameter(metavar="N")] = None
    """Files fetched at once; 8 by default."""
    max_pending: Annotated[Positive | None, Parameter(metavar="N")] = None
    """Exports running at the vendor at once; no limit of ours by default."""
    poll_share: Annotated[Share | None, Parameter(metavar="SHARE")] = None
    """Share of requests for polls while submits wait: 0 shortest run, 1 earliest results; 0.2."""


def _check_hosts(_: object, hosts: tuple[str, ...]) -> None:
    """Refuse a link: as a pattern for hosts it would never match, without an error."""
    if any(not host or set(host) & set("/@ ") for host in hosts):
        raise ValueError("a host such as files.example.com or *.example.com, not a link")


@Parameter(name="*", group=FILES)
@attrs.frozen(kw_only=True)
class Hosts:
    """Hosts of files. They are not stored with a run: no file may admit a host."""

    file_host: Annotated[tuple[str, ...], Parameter(metavar="HOST", validator=_check_hosts)] = ()
    """Hosts of files beside S3's own, such as minio.example.com or *.example.com; repeatable."""

    @property
    def patterns(self) -> tuple[str, ...] | None:
        """For the client's `file_hosts`; None for its default."""
        return (*segments_async.S3_HOSTS, *self.file_host) if self.file_host else None


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class RunsOptions:
    """Which runs are shown, and whether they are watched or deleted."""

    run: Annotated[str | None, Parameter(metavar="NAME")] = None
    """Only the run of this name."""
    watch: bool = False
    """Show the unfinished runs until Ctrl-C, or the run NAME until it has ended."""
    prune: Annotated[Days | None, Parameter(metavar="DAYS")] = None
    """Delete all runs to which nothing has happened for so many days."""


@Parameter(name="*", group=WORKERS)
@attrs.frozen(kw_only=True)
class Workers:
    """Who works at the run in this process's place. Both options need --run and the journal."""

    workers: Annotated[Positive | None, Parameter(metavar="N")] = None
    """Share the run between N processes of this machine; one that dies is replaced."""
    dask: Annotated[str | None, Parameter(metavar="ADDRESS")] = None
    """Share the run between the workers of a Dask cluster: tcp://HOST:PORT of its scheduler."""

    @property
    def wanted(self) -> bool:
        """Whether there are any."""
        return self.workers is not None or self.dask is not None

    def check(self, *, run: str | None, join: bool, journal: bool, pace: Pace) -> None:
        """Refuse contradictions before any request is sent.

        Raises:
            UsageError: arguments contradict each other.
        """
        if not self.wanted:
            return
        option = "--workers" if self.workers is not None else "--dask"
        if self.workers is not None and self.dask is not None:
            raise UsageError("--workers and --dask: give one")
        if join:
            raise UsageError(f"{option} and --join: give one; {option} shares the run by itself")
        if not journal:
            raise UsageError(f"{option} needs a journal, and with this command line there is none")
        if run is None:
            raise UsageError(
                f"{option} needs --run NAME: the workers find the run by its name. For a job each "
                'night: --run "$(date +%F)"'
            )
        if self.dask is not None and (pace.rate is not None or pace.max_pending is not None):
            raise UsageError(
                "--rate and --max-pending are divided between the workers, whose number changes "
                "with --dask: leave them out, or use --workers"
            )


@Parameter(name="*", group=AGAIN)
@attrs.frozen(kw_only=True)
class RunOptions:
    """Options that are stored with a run, and that `resume` uses again."""

    overwrite: Annotated[bool, Parameter(group=DESTINATION)] = False
    """Replace files that are there already; those of an earlier run are replaced anyway."""
    only_changed: bool = False
    """Skip segments that have not run since the export whose file is still in DIR."""
    retry_failed: Annotated[Count, Parameter(metavar="N")] = 0
    """How often to ask again where the vendor says FAILED; 0 by default."""
    on_unknown: _IfLost = "report"
    """Where the answer to a request for an export was lost: resubmit risks a second export."""
    on_expired: _IfLost = "report"
    """Where a file was gone, after 48 hours: resubmit asks for one more export."""
    export_timeout: Annotated[Seconds, Parameter(metavar="SECONDS", group=PACE)] = 86_400.0
    """Seconds for one export, across restarts; a day by default."""


_AtLeastNone = Annotated[float, Parameter(metavar="SECONDS", validator=validators.Number(gte=0))]
_Chance = Annotated[Share, Parameter(group=FAULTS, metavar="SHARE")]


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class SandboxOptions:
    """How the stand-in for the vendor behaves."""

    segments: Annotated[Positive, Parameter(metavar="N")] = 1
    """How many the account has; 1 by default, the one of the vendor's page."""
    rows: Annotated[Count, Parameter(metavar="N")] = 1000
    """Of each file; 1000 by default."""
    seed: Annotated[int, Parameter(metavar="N")] = 0
    """All chance follows from it; 0 by default."""
    duration: _AtLeastNone = 4
    """Seconds an export takes, as a median; 4 by default."""
    latency: _AtLeastNone = 0
    """Seconds an answer takes, as a median; 0 by default."""
    rate: Annotated[Rate | None, Parameter(group=LIMIT, metavar="PER_SECOND")] = None
    """Requests per second granted; no limit by default."""
    burst: Annotated[
        float, Parameter(group=LIMIT, metavar="N", validator=validators.Number(gte=1))
    ] = 1
    """Requests that may be saved up under --rate; 1 by default."""
    window: Annotated[str | None, Parameter(group=LIMIT, metavar="REQUESTS/SECONDS")] = None
    """A limit of another kind: so many requests in each window of so many seconds."""
    retry_after: Annotated[Literal["seconds", "date"] | None, Parameter(group=LIMIT)] = None
    """Say with a 429 how long to wait, in this form; by default it isn't said."""
    failed: _Chance = 0
    """Share of exports that end FAILED."""
    internal_errors: _Chance = 0
    """Share of requests answered 500."""
    gateway_errors: _Chance = 0
    """Share of requests answered 502, 503 or 504."""
    lost_before: _Chance = 0
    """Share of requests whose connection breaks before the vendor acts."""
    lost_after: _Chance = 0
    """Share of requests whose connection breaks after it acted."""
