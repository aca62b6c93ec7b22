"""Who hears what becomes of exports, and of the pace: log lines, and OpenTelemetry."""
