"""Score the forecasts of a store or config against the truth; for use with `ray job submit` or in a batch script."""

import sys

from graphcast_batch.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
