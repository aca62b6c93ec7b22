"""The body of a file for its reader: bytes, or rows."""

from __future__ import annotations

from collections.abc import AsyncIterator

from segments_async._files.refusals import download_error
from segments_async._files.rows import Rows
from segments_async._http.storage_body import StorageBroken
from segments_async.errors import ConfigurationError
from segments_async.models import Export


class ExportBody:
    """The body of a file, read once, as it arrives.

    Attributes:
        export: the file's export.
    """

    def __init__(self, chunks: AsyncIterator[bytes], export: Export) -> None:
        self._chunks = chunks
        self._taken = False
        self.export = export

    def __repr__(self) -> str:
        return f"<ExportBody of export {self.export.export_id}>"

    def iter_bytes(self) -> AsyncIterator[bytes]:
        """The bytes of the file, in pieces of any size; decoded if it is stored gzip-encoded.

        Raises:
            ConfigurationError: the body is being read already; it can be read once.
            DownloadError: the connection broke off.
        """
        if self._taken:
            raise ConfigurationError("the body of a file is read once; open the export again")
        self._taken = True
        return _Bytes(self._chunks, self.export)

    def rows(self) -> AsyncIterator[dict[str, str]]:
        """The rows of the CSV file, each a dict from the header's names to the fields.

        Raises:
            ConfigurationError: the body is being read already; it can be read once.
            DownloadError: the connection broke off, or the file isn't CSV.
        """
        return Rows(self.iter_bytes(), self.export)


class _Bytes:
    """Chunks; a broken connection is raised as the public error."""

    def __init__(self, chunks: AsyncIterator[bytes], export: Export) -> None:
        self._chunks = chunks
        self._export = export

    def __aiter__(self) -> _Bytes:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self._chunks.__anext__()
        except StorageBroken as exc:
            raise download_error(self._export, "broken", str(exc)) from None
