"""Build the three graphs along which the network sends messages: grid to mesh, mesh, and mesh to grid."""

from importlib.metadata import version
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from graphcast_batch.errors import GridError
from graphcast_batch.grid import Grid
from graphcast_batch.models.disk_cache import Cache, digest_of_source, entry_name
from graphcast_batch.models.graph_features import edge_features, latitude_longitude, node_features, positions
from graphcast_batch.models.mesh import MultiMesh, multi_mesh
from graphcast_batch.spec import Architecture

_SEARCHED_AT_ONCE: Final = 2**16
"""Number of grid points whose nearest triangle is searched at once: it bounds memory and changes no result."""
_CLEAR: Final = 1.1e-4
"""Distance from the edges of a triangle beyond which a point that projects into it is certainly nearest to it.

The mesh is convex: every other triangle is farther away by at least the square of this in squared distance, which is
more than 1e-8, where trimesh begins to look at the directions of triangles (``tol.merge``).
"""


class Edges(NamedTuple):
    """Directed edges, sorted by receiver.

    Attributes:
        senders: (edge,) int32 node numbers.
        receivers: (edge,) int32 node numbers, ascending.
        features: (edge, 4) float32.
    """

    senders: NDArray[np.int32]
    receivers: NDArray[np.int32]
    features: NDArray[np.float32]


class Graphs(NamedTuple):
    """The grid and the mesh with the edges between them; arguments of the compiled step, not constants in it.

    Grid points are numbered latitude slowest. Every grid point receives from exactly three mesh nodes, so that the
    edges of ``mesh2grid`` are (point, 3) in that order.

    Attributes:
        grid_nodes: (point, 3) float32 structural features.
        mesh_nodes: (node, 3) float32 structural features.
        grid2mesh: from grid points to the mesh nodes near them.
        mesh: the multi-mesh.
        mesh2grid: from the corners of the triangle around a grid point to the point.
    """

    grid_nodes: NDArray[np.float32]
    mesh_nodes: NDArray[np.float32]
    grid2mesh: Edges
    mesh: Edges
    mesh2grid: Edges


def build_graphs(architecture: Architecture, grid: Grid) -> Graphs:
    """Build the graphs of a network on a grid.

    Args:
        architecture: sizes of the network, with the refinement of the mesh, the radius of grid2mesh and the scale of
            mesh2grid.
        grid: the points.

    Raises:
        GridError: no grid point is near any mesh node.
    """
    mesh = multi_mesh(architecture.mesh_size)
    latitude, longitude = (axis.ravel() for axis in np.meshgrid(grid.latitude, grid.longitude, indexing="ij"))
    grid_at, mesh_at = (latitude, longitude), latitude_longitude(mesh.vertices)
    points = positions(latitude, longitude)
    radius = np.float32(architecture.radius_query_fraction_edge_length) * mesh.longest_edge
    return Graphs(
        grid_nodes=node_features(*grid_at),
        mesh_nodes=node_features(*mesh_at),
        grid2mesh=_edges(*_within(points, mesh.vertices, radius), grid_at, mesh_at),
        mesh=_edges(*mesh.edges(), mesh_at, mesh_at),
        mesh2grid=_edges(
            *_corners(points, mesh), mesh_at, grid_at, longest=architecture.mesh2grid_edge_normalization_factor
        ),
    )


def cached_graphs(architecture: Architecture, grid: Grid, cache: Cache | None) -> Graphs:
    """Return the graphs of `build_graphs`, from the cache if another process has built them.

    Args:
        architecture: as for `build_graphs`.
        grid: as for `build_graphs`.
        cache: where graphs are kept; None to build them anyway.

    Raises:
        GridError: no grid point is near any mesh node.
    """
    if cache is None:
        return build_graphs(architecture, grid)
    name, found = _entry_name(architecture, grid), list[Graphs]()
    with cache.turn(name, lambda kept: found.append(_decoded(kept))) as kept:
        if kept is not None:
            return found[-1]
        graphs = build_graphs(architecture, grid)
        cache.put(name, _encoded(graphs))
        return graphs


def _entry_name(architecture: Architecture, grid: Grid) -> str:
    here = Path(__file__)
    return entry_name(
        "graphs",
        digest_of_source(here, here.with_name("mesh.py"), here.with_name("graph_features.py")),
        [version(package) for package in ("numpy", "scipy", "trimesh")],
        architecture.mesh_size,
        architecture.radius_query_fraction_edge_length,
        architecture.mesh2grid_edge_normalization_factor,
        *((axis.dtype.str, axis.tobytes()) for axis in (grid.latitude, grid.longitude)),
    )


def _encoded(graphs: Graphs) -> bytes:
    stream = BytesIO()
    grid_nodes, mesh_nodes, *edges = graphs
    for array in (grid_nodes, mesh_nodes, *chain.from_iterable(edges)):
        np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _decoded(content: bytes) -> Graphs:
    stream = BytesIO(content)

    def array() -> Any:  # noqa: ANN401 - of the dtype that it was kept with
        return np.load(stream, allow_pickle=False)

    return Graphs(array(), array(), *(Edges(array(), array(), array()) for _ in range(3)))


def _within(
    points: NDArray[np.float32], vertices: NDArray[np.float32], radius: np.float32
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return all pairs of a grid point and a mesh node whose straight distance is at most the radius."""
    near = KDTree(points).sparse_distance_matrix(KDTree(vertices), radius, output_type="ndarray")
    if not near.size:
        raise GridError(
            f"no grid point lies within {radius:g} of a mesh node, so that the mesh would receive nothing; take a "
            "finer grid, a larger radius_query_fraction_edge_length or a smaller mesh_size"
        )
    return near["i"].astype(np.int32), near["j"].astype(np.int32)


def _corners(points: NDArray[np.float32], mesh: MultiMesh) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the three corners of the triangle nearest to each grid point, and the point three times."""
    corners = mesh.vertices[mesh.finest_faces].astype(np.float64)
    triangle = np.asarray(KDTree(corners.mean(axis=1)).query(points)[1])
    doubtful = np.flatnonzero(_depth(points, corners[triangle]) < _CLEAR)
    triangle[doubtful] = _nearest(points[doubtful], mesh)
    receivers = np.repeat(np.arange(len(points), dtype=np.int32), 3)
    return mesh.finest_faces[triangle].ravel(), receivers


def _depth(points: NDArray[np.float32], corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far from the edges of its triangle, (point, corner, 3), each point projects; negative outside."""
    sides = np.roll(corners, -1, axis=1) - corners
    normal = np.cross(sides[:, 0], sides[:, 1])
    inward = np.cross(normal[:, None], sides)
    inward /= np.linalg.norm(inward, axis=-1, keepdims=True)
    depth: NDArray[np.float64] = np.einsum("pcx,pcx->pc", points[:, None] - corners, inward).min(axis=1)
    return depth


def _nearest(points: NDArray[np.float32], mesh: MultiMesh) -> NDArray[np.int64]:
    """Return the index of the triangle that trimesh finds nearest to each point."""
    import trimesh  # takes half a second, which processes that find their graphs cached need not spend

    surface = trimesh.Trimesh(mesh.vertices, mesh.finest_faces)
    parts = [points[start : start + _SEARCHED_AT_ONCE] for start in range(0, len(points), _SEARCHED_AT_ONCE)]
    nearest = [trimesh.proximity.closest_point(surface, part)[2] for part in parts]
    return np.concatenate([np.empty(0, np.int64), *nearest])


def _edges(
    senders: NDArray[np.int32],
    receivers: NDArray[np.int32],
    sender_at: tuple[NDArray[np.float32], NDArray[np.float32]],
    receiver_at: tuple[NDArray[np.float32], NDArray[np.float32]],
    longest: float | None = None,
) -> Edges:
    order = np.argsort(receivers, kind="stable")
    senders, receivers = senders[order], receivers[order]
    return Edges(senders, receivers, edge_features(sender_at, receiver_at, senders, receivers, longest))
