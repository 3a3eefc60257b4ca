"""Trains the weights of a recipe; what `ray job submit` and sbatch scripts run."""

import sys

from graphcast_batch.cli import main

if __name__ == "__main__":
    main(["finetune", *sys.argv[1:]])
