"""Make Cases with one worker in this process, without Ray, and measure how its stages overlap."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from graphcast_batch.bench.step_contestant import Size
from graphcast_batch.cluster.dispatch_rules import IN_FLIGHT
from graphcast_batch.cluster.usable_memory import usable_bytes
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.config.times_section import TimesConfig
from graphcast_batch.inputs.statistics import run_serially
from graphcast_batch.models.base import Precision
from graphcast_batch.models.devices import backend, device_bytes
from graphcast_batch.pipeline.worker_context import WorkerContext
from graphcast_batch.plan import Case
from graphcast_batch.setup.resources import fitting_use, memory_uses
from graphcast_batch.setup.run_setup import assemble
from graphcast_batch.setup.run_statistics import statistics_of
from graphcast_batch.setup.store_identity import lay_out
from graphcast_batch.setup.worker_setup import worker_context
from graphcast_batch.timing import Balance, balance
from graphcast_batch.variables import HOUR

_COMPILING: Final = 2
"""Cases that are made before those that count, while the program is compiled."""


def stages_of(context: WorkerContext, cases: Sequence[Case]) -> Balance:
    """Make Cases with a worker that has as many at once as a driver would give it; return how its stages overlapped."""
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        made = list(pool.map(lambda case: context.run_case(case, None, 1), cases))
    found = balance({"worker": [span for each in made for span in each.spans]})
    assert found is not None
    return found


def run_of_network(folder: Path, size: Size, precision: Precision, steps: int, cases: int, cache: Path) -> Balance:
    """Make Cases of a network with random weights from the synthetic planet, on the device of this process.

    Args:
        folder: a folder to write the store to.
        size: of network and grid.
        precision: of the network.
        steps: of each Case.
        cases: that are counted, once the program is compiled.
        cache: folder of compiled programs.
    """
    hours = np.datetime64("2020-01-01T00") + 6 * np.arange(_COMPILING + cases) * HOUR
    architecture = size.architecture.model_dump()
    content: dict[str, Any] = {
        "store": str(folder / "store"),
        "inputs": {"kind": "synthetic", "resolution": size.resolution},
        "times": {"list": [str(time) for time in hours]},
        "steps": steps,
        "model": {
            "weights": {"kind": "random", "architecture": architecture, "task": size.task},
            "precision": precision,
        },
        "limits": "off",  # random weights leave physics
        "cache": str(cache),
    }
    config = parse_config(content, RunConfig, origin="the benchmark")
    few = parse_config({"list": content["times"]["list"][:2]}, TimesConfig, origin="the benchmark")
    run = replace(assemble(config), statistics=statistics_of(config, few))  # those of all times take long to compute
    uses = memory_uses(run, accelerated=backend() != "cpu")
    lay_out(run, precision, run_serially)
    use = fitting_use(uses, usable_bytes(), device_bytes())
    context = worker_context(run.config, run.source, use, "worker", members=run.members)
    stages_of(context, run.plan.cases[:_COMPILING])
    return stages_of(context, run.plan.cases[_COMPILING:])
