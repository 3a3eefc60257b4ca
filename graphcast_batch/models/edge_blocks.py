"""Arrange the edges of graphs in blocks of rows, which a device works through one after another.

A row holds some edges of one receiver, so that they are summed by a reshape. The intermediate values of a block fit
into a processor's cache, or into a small part of a GPU's memory, whatever the size of the grid.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.models.graphs import Edges, Graphs

_WIDEST, _MOST_PADDING = 6, 0.06
_NEAR = 1.5
"""Largest ratio of the size of a block of grid points to that asked for."""


class Rows(NamedTuple):
    """The edges of one graph in blocks of rows, each row with edges of one receiver.

    Where a place in a row has no edge, its sender is node 0 and ``present`` is False. Rows that only fill the last
    block have no edges.

    Attributes:
        senders: (block, row, width) int32 node numbers.
        receivers: (block, row) int32 node numbers, ascending.
        present: (block, row, width) whether there is an edge.
        features: (block, row, width, 4) float32.
    """

    senders: NDArray[np.int32]
    receivers: NDArray[np.int32]
    present: NDArray[np.bool_]
    features: NDArray[np.float32]


class BlockedGraphs(NamedTuple):
    """The grid and the mesh, with their edges in blocks.

    Attributes:
        grid_nodes: (block, point, 3) float32 structural features; zeros fill the last block.
        mesh_nodes: (node, 3) float32 structural features.
        grid2mesh: from grid points to the mesh nodes near them.
        mesh: the multi-mesh.
        mesh2grid: in the blocks of the grid points, a row of three for each.
    """

    grid_nodes: NDArray[np.float32]
    mesh_nodes: NDArray[np.float32]
    grid2mesh: Rows
    mesh: Rows
    mesh2grid: Rows


def blocked(graphs: Graphs, edges_at_once: int, *, whole_mesh: bool = False) -> BlockedGraphs:
    """Return the same graphs in blocks of about so many edges.

    Args:
        graphs: the grid and the mesh.
        edges_at_once: number of edges in a block.
        whole_mesh: whether the edges of the mesh are one block, whatever their number.
    """
    points = graphs.grid_nodes.shape[0]
    blocks, size = _blocks_of_points(points, max(1, edges_at_once // 3))
    return BlockedGraphs(
        grid_nodes=_filled(graphs.grid_nodes, blocks * size).reshape(blocks, size, -1),
        mesh_nodes=graphs.mesh_nodes,
        grid2mesh=_rows(graphs.grid2mesh, row_width(graphs.grid2mesh.receivers), edges_at_once),
        mesh=_rows(graphs.mesh, row_width(graphs.mesh.receivers), 2**62 if whole_mesh else edges_at_once),
        mesh2grid=_rows(graphs.mesh2grid, 3, 3 * size),
    )


def row_width(receivers: NDArray[np.int32]) -> int:
    """Return the number of edges of a row that leaves few places empty.

    Args:
        receivers: (edge,) node numbers.
    """
    degrees = np.bincount(receivers)
    places = {width: int((-(-degrees // width)).sum()) * width for width in range(1, _WIDEST + 1)}
    return max(width for width, count in places.items() if count <= (1 + _MOST_PADDING) * receivers.size)


def _rows(edges: Edges, width: int, edges_at_once: int) -> Rows:
    degrees = np.bincount(edges.receivers)
    rows_of = -(-degrees // width)
    receivers = np.repeat(np.arange(degrees.size, dtype=np.int32), rows_of)
    blocks, size = _evenly(receivers.size, edges_at_once // width)
    total = blocks * size
    # Edge number k of a receiver stands in its place k, counted from the first place of its first row.
    first_edge, first_place = np.cumsum(degrees) - degrees, (np.cumsum(rows_of) - rows_of) * width
    place = np.arange(edges.receivers.size) + (first_place - first_edge)[edges.receivers]

    def placed(values: NDArray[Any]) -> NDArray[Any]:
        result = np.zeros((total * width, *values.shape[1:]), values.dtype)
        result[place] = values
        return result.reshape(blocks, size, width, *values.shape[1:])

    return Rows(
        senders=placed(edges.senders),
        receivers=_filled(receivers, total, int(receivers[-1])).reshape(blocks, size),
        present=placed(np.ones(edges.receivers.size, np.bool_)),
        features=placed(edges.features),
    )


def _blocks_of_points(points: int, most: int) -> tuple[int, int]:
    """Return the number and the size of blocks of about so many points, all full wherever sizes near that allow it.

    Fields at the grid points need not be copied then, to fill the last block.
    """
    near = range(math.ceil(most / _NEAR), int(most * _NEAR) + 1)
    full = [size for size in near if points % size == 0]
    size = max((size for size in full if size <= most), default=min(full, default=0))
    return (points // size, size) if size else _evenly(points, most)


def _evenly(count: int, most: int) -> tuple[int, int]:
    """Return the number and the size of blocks of which the last is nearly full."""
    blocks = math.ceil(count / max(1, most))
    return blocks, math.ceil(count / blocks)


def _filled(values: NDArray[Any], length: int, fill: int = 0) -> NDArray[Any]:
    width = [(0, length - values.shape[0])] + [(0, 0)] * (values.ndim - 1)
    return np.pad(values, width, constant_values=fill)
