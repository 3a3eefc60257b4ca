"""Choose how many Cases an accelerator computes together, from what a step moves and how many kernels it starts.

Bytes and products of a step grow with the number of Cases: what XLA compiles for an H100 at 1° moves 24.1 GB a step for
one Case, and 23.8 GB for each of sixteen (`graphcast-batch bench compile`). Only the starts of kernels are shared.
"""

from typing import Final

from graphcast_batch.models.base import CallSize
from graphcast_batch.models.graphcast.device_memory import ITEM_BYTES, grid2mesh_edges
from graphcast_batch.models.mesh import mesh_counts

_PASSES: Final = 14
"""How often a step moves the latents of edges and points; XLA's programs for an H100 at 5°, 1° and 0.25° tell 13.2 to
14.7."""
_KERNELS: Final = 32
"""Kernels that start for each step of message passing; 130 of 4 and 519 of 16 were counted in these programs."""
_BYTES_A_START: Final = 2**24
"""What an accelerator moves in the time that the start of a kernel takes: that of an H100 in 5 microseconds, which is
reasoned, not measured; `graphcast-batch bench gpu` measures steps by batch size."""
_WORTH: Final = 0.1
"""Share of a step which starts may take; a batch so large that they take less gains nothing more."""
_MOST: Final = 16


def worthwhile_batch(call: CallSize) -> int:
    """Return the largest batch size, a power of two up to 16, that still makes a Case on an accelerator faster.

    Args:
        call: sizes of a call.
    """
    architecture, points = call.architecture, call.grid.size
    _, mesh_edges = mesh_counts(architecture.mesh_size)
    passes = architecture.gnn_msg_steps
    rows = mesh_edges * passes + grid2mesh_edges(architecture, call.grid) + 3 * points + 2 * points
    moved = _PASSES * rows * architecture.latent_size * ITEM_BYTES[call.precision]
    starts = _KERNELS * passes * _BYTES_A_START
    batch = 1
    while batch < _MOST and starts > _WORTH * batch * moved:
        batch *= 2
    return batch
