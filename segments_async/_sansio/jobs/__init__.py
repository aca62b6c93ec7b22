"""Where an export stands and what follows."""
