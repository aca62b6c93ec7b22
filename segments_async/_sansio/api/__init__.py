"""What the API is asked and what its answers say."""
