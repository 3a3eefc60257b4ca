"""Draws the figures of a store or config anew; what `ray job submit` and sbatch scripts run."""

import sys

from graphcast_batch.cli import main

if __name__ == "__main__":
    main(["figures", *sys.argv[1:]])
