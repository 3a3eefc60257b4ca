"""Build the icosahedral multi-mesh on the unit sphere.

The orientation, the order of the faces and the float32 roundings are those of the mesh that the published weights were
trained on (Lam et al. 2023, supplement 3.2): they decide which triangle a grid point on a symmetry plane belongs to.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

_GOLDEN: Final = (1 + np.sqrt(5)) / 2
_FACES: Final = (
    *((0, 1, 2), (0, 6, 1), (8, 0, 2), (8, 4, 0), (3, 8, 2), (3, 2, 7), (7, 2, 1), (0, 4, 6), (4, 11, 6), (6, 11, 5)),
    *((1, 5, 7), (4, 10, 11), (4, 8, 10), (10, 8, 3), (10, 3, 9), (11, 10, 9), (11, 9, 5), (5, 9, 7), (9, 3, 7)),
    (1, 6, 5),
)


@dataclass(frozen=True, eq=False)
class MultiMesh:
    """The vertices of the finest mesh and the faces of every refinement.

    Attributes:
        vertices: (node, 3) float32 positions on the unit sphere; a coarse mesh uses the first of them.
        faces: for each refinement, coarsest first, (face, 3) int32 vertices, counter-clockwise from outside.
    """

    vertices: NDArray[np.float32]
    faces: tuple[NDArray[np.int32], ...]

    @property
    def finest_faces(self) -> NDArray[np.int32]:
        """(face, 3) triangles of the finest mesh."""
        return self.faces[-1]

    @property
    def longest_edge(self) -> np.float32:
        """Length of the longest edge of the finest mesh, in radii of the sphere."""
        senders, receivers = _edges(self.finest_faces)
        lengths = np.linalg.norm(self.vertices[senders] - self.vertices[receivers], axis=-1)
        return np.float32(lengths.max())

    def edges(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return senders and receivers, (edge,) int32, of the edges of all refinements together."""
        return _edges(np.concatenate(self.faces))


def mesh_counts(size: int) -> tuple[int, int]:
    """Return the numbers of nodes and directed edges of the multi-mesh, without building it.

    Args:
        size: number of refinements of the icosahedron, 0 or more.
    """
    return 10 * 4**size + 2, sum(60 * 4**level for level in range(size + 1))


def multi_mesh(size: int) -> MultiMesh:
    """Return the icosahedron with all of its refinements.

    Args:
        size: number of refinements, 0 or more; the finest mesh has 10 * 4**size + 2 vertices.
    """
    vertices, faces = _icosahedron(), [np.array(_FACES, np.int32)]
    for _ in range(size):
        vertices, finer = _refine(vertices, faces[-1])
        faces.append(finer)
    return MultiMesh(vertices=vertices, faces=tuple(faces))


def _icosahedron() -> NDArray[np.float32]:
    corners = [
        corner
        for c1 in (1.0, -1.0)
        for c2 in (_GOLDEN, -_GOLDEN)
        for corner in ((c1, c2, 0.0), (0.0, c1, c2), (c2, 0.0, c1))
    ]
    vertices = np.array(corners, np.float32) / np.float32(np.hypot(1.0, _GOLDEN))
    # A face comes to lie flat on top.
    tilt = Rotation.from_euler("y", (np.pi - 2 * np.arcsin(_GOLDEN / np.sqrt(3))) / 2).as_matrix()
    return (vertices @ tilt).astype(np.float32)


def _refine(vertices: NDArray[np.float32], faces: NDArray[np.int32]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Split every triangle into four; the new vertices are the midpoints of its edges, moved out to the sphere."""
    ends = np.sort(np.stack([faces, np.roll(faces, -1, axis=1)], axis=-1).reshape(-1, 2), axis=1)
    _, first_met, edge = np.unique(ends, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first_met)
    number = np.empty_like(order)
    number[order] = np.arange(order.size)
    middles = vertices[ends[first_met[order]]].mean(axis=1, dtype=np.float32)
    # One norm at a time: NumPy's norm of many vectors sums in another order, and the last bit decides ties.
    middles /= np.array([np.linalg.norm(middle) for middle in middles], np.float32)[:, None]
    ab, bc, ca = (len(vertices) + number[edge.reshape(-1, 3)]).T
    a, b, c = faces.T
    finer = np.stack([np.stack(f, axis=-1) for f in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))], axis=1)
    return np.concatenate([vertices, middles]), finer.reshape(-1, 3).astype(np.int32)


def _edges(faces: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    return np.concatenate(faces.T), np.concatenate(np.roll(faces, -1, axis=1).T)
