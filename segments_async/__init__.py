"""Export many user segments at once from mParticle Analytics' User Segments Export API."""

from segments_async._files.body import ExportBody
from segments_async._sansio.links import S3_HOSTS
from segments_async._sansio.pacer import Pacer
from segments_async.client import SegmentsClient
from segments_async.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    AuthenticationError,
    ConfigurationError,
    DecodeError,
    DownloadError,
    ExportError,
    ExportExpiredError,
    ExportFailedError,
    ExportTimeoutError,
    JournalError,
    NotFoundError,
    NotSubmittedError,
    PermissionDeniedError,
    RateLimitedError,
    SegmentsError,
    ServerError,
    SubmitUnknownError,
)
from segments_async.models import Export, ExportStatus, OutputFormat, Segment, SegmentType
from segments_async.results import (
    BulkExportError,
    BulkReport,
    Completed,
    Exported,
    ExportedFile,
    NotExported,
    Progress,
)
from segments_async.run import Activity, BulkRun

__all__ = [
    "S3_HOSTS",
    "APIConnectionError",
    "APIError",
    "APIStatusError",
    "Activity",
    "AuthenticationError",
    "BulkExportError",
    "BulkReport",
    "BulkRun",
    "Completed",
    "ConfigurationError",
    "DecodeError",
    "DownloadError",
    "Export",
    "ExportBody",
    "ExportError",
    "ExportExpiredError",
    "ExportFailedError",
    "ExportStatus",
    "ExportTimeoutError",
    "Exported",
    "ExportedFile",
    "JournalError",
    "NotExported",
    "NotFoundError",
    "NotSubmittedError",
    "OutputFormat",
    "Pacer",
    "PermissionDeniedError",
    "Progress",
    "RateLimitedError",
    "Segment",
    "SegmentType",
    "SegmentsClient",
    "SegmentsError",
    "ServerError",
    "SubmitUnknownError",
]
