"""Makes the forecasts and figures of a config; what `ray job submit` and sbatch scripts run."""

import sys

from graphcast_batch.cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
