"""List, draw and check the parameters of GraphCast's network.

Published files also hold parameters whose output nothing uses, such as those of the decoder's mesh nodes. As they
belong to the format, they are listed, drawn and saved here too, although the network does not compute with them.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from graphcast_batch.errors import CheckpointError
from graphcast_batch.spec import Architecture

_STRUCTURAL_NODE, _STRUCTURAL_EDGE = 3, 4


class Shaped(Protocol):
    """Something with the shape of an array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The dimensions."""


def parameter_shapes(architecture: Architecture, inputs: int, outputs: int) -> dict[str, dict[str, tuple[int, ...]]]:
    """Return the shape of every parameter by module and name.

    Args:
        architecture: sizes of the network.
        inputs: number of values at a grid point that go in, without the structural features.
        outputs: number of values at a grid point that come out.
    """
    latent = architecture.latent_size
    node = inputs + _STRUCTURAL_NODE
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}

    def add(stage: str, block: str, rows: int, columns: int = latent, normed: bool = True) -> None:
        prefix = f"{stage}/~_networks_builder/{block}"
        sizes = [rows] + [latent] * architecture.hidden_layers + [columns]
        for k, (above, below) in enumerate(pairwise(sizes)):
            shapes[f"{prefix}_mlp/~/linear_{k}"] = {"w": (above, below), "b": (below,)}
        if normed:
            shapes[f"{prefix}_layer_norm"] = {"scale": (columns,), "offset": (columns,)}

    add("grid2mesh_gnn", "encoder_edges_grid2mesh", _STRUCTURAL_EDGE)
    add("grid2mesh_gnn", "encoder_nodes_grid_nodes", node)
    add("grid2mesh_gnn", "encoder_nodes_mesh_nodes", node)
    add("grid2mesh_gnn", "processor_edges_0_grid2mesh", 3 * latent)
    add("grid2mesh_gnn", "processor_nodes_0_grid_nodes", latent)
    add("grid2mesh_gnn", "processor_nodes_0_mesh_nodes", 2 * latent)
    add("mesh_gnn", "encoder_edges_mesh", _STRUCTURAL_EDGE)
    for step in range(architecture.gnn_msg_steps):
        add("mesh_gnn", f"processor_edges_{step}_mesh", 3 * latent)
        add("mesh_gnn", f"processor_nodes_{step}_mesh_nodes", 2 * latent)
    add("mesh2grid_gnn", "encoder_edges_mesh2grid", _STRUCTURAL_EDGE)
    add("mesh2grid_gnn", "processor_edges_0_mesh2grid", 3 * latent)
    add("mesh2grid_gnn", "processor_nodes_0_grid_nodes", 2 * latent)
    add("mesh2grid_gnn", "processor_nodes_0_mesh_nodes", latent)
    add("mesh2grid_gnn", "decoder_nodes_grid_nodes", latent, outputs, normed=False)
    return shapes


def random_parameters(
    architecture: Architecture, inputs: int, outputs: int, seed: int
) -> dict[str, dict[str, NDArray[np.float32]]]:
    """Draw initial weights: truncated normal of width 1/sqrt(rows), biases of 0, layer norms of 1 and 0.

    The same seed gives the same weights on every machine, whatever its accelerator.
    """
    random = np.random.default_rng(seed)
    low, high = ndtr(-2.0), ndtr(2.0)

    def draw(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        if name == "w":
            return np.asarray(ndtri(random.uniform(low, high, shape)) / np.sqrt(shape[0]), np.float32)
        return np.full(shape, 1 if name == "scale" else 0, np.float32)

    shapes = parameter_shapes(architecture, inputs, outputs)
    return {module: {name: draw(name, shape) for name, shape in named.items()} for module, named in shapes.items()}


def check_parameters(
    parameters: Mapping[str, Mapping[str, Shaped]], architecture: Architecture, inputs: int, outputs: int, where: str
) -> None:
    """Refuse weights that do not have the shapes which architecture and task need.

    Args:
        parameters: the weights, or what else has their shapes.
        architecture: sizes of the network.
        inputs: number of values at a grid point that go in, without the structural features.
        outputs: number of values at a grid point that come out.
        where: name of the weights, for the error.

    Raises:
        CheckpointError: a parameter is missing, unknown or of another shape; the message names the first one.
    """
    expected = parameter_shapes(architecture, inputs, outputs)
    for module, named in expected.items():
        for name, shape in named.items():
            found = parameters.get(module, {}).get(name)
            if found is None:
                raise CheckpointError(f"{where}: the parameter {module}:{name} of shape {shape} is missing{_ADVICE}")
            if found.shape != shape:
                raise CheckpointError(
                    f"{where}: the parameter {module}:{name} must have shape {shape} for {inputs} inputs, {outputs} "
                    f"outputs and latent size {architecture.latent_size}, but has {found.shape}{_ADVICE}"
                )
    for module, found_names in parameters.items():
        strange = sorted(set(found_names) - set(expected.get(module, {})))
        if strange:
            raise CheckpointError(f"{where}: the parameter {module}:{strange[0]} belongs to no part of it{_ADVICE}")


_ADVICE = "; the weights, the architecture and the task must be of one model"
