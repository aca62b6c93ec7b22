"""The values that the vendor's page prints, as constants."""

from __future__ import annotations

from typing import Final

API_ORIGIN: Final = "https://query.indicative-prod.mparticle.com"
"""The API's address, as in every example of the page."""

FILES_ORIGIN: Final = "https://s3.us-east-1.amazonaws.com"
"""Where exported files lie: "you'll then be able to download the file" from "Amazon S3"."""

LIST_PATH: Final = "/service/v1/segments/list"
EXPORT_PATH: Final = "/service/v1/segments/export/"

OPENAPI_PATH: Final = "/openapi.json"
"""The description of the API. The vendor serves none: this path is the sandbox's own."""

PAGE_API_KEY: Final = "5a6646c4-ae5a-4de4-9d47-eb6f228405b2"
PAGE_ACCESS_TOKEN: Final = "nux06hkn870v0ni4fhtd81kf"  # noqa: S105 (the page publishes it)
PAGE_SEGMENT_ID: Final = "82200474-c131-4f7b-a35e-381469af31a7"
PAGE_EXPORT_ID: Final = "8f9fdd71-204c-41e1-a2ab-de7f85002f65"

# "accessible only to Pro or Enterprise customers": a second account of our own, which is neither.
FREE_API_KEY: Final = "0b0e9c3a-52f1-4d0c-9a57-3f1f6f2d7c11"
FREE_ACCESS_TOKEN: Final = "free0plan0has0no0exports"  # noqa: S105 (opens nothing)

PAGE_PROJECT_ID: Final = PAGE_API_KEY  # the page's segment names its API key as its project
PAGE_STARTED: Final = "2019-04-09T14:45:07.000Z"
PAGE_ENDED: Final = "2019-04-09T14:45:42.000Z"
PAGE_FILENAME: Final = f"s3://upload-bucket/path/to/{PAGE_EXPORT_ID}.csv"
FILES_FOLDER: Final = "/upload-bucket/path/to/"
