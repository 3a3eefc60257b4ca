"""Train the weights of a recipe; for use with `ray job submit` or in a batch script."""

import sys

from graphcast_batch.cli import main

if __name__ == "__main__":
    main(["finetune", *sys.argv[1:]])
