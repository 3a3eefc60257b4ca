"""Sizes of a network, a grid and a call become the bytes that a device needs for them.

The counts are those of arrays that the compiled step has at once. XLA's own account of the step, on a CPU in float32,
is met within a fifth (tests/test_memory.py).
"""

import math
from dataclasses import dataclass
from typing import Final, Literal

from graphcast_batch.grid import Grid
from graphcast_batch.spec import Architecture

MemoryMode = Literal["fast", "lean"]
"""Whether what the edges between grid and mesh add to the network is kept, or computed again in every step."""

ALLOCATION: Final = {
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**28),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""Environment of a process that computes. Frames come and go by the megabyte: glibc is to give the large ones back, and
to keep what a call needs again at once; and what is mapped anew is touched faster in pages of 2 MB than of 4 kB."""

_FLOAT32: Final = 4
_INDEX: Final = 4
_BLOCKS: Final = {"fast": 3, "lean": 6}
"""Arrays as large as a block's latents in float32 that are under way at once."""
_NODE_ARRAYS: Final = 8
"""The same of the mesh's nodes."""
_CACHED_BYTES: Final = 3 * 2**20
"""Of 0.8 to 12 MB tried on an AMD EPYC with 32 MB of cache, 1.5 to 3 MB were fastest."""
_BUSY_BYTES: Final = 2**28


@dataclass(frozen=True)
class Call:
    """One call of the compiled program.

    Attributes:
        architecture: sizes of the network.
        grid: the points.
        inputs: values at a grid point that go in, without the structural features.
        outputs: values at a grid point that come out.
        item_bytes: of the network's precision: 2 for bfloat16, 4 for float32.
        accelerated: whether it runs on an accelerator, which takes larger blocks.
        steps: at once.
        cases: at once.
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
        """What the device holds while it computes."""
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
        """Weights and all that follows from them and the graphs alone."""
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
        """What onto the mesh, along it and back onto the grid need at once for one Case."""
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
    """So many edges that their latents stay in a processor's cache, or keep an accelerator busy."""
    return max(1, (_BUSY_BYTES if accelerated else _CACHED_BYTES) // (_FLOAT32 * latent_size))


def steps_in_call(steps: int, most: int) -> int:
    """The largest number of steps a call, up to ``most``, that divides a forecast, so that one program serves."""
    return max(n for n in range(1, min(steps, most) + 1) if steps % n == 0)


def mesh_counts(size: int) -> tuple[int, int]:
    """Nodes and directed edges of the multi-mesh after so many refinements of the icosahedron."""
    return 10 * 4**size + 2, sum(60 * 4**level for level in range(size + 1))


def grid2mesh_edges(architecture: Architecture, grid: Grid) -> float:
    """About how many edges lead from grid points to mesh nodes, without building them.

    A grid point sees the mesh nodes in a cap of chord r, a share r²/4 of the sphere. The longest edge of the finest
    mesh is 1.08 to 1.10 times the edge of as many equal flat triangles, measured for mesh sizes 2 to 6.
    """
    nodes, _ = mesh_counts(architecture.mesh_size)
    edge = 1.1 * math.sqrt(4 * math.pi / (20 * 4**architecture.mesh_size) * 4 / math.sqrt(3))
    radius = architecture.radius_query_fraction_edge_length * edge
    return grid.size * nodes * min(1.0, radius**2 / 4)
