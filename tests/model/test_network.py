import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from graphcast_batch.config import Architecture
from graphcast_batch.errors import OutsideTransformError
from graphcast_batch.grid import Grid
from graphcast_batch.model.graphs import build_graphs
from graphcast_batch.model.network import PartedLinear, Perceptron, Stage, graphcast
from graphcast_batch.model.parameters import parameter_shapes, random_parameters

GRID = Grid(np.linspace(-90, 90, 7, dtype=np.float32), np.arange(0, 360, 30, dtype=np.float32))


def network(architecture, input_rows=None):
    return hk.without_apply_rng(
        hk.transform(lambda inputs, graphs: graphcast(inputs, graphs, architecture, 3, input_rows))
    )


@pytest.mark.parametrize("hidden_layers", [0, 1, 2])
def test_the_network_asks_for_the_listed_parameters_but_those_that_nothing_uses(hidden_layers):
    architecture = Architecture(mesh_size=1, latent_size=4, gnn_msg_steps=2, hidden_layers=hidden_layers)
    graphs = build_graphs(architecture, GRID)

    asked = jax.eval_shape(network(architecture).init, jax.random.key(0), jnp.zeros((GRID.size, 5)), graphs)

    listed = parameter_shapes(architecture, inputs=5, outputs=3)
    unused = {name for name in listed if "mesh2grid_gnn/~_networks_builder/processor_nodes_0_mesh_nodes" in name}
    assert {m: {n: a.shape for n, a in named.items()} for m, named in asked.items()} == {
        name: shapes for name, shapes in listed.items() if name not in unused
    }
    assert len(unused) == hidden_layers + 2


def test_channels_may_come_in_any_order_when_their_rows_are_told():
    architecture = Architecture(mesh_size=1, latent_size=4, gnn_msg_steps=1)
    graphs = build_graphs(architecture, GRID)
    parameters = random_parameters(architecture, 5, 3, seed=1)
    inputs = np.random.default_rng(0).normal(size=(GRID.size, 5)).astype(np.float32)
    order = np.array([3, 0, 4, 1, 2], np.int32)

    plain = network(architecture).apply(parameters, inputs, graphs)
    shuffled = network(architecture, order).apply(parameters, inputs[:, order], graphs)

    np.testing.assert_allclose(plain, shuffled, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: PartedLinear(3, name="linear"),
        lambda: Perceptron(Architecture(mesh_size=0, latent_size=4, gnn_msg_steps=1), 3, name="perceptron"),
        lambda: Stage(Architecture(mesh_size=0, latent_size=4, gnn_msg_steps=1), name="stage"),
        lambda: graphcast(
            jnp.zeros((GRID.size, 5)),
            build_graphs(Architecture(mesh_size=0, latent_size=4, gnn_msg_steps=1), GRID),
            Architecture(mesh_size=0, latent_size=4, gnn_msg_steps=1),
            3,
        ),
    ],
    ids=["PartedLinear", "Perceptron", "Stage", "graphcast"],
)
def test_a_module_outside_a_transform_says_so(make):
    with pytest.raises(OutsideTransformError, match=r"must be made inside hk\.transform; wrap the call"):
        make()


def test_random_weights_are_the_same_for_a_seed_and_spread_as_their_layer_asks():
    architecture = Architecture(mesh_size=0, latent_size=64, gnn_msg_steps=1)

    one, same, other = (random_parameters(architecture, 100, 3, seed) for seed in (1, 1, 2))

    name = "grid2mesh_gnn/~_networks_builder/encoder_nodes_grid_nodes_mlp/~/linear_0"
    np.testing.assert_array_equal(one[name]["w"], same[name]["w"])
    assert not np.array_equal(one[name]["w"], other[name]["w"])
    # A normal distribution cut at two standard deviations keeps 0.8796 of its width.
    assert one[name]["w"].std() == pytest.approx(0.8796 / np.sqrt(103), rel=0.02)
    assert np.abs(one[name]["w"]).max() <= 2 / np.sqrt(103)
    assert (one[name]["b"] == 0).all()
