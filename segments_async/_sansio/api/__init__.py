"""The requests to the API, and the decoding of its answers."""
