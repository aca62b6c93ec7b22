"""The requests to the API: when each is sent, and for whom: single calls, and shared exports."""
