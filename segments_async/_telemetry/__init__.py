"""The listeners to changes of exports and of the pace: log lines, and OpenTelemetry."""
