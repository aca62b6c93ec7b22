"""The client behind a real nginx, whose access log is the judge."""
