"""The page's three printed answers, copied from it."""

SEGMENT = """{
    "segmentId": "82200474-c131-4f7b-a35e-381469af31a7",
    "name": "My Segment",
    "description": "This is my segment",
    "category": null,
    "projectId": "5a6646c4-ae5a-4de4-9d47-eb6f228405b2",
    "type": "Static",
    "lastRun": "2019-04-09T12:25:06.000Z"
  }"""

LISTED = f"""[
  {SEGMENT}
]"""

REQUESTED = f"""{{
  "exportId": "8f9fdd71-204c-41e1-a2ab-de7f85002f65",
  "segment": {SEGMENT},
  "status": "PENDING",
  "startTime": "2019-04-09T14:45:07.000Z",
  "endTime": null,
  "filename": null
}}"""

CHECKED = f"""{{
  "exportId": "8f9fdd71-204c-41e1-a2ab-de7f85002f65",
  "segment": {SEGMENT},
  "status": "COMPLETE",
  "startTime": "2019-04-09T14:45:07.000Z",
  "endTime": "2019-04-09T14:45:42.000Z",
  "filename": "s3://upload-bucket/path/to/8f9fdd71-204c-41e1-a2ab-de7f85002f65.csv"
}}"""
