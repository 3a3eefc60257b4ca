import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphcast_batch.grid import regular_grid
from graphcast_batch.models.edge_blocks import blocked, row_width
from graphcast_batch.models.graphs import build_graphs
from graphcast_batch.spec import Architecture

GRID = regular_grid(15.0)
GRAPHS = build_graphs(Architecture(mesh_size=2, latent_size=8, gnn_msg_steps=1), GRID)
EDGES = {"grid2mesh": GRAPHS.grid2mesh, "mesh": GRAPHS.mesh, "mesh2grid": GRAPHS.mesh2grid}


def listed(senders, receivers, features):
    """Every edge as a tuple, sorted."""
    return sorted(zip(receivers.tolist(), senders.tolist(), map(tuple, features.tolist()), strict=True))


@given(edges_at_once=st.integers(1, 2000))
def test_rows_hold_every_edge_once_and_nothing_else(edges_at_once):
    rows_of = blocked(GRAPHS, edges_at_once)

    for name, edges in EDGES.items():
        rows = getattr(rows_of, name)
        receivers = np.broadcast_to(rows.receivers[..., None], rows.senders.shape)
        held = rows.present
        found = listed(rows.senders[held], receivers[held], rows.features[held])
        assert found == listed(edges.senders, edges.receivers, edges.features), name
        assert (np.diff(rows.receivers.ravel()) >= 0).all(), name


@given(edges_at_once=st.integers(3, 2000))
def test_a_grid_points_row_stands_where_the_point_does(edges_at_once):
    rows_of = blocked(GRAPHS, edges_at_once)
    blocks, size, _ = rows_of.grid_nodes.shape

    assert rows_of.mesh2grid.senders.shape == (blocks, size, 3)
    np.testing.assert_array_equal(rows_of.mesh2grid.receivers.ravel()[: GRID.size], np.arange(GRID.size))
    np.testing.assert_array_equal(rows_of.grid_nodes.reshape(-1, 3)[: GRID.size], GRAPHS.grid_nodes)


@given(edges_at_once=st.integers(3, 2000))
def test_blocks_of_points_are_full_where_a_size_near_that_asked_for_allows_it(edges_at_once):
    blocks, size, _ = blocked(GRAPHS, edges_at_once).grid_nodes.shape

    asked = edges_at_once // 3
    near = [n for n in range(1, GRID.size + 1) if GRID.size % n == 0 and asked / 1.5 <= n <= asked * 1.5]
    if near:
        assert blocks * size == GRID.size
        assert size in near
        assert (size <= asked) == (min(near) <= asked)
    else:
        assert blocks * size < GRID.size + blocks
        assert size <= max(1, asked)


def test_blocks_are_no_larger_than_asked_and_hardly_padded():
    rows = blocked(GRAPHS, 300).mesh

    blocks, size, width = rows.senders.shape
    assert size * width <= 300
    assert blocks * size * width < GRAPHS.mesh.senders.size * 1.06 + blocks * width


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [([6, 6, 6], 6), ([3, 3], 3), ([6] * 100 + [5], 6), ([1, 7, 2], 1), ([4, 8, 4], 4), ([0, 2, 0, 4], 2)],
)
def test_rows_are_as_wide_as_few_empty_places_allow(degrees, expected):
    assert row_width(np.repeat(np.arange(len(degrees), dtype=np.int32), degrees)) == expected
