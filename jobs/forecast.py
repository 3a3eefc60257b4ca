"""Make the forecasts and figures of a config; for use with `ray job submit` or in a batch script."""

import sys

from graphcast_batch.cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
