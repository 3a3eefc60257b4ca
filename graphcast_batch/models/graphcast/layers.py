"""Collect the weights of each part of the network; Haiku finds the parameters by their published names."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import haiku as hk
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from graphcast_batch.errors import OutsideTransformError
from graphcast_batch.spec import Architecture

STRUCTURAL_NODE, STRUCTURAL_EDGE = 3, 4
"""Number of structural features of a node, and of an edge."""


class Linear(NamedTuple):
    """A linear layer.

    Attributes:
        weight: (rows, columns).
        bias: (columns,).
    """

    weight: Array
    bias: Array


class Perceptron(NamedTuple):
    """Linear layers with swish between them, and a layer norm after the last.

    Attributes:
        parts: rows of the first layer's weight, (width, columns) for each part of its input.
        bias: (columns,) of the first layer.
        rest: the other layers.
        norm: scale and offset of the layer norm, (columns,) each; None without one.
    """

    parts: tuple[Array, ...]
    bias: Array
    rest: tuple[Linear, ...]
    norm: tuple[Array, Array] | None


class Encoder(NamedTuple):
    """The weights from the grid to the mesh; parts of the updates are (edge, sender, receiver) and (node, messages)."""

    grid_nodes: Perceptron
    mesh_nodes: Perceptron
    edges: Perceptron
    update_edges: Perceptron
    update_grid: Perceptron
    update_mesh: Perceptron


class Processor(NamedTuple):
    """The weights on the mesh; each step has updates of its own."""

    edges: Perceptron
    update_edges: tuple[Perceptron, ...]
    update_nodes: tuple[Perceptron, ...]


class Decoder(NamedTuple):
    """The weights from the mesh to the grid."""

    edges: Perceptron
    update_edges: Perceptron
    update_grid: Perceptron
    output: Perceptron


class NetworkWeights(NamedTuple):
    """All weights of the network."""

    encoder: Encoder
    processor: Processor
    decoder: Decoder


class Module(hk.Module):
    """A Haiku module that refuses to be made outside a transform, with an error that says what to do."""

    def __new__(cls, *_args: object, **_kwargs: object) -> "Module":
        """Refuse to make the module outside a transform."""
        try:
            hk.running_init()
        except ValueError as error:
            raise OutsideTransformError(
                f"{cls.__name__} is a Haiku module and must be made inside hk.transform; wrap the call in a function "
                "and transform it, or use graphcast_batch.models.graphcast.predictor.Predictor, which does"
            ) from error
        return super().__new__(cls)


class LinearParameters(Module):
    """The parameters of a linear layer."""

    def __call__(self, rows: int, columns: int) -> Linear:
        """Find the parameters, or draw them."""
        start = hk.initializers.TruncatedNormal(1 / np.sqrt(rows))
        return Linear(
            hk.get_parameter("w", [rows, columns], jnp.float32, init=start),
            hk.get_parameter("b", [columns], jnp.float32, init=jnp.zeros),
        )


class LinearStack(Module):
    """The parameters of successive linear layers."""

    def __init__(self, sizes: Sequence[int], name: str) -> None:
        super().__init__(name=name)
        self._sizes = sizes
        self._layers = [LinearParameters(name=f"linear_{k}") for k in range(len(sizes) - 1)]

    def __call__(self) -> list[Linear]:
        """Find the parameters, or draw them."""
        return [layer(*sizes) for layer, sizes in zip(self._layers, pairwise(self._sizes), strict=True)]


class NormParameters(Module):
    """The parameters of a layer norm."""

    def __call__(self, size: int) -> tuple[Array, Array]:
        """Find scale and offset, or make them."""
        return (
            hk.get_parameter("scale", [size], jnp.float32, init=jnp.ones),
            hk.get_parameter("offset", [size], jnp.float32, init=jnp.zeros),
        )


class NetworkStage(Module):
    """One of the three graph networks, with the names of published checkpoints."""

    def __init__(self, architecture: Architecture, name: str) -> None:
        super().__init__(name=name)
        self._architecture = architecture

    def embed(self, kind: str, *widths: int, rows: NDArray[np.int32] | None = None) -> Perceptron:
        """Return what makes latents of nodes (kind ``nodes_<set>``) or edges (kind ``edges_<set>``).

        Args:
            kind: kind of nodes or edges.
            *widths: widths of the parts of the input.
            rows: for each value of the first parts its row in the published weight; None for the published order.
        """
        return self._networks_builder(f"encoder_{kind}", widths, rows=rows)

    def update(self, kind: str, step: int, parts: int) -> Perceptron:
        """Return what changes nodes or edges in a step of message passing, from so many parts of latent size."""
        prefix, set_name = kind.split("_", 1)
        widths = (self._architecture.latent_size,) * parts
        return self._networks_builder(f"processor_{prefix}_{step}_{set_name}", widths)

    def output(self, outputs: int, columns: NDArray[np.int32] | None = None) -> Perceptron:
        """Return what makes outputs of the latents of grid points; it has no layer norm.

        Args:
            outputs: number of outputs.
            columns: for each output its index in the published order; None for the published order.
        """
        made = self._networks_builder("decoder_nodes_grid_nodes", (self._architecture.latent_size,), outputs)
        return made if columns is None else _with_columns(made, columns)

    def _networks_builder(
        self, name: str, widths: Sequence[int], outputs: int | None = None, rows: NDArray[np.int32] | None = None
    ) -> Perceptron:
        # This method's name is part of the parameters' names in published checkpoints.
        latent, hidden = self._architecture.latent_size, self._architecture.hidden_layers
        first, *rest = LinearStack([sum(widths), *[latent] * hidden, outputs or latent], f"{name}_mlp")()
        weight = first.weight
        if rows is not None:
            weight = weight[np.concatenate([rows, np.arange(rows.size, sum(widths))])]
        ends = [0, *accumulate(widths)]
        return Perceptron(
            parts=tuple(weight[start:end] for start, end in pairwise(ends)),
            bias=first.bias,
            rest=tuple(rest),
            norm=None if outputs else NormParameters(name=f"{name}_layer_norm")(latent),
        )


def network_weights(
    architecture: Architecture,
    inputs: int,
    outputs: int,
    input_rows: NDArray[np.int32] | None = None,
    output_columns: NDArray[np.int32] | None = None,
) -> NetworkWeights:
    """Return all weights of the network; to be called in ``hk.transform``.

    Args:
        architecture: sizes of the network.
        inputs: number of values at a grid point that go in, without the structural features.
        outputs: number of values at a grid point that come out.
        input_rows: for each input value its index in the published order; None for the published order.
        output_columns: for each output value its index in the published order; None for the published order.

    Raises:
        OutsideTransformError: the function is called outside a transform.
    """
    to_mesh = NetworkStage(architecture, "grid2mesh_gnn")
    mesh = NetworkStage(architecture, "mesh_gnn")
    to_grid = NetworkStage(architecture, "mesh2grid_gnn")
    steps = range(architecture.gnn_msg_steps)
    return NetworkWeights(
        Encoder(
            grid_nodes=to_mesh.embed("nodes_grid_nodes", inputs, STRUCTURAL_NODE, rows=input_rows),
            mesh_nodes=to_mesh.embed("nodes_mesh_nodes", inputs, STRUCTURAL_NODE),
            edges=to_mesh.embed("edges_grid2mesh", STRUCTURAL_EDGE),
            update_edges=to_mesh.update("edges_grid2mesh", 0, parts=3),
            update_grid=to_mesh.update("nodes_grid_nodes", 0, parts=1),
            update_mesh=to_mesh.update("nodes_mesh_nodes", 0, parts=2),
        ),
        Processor(
            edges=mesh.embed("edges_mesh", STRUCTURAL_EDGE),
            update_edges=tuple(mesh.update("edges_mesh", step, parts=3) for step in steps),
            update_nodes=tuple(mesh.update("nodes_mesh_nodes", step, parts=2) for step in steps),
        ),
        Decoder(
            edges=to_grid.embed("edges_mesh2grid", STRUCTURAL_EDGE),
            update_edges=to_grid.update("edges_mesh2grid", 0, parts=3),
            update_grid=to_grid.update("nodes_grid_nodes", 0, parts=2),
            output=to_grid.output(outputs, output_columns),
        ),
    )


def _with_columns(perceptron: Perceptron, columns: NDArray[np.int32]) -> Perceptron:
    """Return a linear layer with its outputs in another order."""
    if not perceptron.rest:
        parts = tuple(part[:, columns] for part in perceptron.parts)
        return perceptron._replace(parts=parts, bias=perceptron.bias[columns])
    *before, last = perceptron.rest
    return perceptron._replace(rest=(*before, Linear(last.weight[:, columns], last.bias[columns])))
