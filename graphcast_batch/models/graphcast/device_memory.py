"""Predict the memory that a device needs for a call of GraphCast, from the sizes of network, grid and call.

The arrays that the compiled program holds at once are counted. For the published networks at 0.25° the sum is within a
tenth of what XLA reports, on a CPU, for GPUs and for TPUs (benchmarks-results/, tests/test_memory.py).
"""

import math
from typing import Final

from graphcast_batch.grid import Grid
from graphcast_batch.models.base import CallSize, MemoryMode
from graphcast_batch.models.mesh import mesh_counts
from graphcast_batch.spec import Architecture

_FLOAT32: Final = 4
_INDEX: Final = 4
ITEM_BYTES: Final = {"float32": 4, "bfloat16": 2}
"""Bytes of a number, by the precision of the network."""
_BLOCK_ARRAYS: Final = 2
"""Number of arrays that exist at once, each as large as the latents of a block of edges; a loop over blocks that adds
up messages holds twice as many."""
_CACHED_BYTES: Final = 3 * 2**20
"""Bytes of a block on a CPU. Of 0.8 to 12 MB tried on an AMD EPYC with 32 MB of cache, 1.5 to 3 MB were fastest."""
_BUSY_BYTES: Final = 2**28
"""Bytes of a block on an accelerator, in float32."""


def predicted_bytes(call: CallSize, mode: MemoryMode) -> int:
    """Return the bytes that the device holds while it computes a call."""
    state = _FLOAT32 * call.grid.size * _filled(call, call.channels.inputs)
    # A loop over several steps holds all their frames from the start.
    frames = _frame(call) * call.steps if call.steps > 1 else 0
    stages = (_onto_mesh(call), _along_mesh(call), _onto_grid(call))
    return int(_network(call, mode) + _copied(call, mode) + call.cases * (state + frames + max(stages)))


def edges_at_once(latent_size: int, *, accelerated: bool) -> int:
    """Return how many edges a block has: their latents fit a processor's cache, or keep an accelerator busy."""
    return max(1, (_BUSY_BYTES if accelerated else _CACHED_BYTES) // (_FLOAT32 * latent_size))


def grid2mesh_edges(architecture: Architecture, grid: Grid) -> float:
    """Estimate the number of edges from grid points to mesh nodes, without building them.

    A grid point sees the mesh nodes in a cap of chord r, a share r²/4 of the sphere. The longest edge of the finest
    mesh is 1.08 to 1.10 times the edge of as many equal flat triangles, measured for mesh sizes 2 to 6.
    """
    nodes, _ = mesh_counts(architecture.mesh_size)
    edge = 1.1 * math.sqrt(4 * math.pi / (20 * 4**architecture.mesh_size) * 4 / math.sqrt(3))
    radius = architecture.radius_query_fraction_edge_length * edge
    return grid.size * nodes * min(1.0, radius**2 / 4)


def _network(call: CallSize, mode: MemoryMode) -> float:
    """Return the bytes of the weights, and of all that follows from weights and graphs alone."""
    architecture, channels, item = call.architecture, call.channels, ITEM_BYTES[call.precision]
    latent, hidden = architecture.latent_size, architecture.hidden_layers
    nodes, mesh_edges = mesh_counts(architecture.mesh_size)
    of_mesh_steps = (5 + 2 * hidden) * latent**2 * architecture.gnn_msg_steps
    weights = of_mesh_steps + 11 * (1 + hidden) * latent**2 + 2 * (channels.inputs + channels.outputs) * latent
    # Of stacked bfloat16 weights XLA makes a float32 copy on a CPU.
    copies = 0 if call.accelerated or item == _FLOAT32 else _FLOAT32 * of_mesh_steps
    other_edges = grid2mesh_edges(architecture, call.grid) + 3 * call.grid.size
    of_edge = _INDEX + item + (latent if mode == "fast" else 4) * item
    return (
        item * weights
        + copies
        + mesh_edges * (_INDEX + item + 2 * latent * item)
        + other_edges * of_edge
        + 2 * nodes * latent * item
    )


def _onto_mesh(call: CallSize) -> float:
    """Return the bytes for one Case while messages go from the grid to the mesh."""
    edges = grid2mesh_edges(call.architecture, call.grid)
    loop = edges > edges_at_once(call.architecture.latent_size, accelerated=call.accelerated)
    blocks = (2 if loop else 1) * _blocks(call, edges)
    # The frame is made later, where nodes and blocks are now.
    return 2 * _on_grid(call) + max(_frame(call), 3 * _on_nodes(call) + blocks)


def _along_mesh(call: CallSize) -> float:
    """Return the bytes for one Case while messages go along the mesh, whose edges an accelerator takes all at once."""
    _, edges = mesh_counts(call.architecture.mesh_size)
    on_edges = edges * call.architecture.latent_size * ITEM_BYTES[call.precision]
    if call.accelerated:
        return _on_grid(call) + 3 * on_edges + 2 * _on_nodes(call)
    return _on_grid(call) + 2 * on_edges + 6 * _on_nodes(call) + _blocks(call, edges)


def _onto_grid(call: CallSize) -> float:
    """Return the bytes for one Case while messages go to the grid and its new frame is made.

    Where the network's outputs are not just the state's variables, the two are parts of an array more.
    """
    arrays = 3 if call.channels.diagnosed else 2
    return _on_grid(call) + arrays * _frame(call) + _blocks(call, 3 * call.grid.size)


def _copied(call: CallSize, mode: MemoryMode) -> float:
    """Return the bytes that a TPU copies of what is kept of the edges to the grid, of which each point has three.

    The copy has four for each point, as XLA there fills the axis before the last to a power of two.
    """
    copied = mode == "fast" and call.lanes > 1
    return 4 * call.grid.size * call.architecture.latent_size * ITEM_BYTES[call.precision] if copied else 0


def _frame(call: CallSize) -> int:
    return _FLOAT32 * call.grid.size * _filled(call, call.channels.outputs)


def _filled(call: CallSize, channels: int) -> int:
    """Return how many numbers the channels of a point take in memory."""
    return math.ceil(channels / call.lanes) * call.lanes


def _on_grid(call: CallSize) -> int:
    return call.grid.size * call.architecture.latent_size * ITEM_BYTES[call.precision]


def _on_nodes(call: CallSize) -> int:
    nodes, _ = mesh_counts(call.architecture.mesh_size)
    return nodes * call.architecture.latent_size * _FLOAT32


def _blocks(call: CallSize, edges: float) -> float:
    """Return the bytes of a block of edges; on a CPU all of its numbers are float32."""
    latent, item = call.architecture.latent_size, ITEM_BYTES[call.precision]
    at_once = min(edges, edges_at_once(latent, accelerated=call.accelerated))
    return _BLOCK_ARRAYS * at_once * latent * (item if call.accelerated else _FLOAT32)
