"""Normalised features at grid points become the normalised change of the weather: encoder, processor, decoder.

Lam et al. 2023, supplement 3.3-3.6. Two pieces of exact algebra make it cheaper than it is written there: what the
first layer of an edge does to its sender and receiver is done once per node, before the nodes are gathered; and the
three edges of each grid point are summed by a reshape.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from graphcast_batch.config import Architecture
from graphcast_batch.errors import OutsideTransformError
from graphcast_batch.model.graphs import Edges, Graphs

AnyArray = Array | NDArray[np.float32]


class Part(NamedTuple):
    """A part of what goes into a layer: values of nodes or edges, and which of them each output takes."""

    values: AnyArray
    gathered: Any = None


class Module(hk.Module):
    """A Haiku module that says what is wrong when it is made outside a transform."""

    def __new__(cls, *_args: object, **_kwargs: object) -> "Module":
        """Checks that a transform is under way."""
        try:
            hk.running_init()
        except ValueError as error:
            raise OutsideTransformError(
                f"{cls.__name__} is a Haiku module and must be made inside hk.transform; wrap the call in a function "
                "and transform it, or use graphcast_batch.model.predictor.Predictor, which does"
            ) from error
        return super().__new__(cls)


class PartedLinear(Module):
    """A linear layer on the concatenation of parts, without making the concatenation."""

    def __init__(self, outputs: int, name: str, rows: NDArray[np.int32] | None = None) -> None:
        super().__init__(name=name)
        self._outputs = outputs
        self._rows = rows

    def __call__(self, parts: Sequence[Part], rows_in_all: int | None = None) -> Array:
        """Applies the layer.

        Args:
            parts: each (n, features), of one precision; the weight's rows are theirs, in order.
            rows_in_all: rows of the weight, where the parts are only the last of them.

        Returns:
            (n, outputs) float32: products of bfloat16 are summed in float32.
        """
        widths = [part.values.shape[-1] for part in parts]
        total = rows_in_all or sum(widths)
        dtype = parts[0].values.dtype
        start = hk.initializers.TruncatedNormal(1 / np.sqrt(total))
        weight = hk.get_parameter("w", [total, self._outputs], dtype, init=start)
        result = hk.get_parameter("b", [self._outputs], dtype, init=jnp.zeros).astype(jnp.float32)
        if self._rows is not None:
            weight = weight[np.concatenate([self._rows, np.arange(self._rows.size, total)])]
        first = total - sum(widths)
        for part, width in zip(parts, widths, strict=True):
            product = jnp.matmul(part.values, weight[first : first + width], preferred_element_type=jnp.float32)
            result = result + (product if part.gathered is None else product[part.gathered])
            first += width
        return result


class Perceptron(Module):
    """Linear layers with swish between them."""

    def __init__(
        self, architecture: Architecture, outputs: int, name: str, rows: NDArray[np.int32] | None = None
    ) -> None:
        super().__init__(name=name)
        sizes = [architecture.latent_size] * architecture.hidden_layers + [outputs]
        self._first = PartedLinear(sizes[0], name="linear_0", rows=rows)
        self._rest = [PartedLinear(size, name=f"linear_{k}") for k, size in enumerate(sizes[1:], start=1)]

    def __call__(self, parts: Sequence[Part], rows_in_all: int | None = None) -> Array:
        """(n, outputs) float32 of parts that are each (n, features) once gathered."""
        result = self._first(parts, rows_in_all)
        for linear in self._rest:
            result = linear([Part(jax.nn.swish(result).astype(parts[0].values.dtype))])
        return result


class Stage(Module):
    """One of the three graph networks; its parts are named as in published checkpoints."""

    def __init__(self, architecture: Architecture, name: str) -> None:
        super().__init__(name=name)
        self._architecture = architecture

    def embed(
        self, kind: str, parts: Sequence[Part], rows: NDArray[np.int32] | None = None, rows_in_all: int | None = None
    ) -> Array:
        """Latents of nodes (kind ``nodes_<set>``) or edges (kind ``edges_<set>``)."""
        return self._networks_builder(f"encoder_{kind}", parts, rows, rows_in_all)

    def update(self, kind: str, step: int, parts: Sequence[Part]) -> Array:
        """What a step of message passing adds to nodes or edges."""
        prefix, set_name = kind.split("_", 1)
        return self._networks_builder(f"processor_{prefix}_{step}_{set_name}", parts)

    def output(self, latent: Array, outputs: int) -> Array:
        """(point, outputs) of grid point latents; this one has no layer norm."""
        return self._networks_builder("decoder_nodes_grid_nodes", [Part(latent)], outputs=outputs)

    def _networks_builder(
        self,
        name: str,
        parts: Sequence[Part],
        rows: NDArray[np.int32] | None = None,
        rows_in_all: int | None = None,
        outputs: int | None = None,
    ) -> Array:
        # This method's name is part of the parameters' names in published checkpoints.
        size = outputs or self._architecture.latent_size
        result = Perceptron(self._architecture, size, f"{name}_mlp", rows)(parts, rows_in_all)
        if outputs:
            return result
        normed = hk.LayerNorm(axis=-1, create_scale=True, create_offset=True, name=f"{name}_layer_norm")(result)
        return normed.astype(parts[0].values.dtype)


def graphcast(
    inputs: Array,
    graphs: Graphs,
    architecture: Architecture,
    outputs: int,
    input_rows: NDArray[np.int32] | None = None,
) -> Array:
    """The whole network, from features at grid points to normalised outputs there; to be called in ``hk.transform``.

    Args:
        inputs: (point, channels) normalised, float32 or bfloat16; the network computes in their precision.
        graphs: of the grid and the mesh.
        architecture: sizes of the network.
        outputs: values at a grid point that come out.
        input_rows: for each channel its row in the published weight; without it channels are in that order.

    Returns:
        (point, outputs), in the precision of the inputs and in the published order.

    Raises:
        OutsideTransformError: it is called outside a transform.
    """
    graphs = jax.tree.map(lambda a: a.astype(inputs.dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, graphs)
    grid, mesh = _encode(Stage(architecture, "grid2mesh_gnn"), inputs, graphs, input_rows)
    mesh = _process(Stage(architecture, "mesh_gnn"), mesh, graphs.mesh, architecture.gnn_msg_steps)
    return _decode(Stage(architecture, "mesh2grid_gnn"), grid, mesh, graphs.mesh2grid, outputs)


def _encode(stage: Stage, inputs: Array, graphs: Graphs, input_rows: NDArray[np.int32] | None) -> tuple[Array, Array]:
    edges, width = graphs.grid2mesh, inputs.shape[-1] + graphs.grid_nodes.shape[-1]
    grid = stage.embed("nodes_grid_nodes", [Part(inputs), Part(graphs.grid_nodes)], input_rows)
    # A mesh node has zeros in place of the weather, which leaves the last rows of the weight.
    mesh = stage.embed("nodes_mesh_nodes", [Part(graphs.mesh_nodes)], rows_in_all=width)
    latent = stage.embed("edges_grid2mesh", [Part(edges.features)])
    messages = stage.update("edges_grid2mesh", 0, _ends(latent, grid, mesh, edges))
    # Dozens of grid points meet in a mesh node: their sum is kept in float32, as published.
    received = _received(messages.astype(jnp.float32), edges, mesh.shape[0]).astype(messages.dtype)
    mesh = mesh + stage.update("nodes_mesh_nodes", 0, [Part(mesh), Part(received)])
    grid = grid + stage.update("nodes_grid_nodes", 0, [Part(grid)])
    return grid, mesh


def _process(stage: Stage, mesh: Array, edges: Edges, steps: int) -> Array:
    latent = stage.embed("edges_mesh", [Part(edges.features)])
    for step in range(steps):
        messages = stage.update("edges_mesh", step, _ends(latent, mesh, mesh, edges))
        received = _received(messages, edges, mesh.shape[0])
        mesh = mesh + stage.update("nodes_mesh_nodes", step, [Part(mesh), Part(received)])
        latent = latent + messages
    return mesh


def _decode(stage: Stage, grid: Array, mesh: Array, edges: Edges, outputs: int) -> Array:
    latent = stage.embed("edges_mesh2grid", [Part(edges.features)])
    messages = stage.update("edges_mesh2grid", 0, _ends(latent, mesh, grid, edges))
    received = messages.reshape(grid.shape[0], 3, -1).sum(axis=1)
    grid = grid + stage.update("nodes_grid_nodes", 0, [Part(grid), Part(received)])
    return stage.output(grid, outputs)


def _ends(latent: Array, senders: Array, receivers: Array, edges: Edges) -> list[Part]:
    return [Part(latent), Part(senders, edges.senders), Part(receivers, edges.receivers)]


def _received(messages: Array, edges: Edges, nodes: int) -> Array:
    return jax.ops.segment_sum(messages, edges.receivers, nodes, indices_are_sorted=True)
