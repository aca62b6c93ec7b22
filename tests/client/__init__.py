"""The client end to end, against the sandbox; its record is the judge."""
