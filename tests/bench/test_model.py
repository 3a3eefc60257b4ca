import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from graphcast_batch.bench.operation_count import operations
from graphcast_batch.bench.step_contestant import SIZES
from graphcast_batch.bench.step_speed import measure
from graphcast_batch.errors import BenchError
from graphcast_batch.models.base import CallSize
from graphcast_batch.models.graphs import Edges, Graphs, build_graphs
from graphcast_batch.models.model_kinds import MODELS
from graphcast_batch.spec import Architecture
from graphcast_batch.text import byte_size


def graphs(points, nodes, to_mesh, along):
    def edges(count):
        return Edges(np.zeros(count, np.int32), np.zeros(count, np.int32), np.zeros((count, 4), np.float32))

    structural = (np.zeros((count, 3), np.float32) for count in (points, nodes))
    return Graphs(*structural, edges(to_mesh), edges(along), edges(3 * points))


def test_a_network_of_one_value_everywhere_needs_an_operation_for_each_row_of_each_matrix():
    shape = Architecture(mesh_size=0, latent_size=1, gnn_msg_steps=2, hidden_layers=1)

    # Points: 2 to embed, 1 to send, 2 for their own update, 1 to receive, 2 + 1 for the update, 2 for the outputs, and
    # 1 for each of their 3 edges. Nodes: 1 + 1 for what they receive, then 2 to send and receive and 2 + 1 for the
    # update in each of 2 steps, and 1 to send. Edges: 1, and on the mesh 1 in each step and 1 between the two.
    for count, each in ((graphs(1, 0, 0, 0), 14), (graphs(0, 1, 0, 0), 13), (graphs(0, 0, 1, 0), 1)):
        assert operations(shape, 1, 1, count) == 2 * each
    assert operations(shape, 1, 1, graphs(0, 0, 0, 1)) == 2 * 3


def test_every_product_counts_its_rows_and_both_sides_of_its_matrix():
    shape = Architecture(mesh_size=0, latent_size=5, gnn_msg_steps=1, hidden_layers=2)
    points, nodes, to_mesh, along = 7, 11, 13, 17
    products = [
        *((points, 3, 5), (points, 5, 5), (points, 5, 5)),  # embedding
        *((points, 5, 5), (to_mesh, 5, 5), (to_mesh, 5, 5)),  # messages to the mesh
        *((nodes, 5, 5), (nodes, 5, 5), (nodes, 5, 5)),  # what the mesh makes of them
        *((points, 5, 5), (points, 5, 5), (points, 5, 5)),  # points by themselves
        *((nodes, 5, 10), (along, 5, 5), (along, 5, 5)),  # messages on the mesh
        *((nodes, 10, 5), (nodes, 5, 5), (nodes, 5, 5)),  # what its nodes make of them
        *((nodes, 5, 5), (points, 5, 5), (3 * points, 5, 5), (3 * points, 5, 5)),  # messages to the grid
        *((points, 10, 5), (points, 5, 5), (points, 5, 5)),  # what points make of them
        *((points, 5, 5), (points, 5, 5), (points, 5, 2)),  # outputs
    ]

    counted = operations(shape, 3, 2, graphs(points, nodes, to_mesh, along))
    assert counted == sum(2 * rows * above * below for rows, above, below in products)


@pytest.mark.slow
def test_a_tiny_network_is_measured_beside_deepminds_package_or_alone_with_the_reason():
    result = measure("tiny", "float32", steps=2, rounds=2)
    figures = {figure.name: figure for figure in result.figures}
    importable = find_spec("weathernext") or find_spec("graphcast")

    size = SIZES["tiny"]
    needed = operations(
        size.architecture, size.channels.inputs, size.channels.outputs, build_graphs(size.architecture, size.grid)
    )
    seconds = np.array(figures["native, a step"].samples)
    (share,) = (figure.samples for name, figure in figures.items() if name == "native / matrix product")
    (rate,) = (figure.samples for name, figure in figures.items() if name.startswith("matrix product"))
    np.testing.assert_allclose(np.array(share) * rate, needed / seconds / 1e9)
    assert figures["native, to the first frame"].samples[0] > seconds.min()
    # Weights, constants and one frame at least; and the interpreter.
    assert figures["native, peak memory of the process"].samples[0] > 0.05
    if importable:
        assert figures["largest difference, 12 h"].samples[0] < 1e-3
        ratio = np.array(figures["deepmind, a step"].samples) / seconds
        np.testing.assert_allclose(figures["deepmind / native, a step"].samples, ratio)
    else:
        assert "it is not on PyPI: pip install" in result.settings["against"]
        assert not any("deepmind" in name for name in figures)
        assert result.command.endswith("--against none")


def test_an_interpreter_that_cannot_measure_is_told_with_its_exit_code(tmp_path):
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable}\nraise SystemExit(7)\n")
    python.chmod(0o755)

    with pytest.raises(BenchError, match="measures deepmind must answer, but ended with code 7"):
        measure("tiny", "float32", steps=1, rounds=1, python=Path(python))


def test_a_network_that_does_not_fit_into_the_memory_is_refused_with_both_numbers(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "4000")  # MiB
    size = SIZES["operational"]
    call = CallSize(size.architecture, size.grid, size.channels, "float32", accelerated=False)
    needed = byte_size(MODELS["native"].predicted_bytes(call, "lean"))

    told = rf"0\.25.* needs at least {needed} with --memory lean, .* has 4\.19 GB; take"
    with pytest.raises(BenchError, match=told):
        measure("operational", "float32", steps=1, rounds=1, against="none", memory="lean")


@pytest.mark.slow
def test_a_tiny_network_is_measured_lean_too():
    result = measure("tiny", "float32", steps=1, rounds=1, against="none", memory="lean")

    assert result.bench == "model-tiny-float32-lean"
    assert result.command.endswith("--memory lean --against none")
    assert result.settings["memory"] == "lean"
