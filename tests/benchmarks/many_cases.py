"""Ten thousand tiny Cases on one worker: does its memory stay flat, and the driver's?

Run as ``python -m tests.benchmarks.many_cases FOLDER [COUNT]``, with FOLDER on a disk that syncs fast (/dev/shm): it
prints a line of JSON for each tenth of the Cases. What was measured lies in benchmarks-results/.
"""

import json
import resource
import sys
import time
from pathlib import Path

from graphcast_batch.cluster import driver
from graphcast_batch.cluster.drain import Drain
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.setup.run_setup import assemble
from tests.conftest import SMALL

TASK = {
    "input_variables": ["2m_temperature"],
    "target_variables": ["2m_temperature"],
    "forcing_variables": [],
    "pressure_levels": [500],
}


class Samples:
    """Notes the peaks of memory now and then."""

    def __init__(self, count):
        self.every, self.done, self.begun = max(1, count // 10), 0, time.perf_counter()

    def started(self, workers, device, total, complete):
        pass

    def finished(self, record):
        self.done += 1
        if self.done % self.every == 0:
            print(
                json.dumps(
                    {
                        "cases": self.done,
                        "seconds": round(time.perf_counter() - self.begun, 1),
                        "worker_peak_mb": round(record.details["peak_memory_bytes"] / 1e6, 1),
                        "driver_peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, 1),
                    }
                ),
                flush=True,
            )

    def combined(self, record):
        pass

    def under_way(self, worker, stages):
        pass

    def retried(self, case, error):
        raise error

    def failed(self, failure):
        raise RuntimeError(failure.message)

    def note(self, event, text):
        print(event, text, flush=True)


def main(folder, count):
    model = {"weights": SMALL["model"]["weights"] | {"task": TASK}, "statistics": SMALL["model"]["statistics"]}
    content = SMALL | {
        "store": str(folder / "many"),
        "inputs": {"kind": "synthetic", "resolution": 30},
        "times": {"first": "2000-01-01T00", "last": f"{2000 + count // 1460}-12-31T18", "every_hours": 6},
        "steps": 1,
        "model": model,
        "workers": {"device": "cpu", "threads": 1, "count": 1},
        "limits": "off",
    }
    with driver.connected(None, Drain()):
        outcome = driver.run(assemble(parse_config(content, RunConfig, origin="here")), Samples(count), Drain())
    print(json.dumps({"whole": len(outcome.complete), "failed": len(outcome.failed), "seconds": outcome.seconds}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 10_000)
