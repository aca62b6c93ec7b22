"""What files and the journal need of a file system."""
