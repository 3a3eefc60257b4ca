"""Compile GraphCast's step for an accelerator that is absent, in a process of its own.

`compile_ahead` starts ``python -m graphcast_batch.bench.compile_process`` with the request as JSON, since JAX reads
the environment that absent devices need only once. The answer is JSON on standard output.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from time import perf_counter

from graphcast_batch.bench.kernels import Kernel, kernels, unknown_loops
from graphcast_batch.bench.program_text import ProgramText
from graphcast_batch.bench.step_contestant import SIZES, SizeName
from graphcast_batch.errors import PackageError
from graphcast_batch.models.absent_devices import absent_device
from graphcast_batch.models.accelerators import ACCELERATORS, AcceleratorName
from graphcast_batch.models.base import CallSize, MemoryMode, Precision
from graphcast_batch.models.disk_cache import Cache, users_folder
from graphcast_batch.models.graphcast.lowering import lowered_call, lowered_update
from graphcast_batch.models.graphs import cached_graphs


@dataclass(frozen=True)
class Request:
    """What is to be compiled.

    Attributes:
        target: the accelerator.
        size: of network and grid.
        precision: of the network.
        memory: how the network uses the memory.
        steps: steps of a call of the forecast, or of the rollout of an update.
        training: whether an update of the weights is compiled in place of a call of the forecast.
        batch_size: number of forecasts in a call, or of rollouts in an update.
    """

    target: AcceleratorName
    size: SizeName
    precision: Precision
    memory: MemoryMode
    steps: int
    training: bool = False
    batch_size: int = 1

    @property
    def call(self) -> CallSize:
        """The sizes of the call."""
        size = SIZES[self.size]
        sizes = size.architecture, size.grid, size.channels, self.precision
        lanes = ACCELERATORS[self.target].lanes
        return CallSize(*sizes, accelerated=True, steps=self.steps, cases=self.batch_size, lanes=lanes)


@dataclass(frozen=True)
class Compiled:
    """What XLA tells of a program that it compiled.

    Attributes:
        seconds: that compiling took.
        peak_bytes: most bytes of the device's memory that are in use at once, arguments and results included.
        kernels: of the program.
        unknown_loops: loops whose kernels are counted once, since it is not known how often they run.
        refusal: why nothing can be compiled here; empty if it can.
        fault: why XLA does not compile it, such as for want of memory; empty if it was compiled.
    """

    seconds: float = 0.0
    peak_bytes: int = 0
    kernels: Sequence[Kernel] = ()
    unknown_loops: int = 0
    refusal: str = ""
    fault: str = ""


def _compiled(request: Request) -> Compiled:
    try:
        device = absent_device(ACCELERATORS[request.target])
    except PackageError as error:
        return Compiled(refusal=str(error))
    call = request.call
    folder = users_folder()
    graphs = cached_graphs(call.architecture, call.grid, Cache(folder).check() if folder else None)
    lowered = (
        lowered_update(call, graphs, device) if request.training else lowered_call(call, request.memory, graphs, device)
    )
    start = perf_counter()
    try:
        program = lowered.compile()
    except RuntimeError as error:  # JAX's own is one
        return Compiled(fault=str(error))
    seconds = perf_counter() - start
    memory, text = program.memory_analysis(), ProgramText(program.as_text() or "")
    assert memory is not None, "XLA keeps an account of the memory on these platforms"
    return Compiled(seconds, memory.peak_memory_in_bytes, kernels(text), unknown_loops(text))


if __name__ == "__main__":
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever else is printed is no answer
    print(json.dumps(asdict(_compiled(Request(**json.loads(sys.argv[1]))))), file=answers)
