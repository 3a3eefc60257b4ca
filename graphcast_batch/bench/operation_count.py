"""Count the floating point operations that one step of the network needs."""

from itertools import pairwise

from graphcast_batch.models.graphs import Graphs
from graphcast_batch.spec import Architecture


def operations(architecture: Architecture, inputs: int, outputs: int, graphs: Graphs) -> int:
    """Return the operations of the matrix products that one step needs, each multiplication counted as two.

    They are counted after exact algebra: a linear layer of a concatenation is the sum of one for each part, so nodes
    are projected before their values are gathered along edges; and what depends on weights and graphs alone (embedded
    edges and mesh nodes, with all that is linear in them, and structural features) is computed once for all steps.
    Activation, normalization, sums over edges and moving data are not counted.

    Args:
        architecture: sizes of the network.
        inputs: number of input values at a grid point, without the structural features.
        outputs: number of output values at a grid point.
        graphs: the graphs along whose edges messages are sent.
    """
    latent, hidden = architecture.latent_size, architecture.hidden_layers
    points, nodes = len(graphs.grid_nodes), len(graphs.mesh_nodes)
    to_mesh, along, to_grid = len(graphs.grid2mesh.senders), len(graphs.mesh.senders), 3 * points
    square = latent * latent
    inner = hidden * square
    """Multiplications in the layers after the first, for each row."""

    embedded = points * (inputs * latent + inner)
    encoder = points * square + to_mesh * inner + nodes * (square + inner) + points * (square + inner)
    message = nodes * 2 * square + along * inner
    update = nodes * (2 * square + inner)
    processor = architecture.gnn_msg_steps * (message + update) + (architecture.gnn_msg_steps - 1) * along * square
    decoder = (nodes + points) * square + to_grid * inner + points * (2 * square + inner)
    widths = [latent] * (hidden + 1) + [outputs]
    out = points * sum(above * below for above, below in pairwise(widths))
    return 2 * (embedded + encoder + processor + decoder + out)
