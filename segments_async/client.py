"""`SegmentsClient`: one method for each operation of the vendor, and bulk exports."""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import ssl
import warnings
from collections.abc import AsyncGenerator, Iterable, Sequence
from functools import partial
from typing import Any, Self, Unpack, overload

import anyio

from segments_async._files.body import ExportBody
from segments_async._files.destination import Destination
from segments_async._files.export_files import ExportFiles
from segments_async._files.open_place import open_target
from segments_async._files.s3 import S3Signer
from segments_async._http.api import Api
from segments_async._http.binding import Binding
from segments_async._http.client_options import ClientOptions
from segments_async._http.clients import KEEPALIVE, CallersClient, Clients, HttpClient, OwnClients
from segments_async._http.storage import STORAGE_KEEPALIVE, Storage
from segments_async._requests.call_state import CallTelemetry, ids_of
from segments_async._requests.calls import Calls
from segments_async._requests.export_requests import ExportRequests
from segments_async._requests.followers import CallFollower
from segments_async._requests.gate import Gate, GateStatistics
from segments_async._requests.permits import Target
from segments_async._requests.registry import ExportRegistry
from segments_async._requests.shared_export import SharedExport
from segments_async._run.bulk_run import BulkRun
from segments_async._run.report import BulkReport
from segments_async._run.request import BulkOptions, StrPath, bulk_export, shows_options
from segments_async._run.resources import Resources, account_of
from segments_async._sansio.api.credentials import (
    BASE_URL,
    Origin,
    Secret,
    authorization,
    parse_base_url,
)
from segments_async._sansio.api.decoding import read_segments, read_status
from segments_async._sansio.api.wire import list_request, poll_request
from segments_async._sansio.arguments import (
    check_at_least_one,
    check_patterns,
    check_positive,
    check_timeout,
    export_id_of,
    segment_id_of,
)
from segments_async._sansio.files.links import MOST_REDIRECTS, S3_HOSTS, check_addresses, check_link
from segments_async._sansio.jobs.exports import is_complete
from segments_async._sansio.pace.pacer import Pacer
from segments_async._sansio.pace.scheduler import PollScheduler
from segments_async._telemetry.listener import Operation
from segments_async._telemetry.otel import current_metrics
from segments_async.errors import ConfigurationError
from segments_async.models import Export, OutputFormat, Segment
from segments_async.results import Completed, Exported, ExportedFile, Held

logger: logging.Logger = logging.getLogger("segments_async")

API_KEY = "SEGMENTS_API_KEY"
ACCESS_TOKEN = "SEGMENTS_ACCESS_TOKEN"  # noqa: S105 - a variable's name

#: Storage gets this many seconds for connecting, and between two chunks.
STORAGE_TIMEOUT = 60.0


class SegmentsClient:
    """A client for mParticle Analytics' User Segments Export API.

    It belongs to the event loop, asyncio's or trio's, in which it is first used. In another loop
    or in a forked process, and after :meth:`aclose`, each operation raises
    :class:`ConfigurationError` and sends nothing. It may be made outside of any loop.
    ``async with`` closes its connections at the end, and :meth:`aclose` does the same. It has no
    background tasks.

    The environment's certificates (``SSL_CERT_FILE``, ``SSL_CERT_DIR``) and proxies are read before
    the first request. What can't be used there is a :class:`ConfigurationError` that names the
    variable.

    All its calls share one request budget: a 429 to any of them holds all of them, and a hundred
    concurrent :meth:`export` calls behave as one bulk run.

    Args:
        api_key: the project's API key.
        access_token: its access token; kept out of every repr, log and error.
        base_url: the vendor's place. ``https://``, or ``http://`` on loopback. Credentials are
            sent there and nowhere else.
        pacer: None learns the rate. ``Pacer(rate=20)`` starts at 20 requests/s and never sends
            faster; ``Pacer(rate=math.inf)`` doesn't pace before the first 429. May be given to
            several clients of one account in one event loop.
        poll_share: share of requests that polls may take while exports wait to be submitted:
            0 gives the shortest run, 1 the earliest results.
        max_pending: exports at work at the vendor at once; None for no cap of ours.
        downloads: files fetched at once.
        request_timeout: seconds for one API request, from connecting to the answer's last byte; for
            one on a connection that is there already, from its first byte. Waiting for its turn,
            or for a connection of `http_client`'s pool, doesn't count; nor does a time in which
            this process stood still.
        file_hosts: hosts that links to files may name, as patterns: ``*`` stands for anything, and
            ``{region}`` for an AWS region; a port at the end is the only one then. The default is
            S3's own hosts on port 443; ``[*S3_HOSTS, "files.example.com"]`` adds one.
        http_client: an ``httpx.AsyncClient`` for the API: used, never closed, never changed.
        file_http_client: one for storage, likewise. It should send no credentials of its own.
        ssl_context: for both of the library's own clients; it has to verify certificates and host
            names. None for the system's trust.
        allow_insecure: admit plain ``http://`` beyond loopback, with a warning.

    Raises:
        ConfigurationError: something of the above can't work.
    """

    def __init__(
        self,
        api_key: str,
        access_token: str,
        *,
        base_url: str = BASE_URL,
        pacer: Pacer | None = None,
        poll_share: float = 0.2,
        max_pending: int | None = None,
        downloads: int = 8,
        request_timeout: float = 30.0,
        file_hosts: Sequence[str] = S3_HOSTS,
        http_client: HttpClient | None = None,
        file_http_client: HttpClient | None = None,
        ssl_context: ssl.SSLContext | None = None,
        allow_insecure: bool = False,
    ) -> None:
        key, token = Secret(api_key), Secret(access_token)
        del api_key, access_token  # an error below shows this frame's variables to error reporters
        header = authorization(key.reveal(), token.reveal())
        origin = parse_base_url(base_url)
        _check_transport(origin, allow_insecure=allow_insecure)
        check_positive("request_timeout", request_timeout)
        check_at_least_one("downloads", downloads)
        scheduler = PollScheduler[Target](poll_share=poll_share, max_pending=max_pending)
        reachable = partial(check_addresses, loopback=origin.loopback)
        self._binding = Binding()
        # An API on loopback is asked past any proxy; so is storage then.
        own = partial(OwnClients, ssl_context, loopback=origin.loopback)
        clients = (
            CallersClient(http_client)
            if http_client is not None
            else own(KEEPALIVE, scheme=origin.scheme)
        )
        file_clients = (
            CallersClient(file_http_client, "file_http_client")
            if file_http_client is not None
            else own(STORAGE_KEEPALIVE, check_peer=reachable, files=True)
        )
        self._own = [made for made in (clients, file_clients) if isinstance(made, OwnClients)]
        self._api = Api(clients, origin, header, request_timeout)
        self._gate = Gate(self._api, pacer or Pacer(), scheduler)
        self._storage = _storage(file_clients, check_patterns(file_hosts), loopback=origin.loopback)
        self._enter = partial(_enter, self._binding, self._api, self._storage)
        self._calls = Calls(self._gate)
        self._telemetry = CallTelemetry()
        self._files = ExportFiles(self._storage, downloads, self.get_export)
        self._registry = ExportRegistry(self._gate)
        requests = ExportRequests(self._gate, self._registry)
        self._follower = partial(CallFollower, requests=requests)
        self._resources = Resources(
            check=self._enter,
            account=account_of(base_url, key.reveal()),
            gate=self._gate,
            registry=self._registry,
            requests=requests,
            files=self._files,
        )

    def __repr__(self) -> str:
        gate = vars(self).get("_gate")  # an error of the constructor shows a client without one
        return (
            f"<SegmentsClient: {self._api.place:.80}, {gate!r:.100}>"
            if gate
            else "<SegmentsClient>"
        )

    @classmethod
    def from_env(cls, **keywords: Unpack[ClientOptions]) -> Self:
        """A client with credentials from the environment.

        Reads ``SEGMENTS_API_KEY``, ``SEGMENTS_ACCESS_TOKEN`` and, if set, ``SEGMENTS_BASE_URL``.

        Args:
            **keywords: the constructor's; ``base_url`` here beats the environment's.

        Raises:
            ConfigurationError: a credential is missing or malformed.
        """
        for name in (API_KEY, ACCESS_TOKEN):
            if not os.environ.get(name):
                raise ConfigurationError(f"{name} is not set")
        if base_url := os.environ.get("SEGMENTS_BASE_URL"):
            keywords.setdefault("base_url", base_url)
        # Never in a local variable: the environment alone has them, and this frame may be shown.
        return cls(os.environ[API_KEY], os.environ[ACCESS_TOKEN], **keywords)

    async def __aenter__(self) -> Self:
        current_metrics()  # so that a scrape before the first call or run finds the series, at 0
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections of the library's own HTTP clients. May be called twice.

        Afterwards every operation is refused. In another event loop or process than the client was
        used in, nothing can be closed: there its connections are only forgotten.
        """
        if not self._binding.close():
            for clients in self._own:
                clients.forget()
            return
        self._telemetry.close()
        with anyio.CancelScope(shield=True):
            for clients in self._own:
                await clients.aclose()

    @property
    def held(self) -> Held | None:
        """What delays this client's requests or downloads; None where nothing does.

        For all its callers together: a list that waits, single exports, bulk runs; also the next
        request, where none waits now. Read it in the client's event loop.
        """
        return self._resources.held({"waiting": 1, "fetching": self._files.connections})

    # ----------------------------------------------------------------- the vendor's operations

    async def list_segments(self, *, timeout: float | None = None) -> list[Segment]:
        """List the account's user segments, in the vendor's order.

        A record without a readable id is left out, with a warning. A warning also says where the
        answer is one page of several: the vendor doesn't document any, and the others are not read.

        Args:
            timeout: seconds for the answer, the wait for the request's turn included. While the
                vendor is away the list is tried again until then. None: five attempts, before each
                of which the list waits for its turn, after a 500 for a minute or more.

        Raises:
            APITimeoutError: no answer came in time.
            APIError: the request failed; its subclasses say how.
        """
        check_timeout(timeout)
        self._enter(files=False)
        request = list_request()
        found = await self._calls.call(request, read_segments, timeout=timeout)
        if found.left_out:
            logger.warning(
                "%d of the list's records can't be read, and are left out; the first: %s",
                found.left_out,
                found.fault,
            )
        if found.goes_on:
            logger.warning(
                "the vendor says that its list has more pages, which this version of the library "
                "can't read: only the first %d segments are listed",
                len(found.segments),
            )
        return found.segments

    async def request_export(
        self, segment: Segment | str, *, output_format: OutputFormat = OutputFormat.CSV
    ) -> Export:
        """Ask for an export. Always asks: a running export of the segment isn't joined.

        Args:
            segment: a segment, or its id.
            output_format: of the file.

        Raises:
            SubmitUnknownError: the answer was lost, so the export may be running. The API has no
                idempotency key; asking again is the caller's decision.
            APIError: it was refused.
        """
        segment_id = segment_id_of(segment)
        self._enter()
        with self._telemetry.call(Operation.REQUEST, (segment_id, None)) as state:
            start = partial(
                self._registry.start_alone, segment_id=segment_id, output_format=output_format
            )
            return await self._follower(state).wait(start, until=_is_accepted)

    async def get_export(self, export: Export | str, *, timeout: float | None = None) -> Export:
        """Ask once where an export stands.

        Args:
            export: an export, or its id.
            timeout: as of :meth:`list_segments`.

        Raises:
            NotFoundError: no such export in this account.
            APITimeoutError: no answer came in time.
            APIError: the request failed; its subclasses say how.
        """
        check_timeout(timeout)
        export_id = export_id_of(export)
        self._enter(files=False)
        read, request = partial(read_status, export_id=export_id), poll_request(export_id)
        return await self._calls.call(request, read, timeout=timeout)

    async def wait_for_export(
        self, export: Export | str, *, timeout: float | None = None
    ) -> Export:
        """Wait until an export is COMPLETE, and return it with its link.

        A failing poll doesn't end the wait: the vendor's 429 and 5xx, a broken link and an
        unreadable answer mean "ask again later".

        Args:
            export: an export, or its id, of this process or another.
            timeout: seconds; None waits for as long as it takes.

        Raises:
            ExportFailedError: the vendor says FAILED.
            ExportTimeoutError: not finished in time. It goes on at the vendor: wait again.
            NotFoundError: no such export, and not only for a moment.
        """
        check_timeout(timeout)
        export_id = export_id_of(export)
        self._enter(files=False)
        if isinstance(export, Export) and is_complete(export):
            return export
        with self._telemetry.call(Operation.WAIT, ids_of(export)) as state:
            follower, known = self._follower(state), export if isinstance(export, Export) else None
            join = partial(self._registry.join_export, export_id=export_id, export=known)
            with anyio.move_on_after(timeout):
                return await follower.wait(join)
            raise follower.timeout_error(timeout)

    async def download_export(
        self, export: Export | str, to: StrPath, *, overwrite: bool = False
    ) -> ExportedFile:
        """Fetch the file of a COMPLETE export.

        Args:
            export: an export, or its id. Without a link in it, the vendor is asked once.
            to: the file's path, or the URL of an object (``"s3://bucket/name.csv"``). It appears
                there only when it is whole.
            overwrite: replace what is there.

        Raises:
            ConfigurationError: the path can't be written, or the export isn't COMPLETE yet.
            ExportFailedError: the vendor says FAILED.
            DestinationError: the object can't be written.
            DownloadError: with its reason.
            ExportExpiredError: the file is gone, after 48 hours.
        """
        self._enter(asks_api=False)
        target = await open_target(to, overwrite=overwrite)
        with self._telemetry.call(Operation.DOWNLOAD, ids_of(export)) as state:
            found = await self._files.with_link(export)
            state.on_fetch(found)
            return state.on_fetched(await self._files.fetch(found, target))

    @contextlib.asynccontextmanager
    async def open_export(self, export: Export | str) -> AsyncGenerator[ExportBody]:
        """Read the file of a COMPLETE export without storing it.

        ::

            async with client.open_export(export) as body:
                async for row in body.rows(): ...

        Args:
            export: the export, or its id.

        Raises:
            DownloadError: the file can't be fetched, or the connection breaks off while it is read.
            ExportExpiredError: the file is gone, after 48 hours.
        """
        self._enter(asks_api=False)
        found = await self._files.with_link(export)
        async with self._files.open(found) as body:
            yield body

    async def export(
        self,
        segment: Segment | str,
        to: StrPath,
        *,
        timeout: float | None = None,
        overwrite: bool = False,
    ) -> ExportedFile:
        """Export a segment to a file: ask, wait, fetch.

        Joins an export of the same segment that this client already waits for.

        Args:
            segment: a segment, or its id.
            to: the file's path, or the URL of an object (``"s3://bucket/name.csv"``), checked
                before anything is asked of the vendor.
            timeout: seconds for all of it; None for as long as it takes.
            overwrite: replace what is there.

        Raises:
            ExportError: the export came to nothing; see its subclasses.
            DownloadError: its file could not be fetched.
            APIError: the vendor refused, or can't be reached.
            ConfigurationError: the path can't be written.
            DestinationError: the object can't be written.
        """
        check_timeout(timeout)
        segment_id = segment_id_of(segment)
        self._enter()
        target = await open_target(to, overwrite=overwrite)
        with self._telemetry.call(Operation.EXPORT, (segment_id, None)) as state:
            follower = self._follower(state)
            with anyio.move_on_after(timeout):
                complete = await follower.wait(
                    partial(self._registry.join_segment, segment_id=segment_id)
                )
                state.on_fetch(complete)
                return state.on_fetched(await self._files.fetch(complete, target))
            raise follower.timeout_error(timeout)

    # ----------------------------------------------------------------- bulk

    @overload
    def open_bulk_export(
        self,
        segments: Iterable[Segment | str],
        to: StrPath | Destination,
        **options: Unpack[BulkOptions],
    ) -> BulkRun[Exported]: ...
    @overload
    def open_bulk_export(
        self, segments: Iterable[Segment | str], to: None, **options: Unpack[BulkOptions]
    ) -> BulkRun[Completed]: ...
    @shows_options(BulkOptions)
    def open_bulk_export(
        self,
        segments: Iterable[Segment | str],
        to: StrPath | Destination | None,
        **options: Unpack[BulkOptions],
    ) -> BulkRun[Any]:
        """Export many segments at once.

        ::

            async with client.open_bulk_export(segments, "exports/") as run:
                async for outcome in run: ...

        Args:
            segments: segments or their ids; one given twice is exported once. Segments get
                readable file names, ids only their id.
            to: a directory for the files and `manifest.jsonl`, or a place in object storage, such
                as ``"s3://bucket/prefix/"`` (also ``gs://`` and ``az://``; needs the extra
                ``objects``), or a :class:`Destination` of your own. None fetches nothing, and
                yields :class:`Completed` with the link.
            journal: where to keep what happened, so that a killed run goes on: the path of a SQLite
                file, or a SQLAlchemy URL (``postgresql://...``). Needs the extra ``journal``. None
                keeps nothing: what a process had asked for is lost with it.
            run: the run's name in the journal. None goes on with the unfinished run to this
                directory that no caller named, else starts one that is named by the time: right for
                a job each night, which then takes up what the last night left. A name goes on with
                that run; if it is finished, its outcomes are told again and nothing is sent. By the
                name of another night, a run asks again for exports that are unfinished.
            shared: several processes work at the run of this name, each of which makes this call.
                Each yields the outcomes of the segments that it works at; ``await run.report()``
                waits for the end of the whole run, and has all. Segments that a process brings and
                others don't are added. Needs ``journal`` and ``run``.
            timeout: seconds for the whole call, None for as long as it takes; what is unfinished
                then is reported as resumable.
            export_timeout: seconds for one export, from its accepted POST, across restarts; looked
                at whenever it is polled.
            only_changed: don't export what has not run since its last export to this directory, if
                that file is still there: its outcome has ``source="unchanged"``. Needs a journal,
                and :class:`Segment` values as :meth:`list_segments` gives them.
            retry_failed: how often a segment whose export the vendor said FAILED is exported
                again, each time after a minute.
            on_unknown: ``"resubmit"`` asks again where the answer to a POST was lost, at the risk
                of a second export; ``"report"`` ends it as :class:`SubmitUnknownError`.
            on_expired: ``"resubmit"`` asks for one more export where the file was gone before it
                could be fetched; ``"report"`` ends it as :class:`ExportExpiredError`.
            expected_seconds: how long exports may take, by segment id: the longest are submitted
                first, which shortens the run. Rough guesses do.
            overwrite: replace files that are there already; otherwise their segments are not
                exported, and nothing is asked of the vendor for them. A file that the journal
                knows as an earlier run's is replaced in any case.

        Raises:
            ConfigurationError: an id that can't be one, or options that make no sense; on
                entering, a directory that can't be written.
            DestinationError: on entering, object storage that can't be written.
            JournalError: on entering: a live process has the run, or the journal is damaged...
        """
        return BulkRun(self._resources, bulk_export(segments, to, **options))

    @overload
    async def bulk_export(
        self,
        segments: Iterable[Segment | str],
        to: StrPath | Destination,
        **options: Unpack[BulkOptions],
    ) -> BulkReport[Exported]: ...
    @overload
    async def bulk_export(
        self, segments: Iterable[Segment | str], to: None, **options: Unpack[BulkOptions]
    ) -> BulkReport[Completed]: ...
    @shows_options(BulkOptions)
    async def bulk_export(
        self,
        segments: Iterable[Segment | str],
        to: StrPath | Destination | None,
        **options: Unpack[BulkOptions],
    ) -> BulkReport[Any]:
        """Export many segments, and return only the result.

        The arguments are those of :meth:`open_bulk_export`.

        Raises:
            AuthenticationError: the account ended the run.
            PermissionDeniedError: the account ended the run.
            ConfigurationError: as in :meth:`open_bulk_export`.
            JournalError: as in :meth:`open_bulk_export`.
        """
        run: BulkRun[Any] = BulkRun(self._resources, bulk_export(segments, to, **options))
        del options  # the journal's URL may have a password: errors show this frame's variables
        async with run:
            return await run.report()


def _show_keywords_of_from_env() -> None:
    """Let `inspect.signature` and rendered docs show each keyword of `from_env`."""
    own = inspect.signature(SegmentsClient)
    keywords = [one for one in own.parameters.values() if one.kind is one.KEYWORD_ONLY]
    cls = inspect.Parameter("cls", inspect.Parameter.POSITIONAL_ONLY)
    function: Any = vars(SegmentsClient)["from_env"].__func__
    function.__signature__ = inspect.Signature([cls, *keywords], return_annotation=Self)


_show_keywords_of_from_env()


def _enter(
    binding: Binding, api: Api, storage: Storage, *, asks_api: bool = True, files: bool = True
) -> None:
    """The first step of each operation: it finds each fault that can be found without a request.

    Args:
        binding: of the client.
        api: of the client.
        storage: of the client.
        asks_api: whether the operation asks the API.
        files: whether the operation asks storage, or asks for an export. Exports whose files can't
            be fetched would be made in vain.

    Raises:
        ConfigurationError: the client is closed, or another event loop's or process's; or the
            environment's certificates or proxies can't be used.
    """
    binding.check()
    if asks_api:
        api.prepare()
    if files:
        storage.prepare()


def _storage(clients: Clients, file_hosts: tuple[str, ...], *, loopback: bool) -> Storage:
    return Storage(
        clients,
        partial(check_link, file_hosts=file_hosts, loopback=loopback),
        redirects=MOST_REDIRECTS,
        timeout=STORAGE_TIMEOUT,
        # A caller's transport may connect to anything, or to no network at all.
        check_addresses=(
            partial(check_addresses, loopback=loopback) if isinstance(clients, OwnClients) else None
        ),
        signer=S3Signer(),
    )


def _is_accepted(shared: SharedExport) -> bool:
    return shared.ended or shared.export_id is not None


def _check_transport(origin: Origin, *, allow_insecure: bool) -> None:
    if origin.secure:
        return
    if not allow_insecure:
        raise ConfigurationError(
            "base_url: plain http:// would send the credentials in the clear; "
            "allow_insecure=True admits it"
        )
    warnings.warn("the vendor's API requires HTTPS; credentials travel in the clear", stacklevel=3)


def statistics_of(client: SegmentsClient) -> tuple[GateStatistics, int]:
    """For tests: a client's gate at this moment, and its connections to storage."""
    gate = client._gate  # pyright: ignore[reportPrivateUsage]
    return gate.statistics(), client._files.connections  # pyright: ignore[reportPrivateUsage]
