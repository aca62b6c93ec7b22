"""Requests to storage, which has the files: without the API's credentials, and with no link logged.

Each request is built by the client that sends it, so this module does not import httpx.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import urljoin, urlsplit

import anyio
import attrs

from segments_async._http.addresses import addresses_of
from segments_async._http.clients import USER_AGENT, Clients, HttpClient, stands_in
from segments_async._http.errors import forget_request, is_no_answer
from segments_async._http.redaction import no_tracing, redact_logs
from segments_async._http.responses import Response, close
from segments_async._http.storage_body import (
    NoAnswer,
    StorageBody,
    StorageBroken,
    raise_storage_broken,
)
from segments_async._http.storage_gate import StorageGate
from segments_async._sansio.api.credentials import Secret
from segments_async._sansio.api.redaction import place_of
from segments_async._sansio.files.links import LinkRefused, quoted, request_target
from segments_async._sansio.files.s3_links import S3Object, is_s3_link, parse_s3_link
from segments_async._sansio.files.storage_errors import (
    PAGE_START,
    has_type_of_page,
    is_page,
    storage_error,
)
from segments_async._sansio.pace.hold import Hold

if TYPE_CHECKING:
    pass

#: Seconds an idle connection is kept: longer than to the API, since these requests can be repeated.
STORAGE_KEEPALIVE = 15.0

#: Largest error page read, in bytes.
STORAGE_ERROR_CAP = 16 * 1024

_REDIRECTS = (301, 302, 303, 307, 308)

#: The default of `Storage.get`: no more headers than the client's own.
NO_HEADERS: Mapping[str, str] = {}


@attrs.frozen
class StorageAnswer:
    """The head of storage's answer.

    Attributes:
        headers: by lower-case names.
        chunks: the body, as served.
        read_into: reads the next bytes of the body into a buffer instead, which is faster for large
            bodies. Returns the number of bytes; 0 at the end.
        away: whether storage as a whole is unavailable, so that this file is not the cause.
    """

    status: int
    headers: Mapping[str, str] = attrs.field(repr=False)  # a Location may be signed
    chunks: AsyncIterator[bytes] = attrs.field(repr=False)
    read_into: Callable[[memoryview], Awaitable[int]] = attrs.field(repr=False)
    away: bool = False


@attrs.frozen
class SignedLink:
    """An https URL of an object, and the region for which the URL is signed."""

    url: str = attrs.field(repr=False)
    region: str


class Signer(Protocol):
    """Turns ``s3://`` links into https ones."""

    #: Whether the last link could not be signed, for a reason that may pass.
    failing: bool

    async def sign(self, target: S3Object) -> SignedLink:
        """A URL that is valid for some minutes; unsigned if there are no credentials."""
        ...

    def learn(self, bucket: str, region: str) -> None:
        """Remember the bucket's region."""
        ...


class Storage:
    """Sends requests to storage, without the API's credentials and cookies.

    Args:
        clients: httpx's or httpx2's.
        check: raises to refuse a link; called for the link and for each redirect.
        redirects: number of redirects that are followed.
        timeout: seconds for connecting, and between two chunks.
        check_addresses: called before each request with the host and the addresses that its name
            resolves to. Raises to refuse the host. A name without an address is then asked for only
            through a proxy, which may resolve it. None for a caller's clients, whose transports may
            connect to other addresses.
        signer: for ``s3://`` links; None refuses those.
    """

    def __init__(
        self,
        clients: Clients,
        check: Callable[[str], str],
        *,
        redirects: int,
        timeout: float,
        check_addresses: Callable[[str, list[str]], None] | None = None,
        signer: Signer | None = None,
    ) -> None:
        self._clients = clients
        self._check = check
        self._redirects = redirects
        self._timeout = timeout
        self._check_addresses = check_addresses
        self._signer = signer
        self._gate = StorageGate()

    async def turn(self) -> None:
        """Wait during an outage of storage. Then call :meth:`get` at once: it is the probe.

        Raises:
            StorageUnavailable: the outage has lasted for hours.
        """
        await self._gate.turn()

    def hold(self, now: float) -> Hold | None:
        """What delays the downloads; None where nothing does."""
        unsigned = self._signer is not None and self._signer.failing
        return self._gate.hold(now, unsigned=unsigned)

    def prepare(self) -> None:
        """See `Clients.prepare`."""
        self._clients.prepare()

    def get(
        self, link: str, headers: Mapping[str, str] = NO_HEADERS
    ) -> contextlib.AbstractAsyncContextManager[StorageAnswer]:
        """Request the file, and follow the redirects that the policy admits.

        Args:
            link: from the vendor: an ``https://`` URL, or ``s3://bucket/key``.
            headers: of the request and of redirected ones: Range, If-Match, If-Range.

        Raises:
            LinkRefused: by the policy, for the link or a redirect; an s3:// link can't be signed.
            StorageBroken: no answer came, or its body broke off.
        """
        # Error reporters show the local variables of an error's frames. Only this frame has the
        # link as a plain text, and it ends before anything can fail.
        return self._get(Secret(link), headers)

    @contextlib.asynccontextmanager
    async def _get(self, link: Secret, headers: Mapping[str, str]) -> AsyncGenerator[StorageAnswer]:
        client = self._clients.borrow()
        try:
            sent_at, file = anyio.current_time(), _file_of(link)
            answer = await self._open(client, link, headers)
            try:
                await self._refuse_page(answer, file, sent_at)
                status = answer.response.status_code
                away = self._gate.on_answer(status, answer.headers, file, sent_at=sent_at)
                yield StorageAnswer(status, answer.headers, answer, answer.read_into, away)
            finally:
                await answer.aclose()
        finally:
            self._clients.give_back(client)

    async def _refuse_page(self, answer: StorageBody, file: str, sent_at: float) -> None:
        """Raise if a page came in the file's place: a login, a firewall's test, an error.

        Such pages come to all files of a network, or of a storage that is away.
        """
        try:
            page = await self._begins_as_page(answer)
        except BaseException:
            self._gate.on_inconclusive()
            raise
        if page:
            what = "a web page came with status 200 in the file's place"
            broken = StorageBroken(what)
            broken.away = self._gate.on_failed("fault", file, what, sent_at=sent_at)
            raise broken

    async def _begins_as_page(self, answer: StorageBody) -> bool:
        if answer.response.status_code != 200 or not has_type_of_page(answer.headers):
            return False
        with anyio.move_on_after(self._timeout):
            return is_page(await answer.peek(PAGE_START))
        raise StorageBroken("the body didn't begin in time")

    async def _open(
        self, client: HttpClient, link: Secret, headers: Mapping[str, str]
    ) -> StorageBody:
        handled, sent_at = sys.exception(), anyio.current_time()
        self._gate.on_sent()
        try:
            if self._signer is not None and is_s3_link(link.reveal()):
                target = parse_s3_link(link.reveal())
                return await self._signed(client, self._signer, target, headers)
            return await self._follow(client, link.reveal(), headers)
        except BaseException as exc:
            if isinstance(exc, NoAnswer):
                file = _file_of(link)
                exc.away = self._gate.on_failed("unreachable", file, str(exc), sent_at=sent_at)
            else:
                self._gate.on_inconclusive()
            # The frames below hold the link and those of redirects. An error of the caller's own
            # transport passes as it is, with its frames.
            if isinstance(exc, StorageBroken | LinkRefused) or not isinstance(exc, Exception):
                forget_request(exc, handled)
            raise

    async def _signed(
        self, client: HttpClient, signer: Signer, target: S3Object, headers: Mapping[str, str]
    ) -> StorageBody:
        """Sign the link and request the file; sign once more if the bucket is in another region."""
        first = await signer.sign(target)
        answer = await self._follow(client, first.url, headers, signed=True)
        try:
            region = await self._other_region(answer)
        except BaseException:
            await close(answer.response)
            raise
        if region is None or region == first.region:
            return answer
        await close(answer.response)
        signer.learn(target.bucket, region)
        second = await signer.sign(target)
        return await self._follow(client, second.url, headers)

    async def _follow(
        self, client: HttpClient, link: str, headers: Mapping[str, str], *, signed: bool = False
    ) -> StorageBody:
        for _ in range(self._redirects + 1):
            link = quoted(link)
            await self._admit(link)
            response = await self._request(client, link, headers)
            answer = StorageBody(response, self._timeout)
            location = answer.headers.get("location")
            # A signature is valid for its host alone. If the answer names the bucket's region, the
            # link is signed for that region instead.
            resign = signed and "x-amz-bucket-region" in answer.headers
            if response.status_code not in _REDIRECTS or location is None or resign:
                return answer
            await close(response)
            try:
                link = urljoin(link, location)
            except ValueError:
                link = location  # not a URL: the policy refuses it
        raise StorageBroken(f"more than {self._redirects} redirects")

    async def _other_region(self, answer: StorageBody) -> str | None:
        """The bucket's region, if the answer says that the request went to another one."""
        response = answer.response
        if response.status_code not in (301, 307, 400):
            return None
        with anyio.move_on_after(self._timeout):
            page = await answer.peek(STORAGE_ERROR_CAP)
            error = storage_error(response.status_code, answer.headers, page)
            return error.region if error.remedy == "region" else None
        raise StorageBroken("an error page that doesn't end")

    async def _admit(self, link: str) -> None:
        self._check(link)
        if self._check_addresses is None or stands_in():
            return
        parts = urlsplit(link)
        host = parts.hostname or ""
        found: list[str] | None = None
        with anyio.move_on_after(self._timeout):
            found = await addresses_of(host)
        if not found and self._clients.resolves_here(host, parts.port or 443):
            why = "doesn't resolve" if found is not None else "was not resolved in time"
            raise StorageBroken(f"the name {host!r} {why}")
        self._check_addresses(host, found or [])

    async def _request(self, client: HttpClient, link: str, headers: Mapping[str, str]) -> Response:
        handled = sys.exception()
        headers = {**headers, "Accept-Encoding": "identity", "User-Agent": USER_AGENT}
        try:
            outgoing = client.build_request("GET", link, headers=headers, timeout=self._timeout)
            outgoing.headers.pop("cookie", None)
            _keep_path(outgoing, link)
            with redact_logs(place_of(link)), no_tracing():
                answer = await client.send(
                    outgoing, stream=True, auth=_no_credentials, follow_redirects=False
                )
            return cast(Response, answer)
        except Exception as exc:  # noqa: BLE001 - raised again, as ours or as itself
            kind = NoAnswer if is_no_answer(exc) else StorageBroken
            raise_storage_broken(exc, handled, kind=kind)


def _keep_path(outgoing: Any, link: str) -> None:
    """Send the path that was signed: httpx removes '.' and '..', which S3's keys may have."""
    target = request_target(link)
    if target is not None and outgoing.url.raw_path != target:
        outgoing.extensions["target"] = target


def _no_credentials(outgoing: Any) -> Any:
    """Remove the Authorization header that a caller's client may have added."""
    outgoing.headers.pop("authorization", None)
    return outgoing


def _file_of(link: Secret) -> str:
    """A name of the file that reveals nothing of its link."""
    # The policy, which refuses half a surrogate pair, comes later.
    text = link.reveal().partition("?")[0].encode(errors="surrogatepass")
    return hashlib.sha256(text).hexdigest()
