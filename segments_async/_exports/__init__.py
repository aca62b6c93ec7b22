"""Exports at the vendor, shared by the callers of one client."""
