import numpy as np
import pytest

from graphcast_batch.models.mesh import mesh_counts, multi_mesh


@pytest.mark.parametrize("size", range(5))
def test_every_refinement_has_the_vertices_faces_and_edges_of_a_geodesic_polyhedron(size):
    mesh = multi_mesh(size)

    nodes, edges = mesh_counts(size)
    assert mesh.vertices.shape == (nodes, 3)
    assert [len(faces) for faces in mesh.faces] == [20 * 4**level for level in range(size + 1)]
    senders, receivers = mesh.edges()
    assert senders.size == receivers.size == edges
    assert mesh.vertices.dtype == np.float32


def test_vertices_lie_on_the_unit_sphere_and_are_all_different():
    vertices = multi_mesh(4).vertices

    np.testing.assert_allclose(np.linalg.norm(vertices, axis=1), 1, atol=2e-7)
    assert len(np.unique(vertices, axis=0)) == len(vertices)


def test_faces_are_counter_clockwise_from_outside_and_cover_the_sphere():
    mesh = multi_mesh(3)

    a, b, c = (mesh.vertices[mesh.finest_faces[:, corner]].astype(float) for corner in range(3))
    volumes = np.einsum("fi,fi->f", a, np.cross(b, c))
    assert (volumes > 0).all()
    # Solid angles of the spherical triangles (Van Oosterom and Strackee 1983) sum to the whole sphere.
    cosines = 1 + (a * b).sum(1) + (b * c).sum(1) + (c * a).sum(1)
    assert 2 * np.arctan2(volumes, cosines).sum() == pytest.approx(4 * np.pi, rel=1e-6)


def test_a_face_lies_flat_on_top():
    faces = multi_mesh(0).vertices[multi_mesh(0).finest_faces]

    top = faces[faces[:, :, 2].mean(axis=1).argmax()]
    assert np.ptp(top[:, 2]) < 1e-6


def test_both_directions_of_every_finest_edge_are_there_and_coarse_edges_stay():
    mesh = multi_mesh(2)

    pairs = set(zip(*(ends.tolist() for ends in mesh.edges()), strict=True))
    assert {(r, s) for s, r in pairs} == pairs
    coarse = set(zip(*(ends.tolist() for ends in multi_mesh(1).edges()), strict=True))
    assert coarse < pairs


def test_a_coarse_mesh_is_the_beginning_of_a_finer_one():
    coarse, fine = multi_mesh(1), multi_mesh(3)

    np.testing.assert_array_equal(coarse.vertices, fine.vertices[: len(coarse.vertices)])
    np.testing.assert_array_equal(coarse.finest_faces, fine.faces[1])
