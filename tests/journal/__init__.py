"""The durable journal, on SQLite and on PostgreSQL."""
