"""Predict the memory that a device needs for a call of GraphCast, from the sizes of network, grid and call.

The arrays that the compiled step holds at once are counted. The sum is within a fifth of what XLA reports for the step
on a CPU in float32 (tests/test_memory.py).
"""

import math
from dataclasses import dataclass
from typing import Final

from graphcast_batch.grid import Grid
from graphcast_batch.models.base import MemoryMode
from graphcast_batch.models.mesh import mesh_counts
from graphcast_batch.spec import Architecture

_FLOAT32: Final = 4
_INDEX: Final = 4
_BLOCKS: Final = {"fast": 3, "lean": 6}
"""Number of arrays that exist at once, each as large as the latents of a block in float32."""
_NODE_ARRAYS: Final = 8
"""Number of arrays that exist at once, each as large as the latents of the mesh's nodes in float32."""
_CACHED_BYTES: Final = 3 * 2**20
"""Bytes of a block on a CPU. Of 0.8 to 12 MB tried on an AMD EPYC with 32 MB of cache, 1.5 to 3 MB were fastest."""
_BUSY_BYTES: Final = 2**28


@dataclass(frozen=True)
class Call:
    """One call of the compiled program.

    Attributes:
        architecture: sizes of the network.
        grid: the points.
        inputs: number of values at a grid point that go in, without the structural features.
        outputs: number of values at a grid point that come out.
        item_bytes: bytes of a number in the network's precision: 2 for bfloat16, 4 for float32.
        accelerated: whether the device is an accelerator, which takes larger blocks.
        steps: number of steps that the call computes.
        cases: number of Cases that the call computes together.
    """

    architecture: Architecture
    grid: Grid
    inputs: int
    outputs: int
    item_bytes: int
    accelerated: bool
    steps: int = 1
    cases: int = 1

    def bytes(self, mode: MemoryMode) -> int:
        """Return the bytes that the device holds while it computes."""
        state = _FLOAT32 * self.grid.size * self.inputs
        frames = _FLOAT32 * self.grid.size * self.outputs * self.steps
        # Frames are there twice: as they are made, point by point, and turned into fields.
        return int(self._network(mode) + self.cases * (state + 2 * frames + max(self._stages(mode))))

    @property
    def _latent(self) -> int:
        return self.architecture.latent_size

    @property
    def _mesh(self) -> tuple[int, int]:
        return mesh_counts(self.architecture.mesh_size)

    def _network(self, mode: MemoryMode) -> float:
        """Return the bytes of the weights, and of all that follows from weights and graphs alone."""
        latent, item, hidden = self._latent, self.item_bytes, self.architecture.hidden_layers
        nodes, mesh_edges = self._mesh
        per_step = (5 + 2 * hidden) * latent**2
        weights = per_step * self.architecture.gnn_msg_steps + 11 * (1 + hidden) * latent**2
        weights += 2 * (self.inputs + self.outputs) * latent
        other_edges = grid2mesh_edges(self.architecture, self.grid) + 3 * self.grid.size
        of_edge = _INDEX + item + (latent if mode == "fast" else 4) * item
        return (
            item * weights
            + mesh_edges * (_INDEX + item + 2 * latent * item)
            + other_edges * of_edge
            + nodes * latent * (item + _FLOAT32)
        )

    def _stages(self, mode: MemoryMode) -> tuple[float, float, float]:
        """Return the bytes for one Case in each stage: from grid to mesh, along the mesh, from mesh to grid."""
        points, latent, item = self.grid.size, self._latent, self.item_bytes
        nodes, mesh_edges = self._mesh
        of_grid, of_mesh = points * latent * item, mesh_edges * latent * item
        features = points * self.inputs * (_FLOAT32 + (item if item < _FLOAT32 else 0))
        on_nodes = _NODE_ARRAYS * nodes * latent * _FLOAT32
        onto_mesh = _BLOCKS[mode] * self._block(grid2mesh_edges(self.architecture, self.grid))
        return (
            features + 2 * of_grid + on_nodes + onto_mesh,
            of_grid + 2 * of_mesh + on_nodes + _BLOCKS["fast"] * self._block(mesh_edges),
            of_grid + points * self.outputs * _FLOAT32 + _BLOCKS[mode] * self._block(3 * points),
        )

    def _block(self, edges: float) -> float:
        at_once = min(edges, edges_at_once(self._latent, accelerated=self.accelerated))
        return at_once * self._latent * _FLOAT32


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
