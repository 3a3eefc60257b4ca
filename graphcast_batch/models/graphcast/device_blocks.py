"""Arrange graphs in the blocks that suit a kind of device."""

from graphcast_batch.models.edge_blocks import BlockedGraphs, blocked
from graphcast_batch.models.graphcast.device_memory import edges_at_once
from graphcast_batch.models.graphs import Graphs


def in_blocks(graphs: Graphs, latent_size: int, *, accelerated: bool) -> BlockedGraphs:
    """Return graphs in blocks for a processor's cache, or for an accelerator.

    On an accelerator the mesh is one block: its edges are few beside those of the grid, and each step on the mesh would
    copy their latents into blocks and back, a tenth of all bytes that a model step moves.
    """
    return blocked(graphs, edges_at_once(latent_size, accelerated=accelerated), whole_mesh=accelerated)
