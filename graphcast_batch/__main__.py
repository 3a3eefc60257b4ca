"""``python -m graphcast_batch`` becomes the command ``graphcast-batch``."""

from graphcast_batch.cli import main

if __name__ == "__main__":
    main()
