"""Draw the figures of a store or config again; for use with `ray job submit` or in a batch script."""

import sys

from graphcast_batch.cli import main

if __name__ == "__main__":
    main(["figures", *sys.argv[1:]])
