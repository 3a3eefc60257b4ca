from functools import cache

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from graphcast_batch.errors import OutsideTransformError
from graphcast_batch.grid import Grid
from graphcast_batch.models.edge_blocks import blocked
from graphcast_batch.models.graphcast.layers import (
    LinearParameters,
    LinearStack,
    NetworkStage,
    NormParameters,
    network_weights,
)
from graphcast_batch.models.graphcast.network import fold, graphcast
from graphcast_batch.models.graphcast.parameters import parameter_shapes, random_parameters
from graphcast_batch.models.graphs import build_graphs
from graphcast_batch.spec import Architecture

pytestmark = pytest.mark.usefixtures("hasty_compiler")

GRID = Grid(np.linspace(-90, 90, 7, dtype=np.float32), np.arange(0, 360, 30, dtype=np.float32))


def weights_of(architecture, input_rows=None, output_columns=None):
    return hk.without_apply_rng(hk.transform(lambda: network_weights(architecture, 5, 3, input_rows, output_columns)))


def outputs_of(
    architecture,
    parameters,
    inputs,
    edges_at_once=10**6,
    lean=False,
    input_rows=None,
    output_columns=None,
    dtype=jnp.float32,
    bits=False,
):
    @jax.jit
    def outputs(parameters, graphs, inputs):
        weights = weights_of(architecture, input_rows, output_columns).apply(parameters)
        return graphcast(fold(weights, graphs, dtype, lean=lean, bits=bits), inputs, lambda block: block)

    return np.asarray(outputs(parameters, blocked(build_graphs(architecture, GRID), edges_at_once), inputs))


def drawn(architecture):
    inputs = np.random.default_rng(0).normal(size=(GRID.size, 5)).astype(np.float32)
    return random_parameters(architecture, 5, 3, seed=1), inputs


@pytest.mark.parametrize("hidden_layers", [0, 1, 2])
def test_the_network_asks_for_the_listed_parameters_but_those_that_nothing_uses(hidden_layers):
    architecture = Architecture(mesh_size=1, latent_size=4, gnn_msg_steps=2, hidden_layers=hidden_layers)

    asked = jax.eval_shape(weights_of(architecture).init, jax.random.key(0))

    listed = parameter_shapes(architecture, inputs=5, outputs=3)
    unused = {name for name in listed if "mesh2grid_gnn/~_networks_builder/processor_nodes_0_mesh_nodes" in name}
    assert {m: {n: a.shape for n, a in named.items()} for m, named in asked.items()} == {
        name: shapes for name, shapes in listed.items() if name not in unused
    }
    assert len(unused) == hidden_layers + 2


@pytest.mark.parametrize("hidden_layers", [0, 1])
def test_channels_may_come_and_go_in_any_order_when_their_places_are_told(hidden_layers):
    architecture = Architecture(mesh_size=1, latent_size=4, gnn_msg_steps=1, hidden_layers=hidden_layers)
    parameters, inputs = drawn(architecture)
    rows, columns = np.array([3, 0, 4, 1, 2], np.int32), np.array([2, 0, 1], np.int32)

    plain = outputs_of(architecture, parameters, inputs)
    shuffled = outputs_of(architecture, parameters, inputs[:, rows], input_rows=rows, output_columns=columns)

    np.testing.assert_allclose(plain[:, columns], shuffled, rtol=1e-5, atol=1e-6)


def of_steps(steps):
    return Architecture(mesh_size=1, latent_size=4, gnn_msg_steps=steps)


@cache
def complete(steps):
    return outputs_of(of_steps(steps), *drawn(of_steps(steps)))


# Each pair of the three at least once.
@pytest.mark.parametrize(
    ("edges_at_once", "steps", "lean"),
    [
        (1, 1, False),
        (1, 2, True),
        (1, 3, False),
        (7, 1, True),
        (7, 2, False),
        (7, 3, True),
        (100, 1, False),
        (100, 2, False),
        (100, 3, True),
    ],
)
def test_neither_the_size_of_blocks_nor_what_is_kept_changes_the_outputs(edges_at_once, steps, lean):
    architecture = of_steps(steps)

    parted = outputs_of(architecture, *drawn(architecture), edges_at_once, lean)

    np.testing.assert_allclose(complete(steps), parted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("steps", "lean"), [(3, True), (2, False)])
def test_bits_between_blocks_are_the_numbers_that_they_stand_for(steps, lean):
    drawn_up = (of_steps(steps), *drawn(of_steps(steps)), 100, lean)

    numbers, bits = (outputs_of(*drawn_up, dtype=jnp.bfloat16, bits=choice) for choice in (False, True))

    np.testing.assert_array_equal(numbers, bits)
    assert not np.array_equal(numbers, complete(steps))


def test_a_gradient_through_bits_is_refused_and_not_0():
    architecture = of_steps(1)
    parameters, inputs = drawn(architecture)
    graphs = blocked(build_graphs(architecture, GRID), 100)

    @jax.grad
    def slope(inputs):
        folded = fold(weights_of(architecture).apply(parameters), graphs, jnp.bfloat16, lean=True, bits=True)
        return graphcast(folded, inputs, lambda block: block).sum()

    with pytest.raises(TypeError, match="a gradient needs bfloat16 arrays as numbers"):
        jax.jit(slope).trace(inputs)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LinearParameters(name="linear"),
        lambda: LinearStack([3, 4], name="stack"),
        lambda: NormParameters(name="norm"),
        lambda: NetworkStage(Architecture(mesh_size=0, latent_size=4, gnn_msg_steps=1), name="stage"),
        lambda: network_weights(Architecture(mesh_size=0, latent_size=4, gnn_msg_steps=1), 5, 3),
    ],
    ids=["LinearParameters", "LinearStack", "NormParameters", "NetworkStage", "network_weights"],
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
