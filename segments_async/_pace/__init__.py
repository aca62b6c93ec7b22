"""When each API request is sent."""
