"""What a device needs is told beforehand; what a worker needs does not grow with the number of steps."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from graphcast_batch.bench.compile_process import Request
from graphcast_batch.bench.step_contestant import SIZES
from graphcast_batch.config.loading import load_config
from graphcast_batch.errors import ConfigError
from graphcast_batch.grid import regular_grid
from graphcast_batch.models.base import CallSize
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.graphcast.batches import worthwhile_batch
from graphcast_batch.models.graphcast.device_memory import grid2mesh_edges, predicted_bytes
from graphcast_batch.models.graphcast.lowering import lowered_call
from graphcast_batch.models.graphs import build_graphs
from graphcast_batch.models.mesh import mesh_counts
from graphcast_batch.models.model_kinds import MODELS
from graphcast_batch.setup.resources import MemoryUse, fitting_mode, fitting_use, memory_uses
from graphcast_batch.setup.run_setup import assemble
from graphcast_batch.spec import TASKS, Architecture
from tests.conftest import SMALL

COARSE = regular_grid(10.0)


@pytest.fixture
def measure(small_config, command, tmp_path):
    def peak(steps):
        """Peak memory of the worker that made one forecast at 2.5°, and the size of its frames, bytes."""
        name = f"steps{steps}"
        config = small_config(
            name,
            inputs={"kind": "synthetic", "resolution": 2.5},
            times={"list": ["2020-01-01T00"]},
            steps=steps,
            model=SMALL["model"] | {"steps_per_call": 2},
            limits="off",  # random weights leave physics after some days
        )
        done = command("run", config)
        assert done.returncode == 0, done.stderr
        (record,) = (tmp_path / name / "ledger").rglob("2020*.json")
        frame_bytes = 83 * 73 * 144 * 4
        return json.loads(record.read_text())["details"]["peak_memory_bytes"], steps * frame_bytes

    return peak


@pytest.mark.long
def test_memory_levels_off_once_the_pipeline_is_full(measure):
    four, sixteen, sixty = (measure(steps) for steps in (4, 16, 60))

    print(*(f"{peak / 1e6:.0f} MB for {frames / 1e6:.0f} MB of frames" for peak, frames in (four, sixteen, sixty)))
    # Beside those of 4 steps there is room for a shard of 8 steps in place of one of 4, and for the calls under way.
    assert sixty[0] - four[0] < 0.5 * (sixty[1] - four[1])
    assert sixty[0] - sixteen[0] < 0.25 * (sixty[1] - sixteen[1])


def of_xla(architecture, grid, *, steps, lean, precision="float32"):
    """Bytes that XLA counts for a call on the CPU, without any array being made; and the same as predicted."""
    channels = Channels.of(TASKS["GraphCast_small"], {})
    call = CallSize(architecture, grid, channels, precision, accelerated=False, steps=steps)
    graphs = build_graphs(architecture, grid)
    counted = lowered_call(call, "lean" if lean else "fast", graphs).compile().memory_analysis()
    return (
        counted.argument_size_in_bytes
        + counted.output_size_in_bytes
        - counted.alias_size_in_bytes
        + counted.temp_size_in_bytes,
        predicted_bytes(call, "lean" if lean else "fast"),
    )


AS_SMALL = Architecture(mesh_size=5, latent_size=512, gnn_msg_steps=16)
LITTLE = Architecture(mesh_size=4, latent_size=128, gnn_msg_steps=4, hidden_layers=2)


@pytest.mark.parametrize(
    ("architecture", "resolution", "lean", "steps"),
    [(AS_SMALL, 1.0, False, 1), (LITTLE, 2.5, False, 4), (LITTLE, 2.5, True, 1)],
    ids=["as GraphCast_small", "4 steps at 2.5°", "lean at 2.5°"],
)
def test_predicted_bytes_are_those_that_xla_counts_within_a_tenth(architecture, resolution, lean, steps):
    counted, predicted = of_xla(architecture, regular_grid(resolution), steps=steps, lean=lean)

    assert predicted == pytest.approx(counted, rel=0.1)


def test_in_bfloat16_xla_keeps_no_float32_copies():
    made = {"steps": 1, "lean": True}

    counted, predicted = of_xla(AS_SMALL, regular_grid(1.0), precision="bfloat16", **made)

    assert counted < 0.7 * of_xla(AS_SMALL, regular_grid(1.0), **made)[0]
    assert predicted == pytest.approx(counted, rel=0.1)


def test_lean_needs_less_and_more_cases_and_steps_need_more():
    one = CallSize(AS_SMALL, regular_grid(1.0), Channels.of(TASKS["GraphCast_small"], {}), "float32", accelerated=False)

    assert predicted_bytes(one, "lean") < predicted_bytes(one, "fast")
    assert predicted_bytes(replace(one, precision="bfloat16"), "fast") < predicted_bytes(one, "fast")
    assert predicted_bytes(one, "fast") < predicted_bytes(replace(one, steps=2), "fast")
    assert (
        predicted_bytes(one, "fast") < predicted_bytes(replace(one, cases=2), "fast") < 2 * predicted_bytes(one, "fast")
    )


@pytest.mark.parametrize(("size", "fraction"), [(1, 1.0), (2, 0.6), (3, 0.6), (3, 1.0)])
def test_counted_edges_are_the_real_ones_and_estimated_ones_near(size, fraction):
    architecture = Architecture(
        mesh_size=size, latent_size=8, gnn_msg_steps=1, radius_query_fraction_edge_length=fraction
    )
    graphs = build_graphs(architecture, COARSE)

    assert mesh_counts(size) == (len(graphs.mesh_nodes), graphs.mesh.senders.size)
    assert grid2mesh_edges(architecture, COARSE) == pytest.approx(graphs.grid2mesh.senders.size, rel=0.2)


def used(mode, steps, device, host):
    return MemoryUse("bfloat16", True, mode, steps, 1, device, host)


@pytest.mark.parametrize(
    ("host", "device", "expected"),
    [
        (1000, 1000, ("fast", 4)),
        (1000, 0, ("fast", 4)),  # where JAX does not report the memory of the device
        (1000, 588, ("fast", 2)),  # 0.85 of it are below 500
        (499, 1000, ("fast", 2)),  # four fifths of it are below 400
        (1000, 470, ("lean", 4)),
        (10, 1000, ("lean", 2)),
        (1000, 10, ("lean", 2)),
    ],
)
def test_the_fastest_way_that_fits_the_device_and_the_host_is_taken(host, device, expected):
    ways = [("fast", 4, 500, 400), ("fast", 2, 400, 300), ("lean", 4, 300, 400), ("lean", 2, 200, 300)]

    found = fitting_use([used(*way) for way in ways], host, device)

    assert (found.mode, found.steps) == expected


@pytest.mark.parametrize(
    ("steps", "accelerated", "expected"),
    [
        ("auto", False, [1]),
        ("auto", True, [4, 2, 1]),
        (3, False, [3]),
        (3, True, [3]),
    ],
)
def test_a_call_has_the_steps_of_the_config_or_one_on_a_cpu(small_config, steps, accelerated, expected):
    model = SMALL["model"] | {"steps_per_call": steps, "memory": "lean"}
    run = assemble(load_config(small_config(model=model, steps=12)))

    assert [use.steps for use in memory_uses(run, accelerated=accelerated)] == expected


def test_one_forecast_uses_the_memory_in_the_fastest_way_that_fits_or_is_refused_with_both_numbers():
    size, model = SIZES["operational"], MODELS["native"]
    call = CallSize(size.architecture, size.grid, size.channels, "float32", accelerated=False)
    fast, lean = (model.predicted_bytes(call, mode) for mode in ("fast", "lean"))

    assert fitting_mode(model, call, 2 * fast) == "fast"
    assert fitting_mode(model, call, fast) == fitting_mode(model, call, lean) == "lean"
    assert fitting_mode(model, call, 0) == "fast"  # where JAX does not report the memory of the device
    with pytest.raises(ConfigError, match=r"721 x 1440.* at least 5\.\d+ GB in float32, but the machine has 4 GB"):
        fitting_mode(model, call, 4 * 10**9)


@pytest.mark.parametrize(
    ("chosen", "accelerated", "workers", "expected"),
    [
        ("auto", True, 1, [16, 8, 4, 2, 1]),  # of 20 Cases of a small network
        ("auto", True, 3, [4, 2, 1]),  # each worker has 6
        ("auto", True, 30, [1]),
        ("auto", False, 1, [1]),
        (5, True, 1, [5]),
        (5, False, 30, [5]),
    ],
)
def test_a_batch_is_as_large_as_the_config_says_or_as_is_worth_it(small_config, chosen, accelerated, workers, expected):
    model = SMALL["model"] | {"batch_size": chosen, "memory": "lean", "steps_per_call": 1}
    times = {"first": "2020-01-01T00", "last": "2020-01-20T00", "every_hours": 24}
    run = assemble(load_config(small_config(model=model, times=times)))

    uses = memory_uses(run, accelerated=accelerated, workers=workers)
    assert [use.batch_size for use in uses] == expected
    assert [use.device_bytes for use in uses] == sorted({use.device_bytes for use in uses}, reverse=True)


@pytest.mark.parametrize(("size", "expected"), [("tiny", 16), ("small", 4), ("operational", 1), ("full", 1)])
def test_a_batch_is_worth_it_where_kernels_are_short(size, expected):
    size = SIZES[size]
    call = CallSize(size.architecture, size.grid, size.channels, "bfloat16", accelerated=True)

    # By XLA's programs for an H100: 130 starts for 71.5 MB, 519 for 24.1 GB and 1550 for 163 GB, of 5 us each.
    assert worthwhile_batch(call) == expected


def test_calls_of_a_forecast_are_alike_whatever_their_steps(small_config):
    run = assemble(load_config(small_config(steps=6)))

    assert [(use.mode, use.steps) for use in memory_uses(run, accelerated=True)] == [
        *(("fast", 3), ("fast", 2), ("fast", 1)),
        *(("lean", 3), ("lean", 2), ("lean", 1)),
    ]


RECORDED = [
    path
    for path in sorted((Path(__file__).parents[1] / "benchmarks-results").glob("bench-compile-*.json"))
    if "-update-" not in path.name
]


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name[14:40])
def test_what_accelerators_need_is_predicted_within_a_tenth_of_what_xla_counted_for_them(path):
    """XLA's accounts were recorded by ``graphcast-batch bench compile``, for GPUs and TPUs and up to full size."""
    recorded = json.loads(path.read_text())
    request = Request(**recorded["settings"])
    (counted,) = (each["median"] for each in recorded["figures"] if each["name"] == "peak memory by XLA")

    assert predicted_bytes(request.call, request.memory) / 1e9 == pytest.approx(counted, rel=0.1)
