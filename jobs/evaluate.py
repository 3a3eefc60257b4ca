"""Scores the forecasts of a store or config against what came true; what `ray job submit` and sbatch scripts run."""

import sys

from graphcast_batch.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
