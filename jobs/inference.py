"""Make one forecast from one dataset file; the options are those of `graphcast-batch infer`."""

import sys

from graphcast_batch.cli import main

if __name__ == "__main__":
    main(["infer", *sys.argv[1:]])
