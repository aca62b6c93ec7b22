"""HTTP: clients, one API request, storage."""
