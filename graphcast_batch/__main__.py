"""Run the command ``graphcast-batch`` as ``python -m graphcast_batch``."""

from graphcast_batch.cli import main

if __name__ == "__main__":
    main()
