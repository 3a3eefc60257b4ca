"""Compute the normalized change of the weather from normalized features: encoder, processor and decoder.

Lam et al. 2023, supplement 3.3-3.6, by exact algebra in a cheaper order. What depends on weights and graphs alone is
computed once: embeddings of edges and mesh nodes, and what they add to first layers. What a first layer does to a
sender or receiver is done once per node, before the nodes are gathered. The rest runs block by block.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from graphcast_batch.models.edge_blocks import BlockedGraphs, Rows
from graphcast_batch.models.graphcast.block_loops import as_bits, as_numbers, map_blocks, scan_blocks
from graphcast_batch.models.graphcast.layers import STRUCTURAL_EDGE, Decoder, Encoder, NetworkWeights, Perceptron

_EPSILON = 1e-5
"""Added to the variance in layer norms, as Haiku does by default."""

Step = tuple[Perceptron, Perceptron]
"""The updates of edges and of nodes in one step of message passing."""


class EdgeRows(NamedTuple):
    """Edges of one graph in blocks of rows, with what does not depend on the weather.

    Attributes:
        senders: (block, row, width) node numbers.
        receivers: (block, row) node numbers, ascending.
        present: (block, row, width) 1 for an edge, 0 for an empty place.
        terms: (block, row, width, latent) output of the first layer of their first update, with its bias;
            None where it is computed again in every step.
        features: (block, row, width, 4); None where ``terms`` are kept.
    """

    senders: Array
    receivers: Array
    present: Array
    terms: Array | None
    features: Array | None


class Folded(NamedTuple):
    """Weights and graphs in the precision of the network, and all that follows from them alone.

    Attributes:
        encoder: weights from the grid to the mesh.
        first: updates of edges and nodes in the first step on the mesh; None if it is also the last.
        middle: updates of the steps between, stacked; None if there are none.
        last: updates of the last step.
        decoder: weights from the mesh to the grid.
        grid_nodes: (block, point, 3) structural features.
        mesh_nodes: (node, latent) latents.
        receiving: (node, latent) output of the first layer of the encoder's edges for mesh nodes.
        mesh_latents: (block, row, width, latent) latents of the mesh's edges.
        grid2mesh: edges from the grid to the mesh.
        mesh: edges of the multi-mesh.
        mesh2grid: edges from the mesh to the grid.
    """

    encoder: Encoder
    first: Step | None
    middle: Step | None
    last: Step
    decoder: Decoder
    grid_nodes: Array
    mesh_nodes: Array
    receiving: Array
    mesh_latents: Array
    grid2mesh: EdgeRows
    mesh: EdgeRows
    mesh2grid: EdgeRows


def fold(weights: NetworkWeights, graphs: BlockedGraphs, dtype: Any, *, lean: bool, bits: bool = False) -> Folded:  # noqa: ANN401 - the type of JAX's dtypes is private
    """Compute all that does not depend on the weather.

    Args:
        weights: weights of the network, float32 or finer.
        graphs: the grid and the mesh.
        dtype: precision of the network: bfloat16, float32 or float64.
        lean: whether the first layers of grid2mesh's and mesh2grid's edges are computed in every step, from four
            features of each: more arithmetic, less memory.
        bits: whether bfloat16 arrays in blocks are kept as bits, which is faster on a CPU but leaves no gradient.
    """
    weights, graphs = (
        jax.tree.map(lambda a: a if jnp.issubdtype(a.dtype, jnp.integer) else a.astype(dtype), tree)
        for tree in (weights, graphs)
    )
    mesh_features = jnp.asarray(graphs.mesh_nodes)
    graphs = as_bits(graphs) if bits else graphs
    encoder, processor, decoder = weights
    steps = list(zip(processor.update_edges, processor.update_nodes, strict=True))
    # A mesh node has zeros in place of the weather.
    nodes = encoder.mesh_nodes
    first = _first(nodes._replace(parts=nodes.parts[-1:]), mesh_features)
    mesh_nodes = _onwards(encoder.mesh_nodes, first).astype(dtype)
    return Folded(
        encoder=encoder,
        first=steps[0] if steps[1:] else None,
        middle=jax.tree.map(lambda *weights: jnp.stack(weights), *steps[1:-1]) if steps[2:] else None,
        last=steps[-1],
        decoder=decoder,
        grid_nodes=jnp.asarray(graphs.grid_nodes),
        mesh_nodes=mesh_nodes,
        receiving=_product(mesh_nodes, encoder.update_edges.parts[2]),
        mesh_latents=map_blocks(partial(_embedded, processor.edges), graphs.mesh.features),
        grid2mesh=_edges(graphs.grid2mesh, encoder.edges, encoder.update_edges, lean=lean),
        mesh=_edges(graphs.mesh, processor.edges, processor.update_edges[0], lean=False),
        mesh2grid=_edges(graphs.mesh2grid, decoder.edges, decoder.update_edges, lean=lean),
    )


def graphcast(folded: Folded, fields: Any, features: Callable[[Any], Array]) -> Array:  # noqa: ANN401 - a pytree
    """Apply the network to fields at grid points; return normalized outputs there.

    Args:
        folded: weights and graphs.
        fields: (point, ...) arrays.
        features: computes the normalized (point, channels) of a block, in any precision, from its part of ``fields``.

    Returns:
        (point, outputs) float32, in the order of the weights' columns.
    """
    blocks, size, _ = folded.grid_nodes.shape
    (points,) = {field.shape[0] for field in jax.tree.leaves(fields)}

    def block(xs: tuple[Any, Array]) -> tuple[Array, Array]:
        fields, nodes = xs
        return _encoded(folded.encoder, features(fields).astype(nodes.dtype), nodes)

    grid, sent = map_blocks(block, (jax.tree.map(partial(_parted, blocks, size), fields), folded.grid_nodes))
    mesh = _onto_mesh(folded, sent.reshape(blocks * size, -1))
    outputs = _onto_grid(folded, grid, _along_mesh(folded, mesh))
    return outputs.reshape(blocks * size, -1)[:points]


def _parted(blocks: int, size: int, field: Array) -> Array:
    """Return a (point, ...) field as (block, point, ...); it is copied only where the last block must be filled."""
    missing = blocks * size - field.shape[0]
    filled = jnp.pad(field, [(0, missing)] + [(0, 0)] * (field.ndim - 1)) if missing else field
    return filled.reshape(blocks, size, *field.shape[1:])


def _encoded(encoder: Encoder, weather: Array, nodes: Array) -> tuple[Array, Array]:
    """Return latents of grid points for the decoder, and the output of the first layer of the encoder's edges."""
    embedding, update = encoder.grid_nodes, encoder.update_grid
    latent = _onwards(embedding, _first(embedding, weather, nodes)).astype(nodes.dtype)
    sent = _product(latent, encoder.update_edges.parts[1]).astype(latent.dtype)
    return latent + _onwards(update, _first(update, latent)).astype(latent.dtype), sent


def _onto_mesh(folded: Folded, sent: Array) -> Array:
    encoder, nodes = folded.encoder, folded.mesh_nodes

    def block(received: Array, edges: EdgeRows) -> tuple[Array, None]:
        known = _known(edges, encoder.edges, encoder.update_edges)
        messages = _messages(encoder.update_edges, edges, known, sent, folded.receiving[edges.receivers])
        return _added(received, edges, messages), None

    received, _ = scan_blocks(block, jnp.zeros(nodes.shape, _summing(nodes.dtype)), folded.grid2mesh)
    return _updated(encoder.update_mesh, nodes, received)


def _along_mesh(folded: Folded, nodes: Array) -> Array:
    edges, latents = folded.mesh, folded.mesh_latents
    later = edges._replace(terms=None)
    if folded.first is None:
        return _mesh_step(folded.last, edges, nodes, latents, keep=False)[0]
    state = _mesh_step(folded.first, edges, nodes, latents, keep=True)
    if folded.middle:
        state, _ = jax.lax.scan(lambda state, weights: (_mesh_step(weights, later, *state), None), state, folded.middle)
    return _mesh_step(folded.last, later, *state, keep=False)[0]


def _mesh_step(
    weights: Step, edges: EdgeRows, nodes: Array, latents: Array, *, keep: bool = True
) -> tuple[Array, Array]:
    """Compute one step of message passing.

    Args:
        weights: weights of the step.
        edges: edges of the mesh, with the terms of this step.
        nodes: (node, latent).
        latents: (block, row, width, latent) latents of the edges.
        keep: whether new latents of the edges are wanted.

    Returns:
        New nodes and latents.
    """
    of_edges, of_nodes = weights
    sent, receiving = (_product(nodes, part) for part in of_edges.parts[1:])

    def block(received: Array, xs: tuple[EdgeRows, Array]) -> tuple[Array, Array | None]:
        edges, latent = xs
        known = _first(of_edges, latent) if edges.terms is None else edges.terms
        messages = _messages(of_edges, edges, known, sent, receiving[edges.receivers])
        return _added(received, edges, messages), latent + messages.astype(latent.dtype) if keep else None

    received, new = scan_blocks(block, jnp.zeros(nodes.shape, _summing(nodes.dtype)), (edges, latents))
    return _updated(of_nodes, nodes, received), latents if new is None else new


def _onto_grid(folded: Folded, grid: Array, mesh: Array) -> Array:
    decoder = folded.decoder
    update, output = decoder.update_edges, decoder.output
    sent = _product(mesh, update.parts[1])

    def block(xs: tuple[Array, EdgeRows]) -> Array:
        nodes, edges = xs
        known = _known(edges, decoder.edges, update)
        messages = _messages(update, edges, known, sent, _product(nodes, update.parts[2]))
        nodes = _updated(decoder.update_grid, nodes, messages.sum(axis=1))
        return _onwards(output, _first(output, nodes))

    outputs: Array = map_blocks(block, (grid, folded.mesh2grid))
    return outputs


def _edges(rows: Rows, embedding: Perceptron, update: Perceptron, *, lean: bool) -> EdgeRows:
    senders, receivers, present, features = map(jnp.asarray, rows)
    edges = EdgeRows(senders, receivers, present, None, features)
    if lean:
        return edges
    terms = map_blocks(lambda block: _known(block, embedding, update).astype(block.features.dtype), edges)
    return edges._replace(terms=terms, features=None)


def _known(edges: EdgeRows, embedding: Perceptron, update: Perceptron) -> Array:
    """Return the (row, width, latent) output of the first layer of an update for a block's edges, with its bias."""
    if edges.terms is not None:
        return edges.terms
    return _first(update, _embedded(embedding, edges.features))


def _embedded(embedding: Perceptron, features: Array | None) -> Array:
    assert features is not None, "edges have terms or features"
    return _onwards(embedding, _first(embedding, features)).astype(features.dtype)


def _messages(update: Perceptron, edges: EdgeRows, known: Array, sent: Array, receiving: Array) -> Array:
    """Return (row, width, latent) float32 messages along the edges of a block; 0 where there is no edge.

    Args:
        update: update of the edges.
        edges: edges of the block.
        known: (row, width, latent) output of the first layer for the edges, with its bias.
        sent: (node, latent) output of the first layer for all senders.
        receiving: (row, latent) output of the first layer for the receivers.
    """
    dtype = _summing(update.bias.dtype)
    messages = _onwards(update, known.astype(dtype) + as_numbers(sent[edges.senders]) + receiving[:, None])
    return messages * edges.present[..., None]


def _added(received: Array, edges: EdgeRows, messages: Array) -> Array:
    return received.at[edges.receivers].add(messages.sum(axis=1), indices_are_sorted=True)


def _updated(update: Perceptron, nodes: Array, received: Array) -> Array:
    change = _onwards(update, _first(update, nodes, received.astype(nodes.dtype)))
    return nodes + change.astype(nodes.dtype)


def _first(perceptron: Perceptron, *parts: Array) -> Array:
    """Return the (..., columns) float32 output of a first layer, from the first parts of its input."""
    dtype = _summing(perceptron.bias.dtype)
    products = [_product(part, weight).astype(dtype) for part, weight in zip(parts, perceptron.parts, strict=False)]
    return sum(products[1:], products[0]) + perceptron.bias


def _onwards(perceptron: Perceptron, first: Array) -> Array:
    """Return the (..., columns) float32 output of the other layers and the layer norm, from that of the first."""
    values, dtype = first, perceptron.bias.dtype
    for layer in perceptron.rest:
        values = (_product(jax.nn.swish(values).astype(dtype), layer.weight) + layer.bias).astype(_summing(dtype))
    if perceptron.norm is None:
        return values
    scale, offset = perceptron.norm
    centered = values - values.mean(axis=-1, keepdims=True)
    variance = jnp.square(centered).mean(axis=-1, keepdims=True)
    return centered * (jax.lax.rsqrt(variance + _EPSILON) * scale) + offset


def _product(values: Array, weight: Array) -> Array:
    """Return (..., columns) products of (..., rows), rounded to the precision of the weight.

    Devices sum products of bfloat16 in float32. In float32 the result would be twice as large: on a GPU writing and
    reading it takes longer than the product.
    """
    if weight.shape[0] <= STRUCTURAL_EDGE:  # fewer bytes are moved when what comes next is computed along with it
        dtype = _summing(weight.dtype)
        products = [values[..., row, None].astype(dtype) * weight[row].astype(dtype) for row in range(weight.shape[0])]
        return sum(products[1:], products[0])
    flat = values.reshape(-1, values.shape[-1])
    return jnp.matmul(flat, weight).reshape(*values.shape[:-1], -1)


def _summing(dtype: Any) -> Any:  # noqa: ANN401 - the type of JAX's dtypes is private
    """Return the type that numbers are summed in: float32, or a finer one, in which gradients are tested."""
    return jnp.promote_types(dtype, jnp.float32)
