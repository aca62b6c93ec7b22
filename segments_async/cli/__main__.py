"""``python -m segments_async.cli``."""

from segments_async.cli import main

if __name__ == "__main__":  # and not in the processes of `--workers`, which import the main module
    main()
