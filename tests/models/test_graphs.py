from typing import NamedTuple

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from graphcast_batch.errors import GridError
from graphcast_batch.grid import Grid
from graphcast_batch.models.graph_features import edge_features, latitude_longitude, node_features, positions
from graphcast_batch.models.graphs import build_graphs
from graphcast_batch.models.mesh import multi_mesh
from graphcast_batch.spec import Architecture


def grid_of(step, offset=0.0):
    latitude = np.arange(-90 + offset, 90 + 1e-6, step, dtype=np.float32)
    return Grid(latitude, np.arange(0, 360, step, dtype=np.float32))


class Points(NamedTuple):
    """What `build_graphs` looks at of a grid, and nothing that makes it one."""

    latitude: np.ndarray
    longitude: np.ndarray

    @property
    def size(self):
        return self.latitude.size * self.longitude.size


def shape(**fields):
    return Architecture(**({"mesh_size": 2, "latent_size": 8, "gnn_msg_steps": 1} | fields))


def assert_triangles_are_those_of_trimesh(grid, size):
    mesh = multi_mesh(size)
    latitude, longitude = (axis.ravel() for axis in np.meshgrid(grid.latitude, grid.longitude, indexing="ij"))
    surface = trimesh.Trimesh(mesh.vertices, mesh.finest_faces)
    _, _, triangle = trimesh.proximity.closest_point(surface, positions(latitude, longitude))
    edges = build_graphs(shape(mesh_size=size, radius_query_fraction_edge_length=4.0), grid).mesh2grid
    np.testing.assert_array_equal(edges.senders.reshape(-1, 3), mesh.finest_faces[triangle])
    np.testing.assert_array_equal(edges.receivers, np.repeat(np.arange(grid.size), 3))


@pytest.mark.parametrize("size", [0, 2, 4])
@pytest.mark.parametrize(
    "grid", [grid_of(10), grid_of(12), grid_of(7.5, 3.75), grid_of(5), grid_of(2.8125, 1.40625)], ids=str
)
def test_each_grid_point_hears_from_the_triangle_that_trimesh_finds_nearest(grid, size):
    assert_triangles_are_those_of_trimesh(grid, size)


@settings(max_examples=30, deadline=None)
@given(
    size=st.integers(0, 5),
    latitude=st.lists(st.floats(-90, 90, width=32), min_size=2, max_size=12, unique=True),
    columns=st.integers(2, 48),
    west=st.floats(0, 7, width=32),
)
def test_triangles_are_those_of_trimesh_on_any_grid(size, latitude, columns, west):
    longitude = (west + np.arange(columns) * (360 / columns)).astype(np.float32)
    assert_triangles_are_those_of_trimesh(Points(np.sort(np.array(latitude, np.float32)), longitude), size)


@settings(max_examples=20, deadline=None)
@given(size=st.integers(0, 4), turn=st.sampled_from([-1, 0, 1]), seed=st.integers(0, 2**32 - 1))
def test_points_on_vertices_and_on_edges_go_where_trimesh_puts_them(size, turn, seed):
    mesh = multi_mesh(size)
    draw = np.random.default_rng(seed)
    faces = mesh.finest_faces[draw.integers(len(mesh.finest_faces), size=40)]
    shares = draw.choice([0, 0.5, 1], (40, 3)) + 1e-9
    weights = shares / shares.sum(axis=1, keepdims=True)
    on_edges = np.einsum("fc,fcx->fx", weights, mesh.vertices[faces])
    latitude, longitude = latitude_longitude((on_edges / np.linalg.norm(on_edges, axis=1, keepdims=True)).astype("f4"))
    latitude = np.unique(np.nextafter(latitude, latitude + np.float32(turn)))
    assert_triangles_are_those_of_trimesh(Points(latitude, np.unique(longitude)), size)


def test_the_mesh_is_convex():
    for size in range(6):
        mesh = multi_mesh(size)
        surface = trimesh.Trimesh(mesh.vertices.astype(float), mesh.finest_faces, process=False)
        assert surface.is_watertight
        assert surface.face_adjacency_convex.all()


@pytest.mark.parametrize("fraction", [0.3, 0.6, 1.0])
def test_mesh_nodes_hear_from_every_grid_point_within_the_radius(fraction):
    grid, mesh = grid_of(10), multi_mesh(2)
    edges = build_graphs(shape(radius_query_fraction_edge_length=fraction), grid).grid2mesh

    latitude, longitude = (axis.ravel() for axis in np.meshgrid(grid.latitude, grid.longitude, indexing="ij"))
    points = positions(latitude, longitude).astype(float)
    distance = np.linalg.norm(points[:, None] - mesh.vertices.astype(float)[None], axis=-1)
    expected = {tuple(pair) for pair in np.argwhere(distance <= np.float32(fraction) * mesh.longest_edge)}
    assert {(s, r) for s, r in zip(edges.senders.tolist(), edges.receivers.tolist(), strict=True)} == expected
    assert (np.diff(edges.receivers) >= 0).all()


def test_edge_features_are_offsets_in_the_frame_of_the_receiver():
    random = np.random.default_rng(0)
    sender, receiver = ((random.uniform(-90, 90, 50), random.uniform(0, 360, 50)) for _ in range(2))
    sender, receiver = (tuple(axis.astype(np.float32) for axis in place) for place in (sender, receiver))

    senders, receivers = random.integers(50, size=200), random.integers(50, size=200)
    found = edge_features(sender, receiver, senders, receivers, longest=1.0)

    sender, receiver = (tuple(axis[ends] for axis in p) for p, ends in ((sender, senders), (receiver, receivers)))
    angles = np.stack([-np.deg2rad(receiver[1]), np.deg2rad(receiver[0])], axis=-1)
    turns = Rotation.from_euler("zy", angles)
    offset = turns.apply(positions(*sender)) - turns.apply(positions(*receiver))
    np.testing.assert_allclose(found[:, 1:], offset, atol=1e-6)
    np.testing.assert_allclose(found[:, 0], np.linalg.norm(offset, axis=1), atol=1e-6)
    np.testing.assert_allclose(turns.apply(positions(*receiver)), np.tile([1.0, 0, 0], (200, 1)), atol=1e-6)


def test_the_longest_edge_scales_features_unless_a_factor_is_given():
    grid = grid_of(12)

    assert build_graphs(shape(), grid).mesh2grid.features[:, 0].max() == pytest.approx(1)
    scaled = build_graphs(shape(mesh2grid_edge_normalization_factor=0.5), grid)
    plain = build_graphs(shape(mesh2grid_edge_normalization_factor=1.0), grid)
    np.testing.assert_allclose(scaled.mesh2grid.features, 2 * plain.mesh2grid.features, rtol=1e-6)
    np.testing.assert_array_equal(scaled.mesh.features, plain.mesh.features)


def test_node_features_at_known_places():
    latitude, longitude = np.array([0, 90, 0], np.float32), np.array([0, 0, 90], np.float32)

    expected = [[0, 1, 0], [1, 1, 0], [0, 0, 1]]
    np.testing.assert_allclose(node_features(latitude, longitude), expected, atol=1e-6)


def test_latitude_and_longitude_lead_back_to_the_vertices():
    vertices = multi_mesh(3).vertices

    np.testing.assert_allclose(positions(*latitude_longitude(vertices)), vertices, atol=1e-6)


def test_a_grid_too_coarse_to_reach_any_mesh_node_is_refused():
    with pytest.raises(GridError, match=r"no grid point lies within .* of a mesh node"):
        build_graphs(
            shape(radius_query_fraction_edge_length=1e-3),
            Grid(np.array([-45, 45], np.float32), np.array([10, 190], np.float32)),
        )
