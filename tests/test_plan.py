import re
import shutil
from datetime import datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from graphcast_batch.assembly import assemble, check_memory, doubts, needed_bytes
from graphcast_batch.config import TASKS, Architecture, Times, load_config
from graphcast_batch.errors import ConfigError, TaskError
from graphcast_batch.grid import Grid
from graphcast_batch.model.graphs import build_graphs
from graphcast_batch.plan import (
    Case,
    Layout,
    grid2mesh_edges,
    is_on_levels,
    mesh_counts,
    plan_cases,
    plan_layout,
    plan_times,
    worker_bytes,
)

QUARTER = Grid(np.linspace(-90, 90, 721, dtype=np.float32), np.arange(0, 360, 0.25, dtype=np.float32))
COARSE = Grid(np.linspace(-90, 90, 19, dtype=np.float32), np.arange(0, 360, 10, dtype=np.float32))
START = datetime(2020, 1, 1)  # noqa: DTZ001 - UTC without a zone


def test_a_case_is_named_by_its_initial_time_and_knows_its_lead_times():
    case = Case(np.datetime64("2020-01-01T06", "ns"), 3)

    assert case.key == "2020-01-01T06"
    assert case.lead_times.astype("timedelta64[h]").astype(int).tolist() == [6, 12, 18]
    assert sorted([Case(np.datetime64("2020-01-02"), 1), case])[0] is case


@given(st.integers(1, 48), st.integers(0, 400))
def test_a_span_gives_every_time_from_first_to_last(every, hours):
    times = plan_times(Times(first=START, last=START + timedelta(hours=hours), every_hours=every))

    assert times[0] == np.datetime64(START)
    assert set(np.diff(times).astype(int).tolist()) <= {every}
    assert times[-1] <= np.datetime64(START + timedelta(hours=hours)) < times[-1] + np.timedelta64(every, "h")


def test_a_list_is_put_in_order():
    times = plan_times(Times(list=(START + timedelta(hours=6), START)))

    assert [str(time) for time in times] == ["2020-01-01T00", "2020-01-01T06"]


def test_times_that_the_archive_cannot_start_are_set_aside_with_what_is_lacking():
    held = np.arange("2020-01-01T00", "2020-01-01T19", 6, dtype="datetime64[h]").astype("datetime64[ns]")
    wanted = [np.datetime64("2020-01-01T00"), np.datetime64("2020-01-01T06"), np.datetime64("2020-01-02T00")]

    cases, aside = plan_cases(wanted, 4, held, input_frames=2)

    assert [case.key for case in cases] == ["2020-01-01T06"]
    assert aside == (
        ("2020-01-01T00", "the archive lacks 2019-12-31T18"),
        ("2020-01-02T00", "the archive lacks 2020-01-02T00"),
    )


def test_a_run_without_any_case_is_refused():
    with pytest.raises(ConfigError, match="none of the 1 initial times can be run; the first: 2020-01-01T00"):
        plan_cases([np.datetime64("2020-01-01T00")], 4, [], input_frames=2)


def test_a_layout_counts_what_graphcast_writes():
    layout = plan_layout(TASKS["GraphCast"], QUARTER, 40, {})

    assert layout.channels == 227
    assert layout.frame_bytes == 227 * 721 * 1440 * 4
    assert layout.case_bytes == 40 * layout.frame_bytes
    assert layout.block_steps == 1  # a block of a 0.25° forecast fills its quarter GiB with one frame
    assert layout.case_files == 11 * 40
    assert list(layout.variables) == sorted(layout.variables)


@given(st.integers(1, 100))
def test_blocks_cover_the_steps_and_stay_small(steps):
    layout = Layout(COARSE, (500,), (("a", True), ("b", False)), steps)

    assert 1 <= layout.block_steps <= min(8, steps)
    assert layout.case_files == 2 * -(-steps // layout.block_steps)


def test_data_overrule_what_is_commonly_known_of_a_variable():
    assert is_on_levels("temperature", {})
    assert not is_on_levels("temperature", {"temperature": ("time", "latitude", "longitude")})
    assert is_on_levels("ozone", {"ozone": ("time", "level")})


@pytest.mark.parametrize(
    ("name", "dims", "message"),
    [
        (
            "temperature",
            ("time", "pressure_level", "latitude", "longitude"),
            "temperature must have the dimension level, but has time, pressure_level, latitude, longitude; rename it",
        ),
        (
            "2m_temperature",
            ("time", "height", "latitude", "longitude"),
            "2m_temperature must have dimensions among .*, but has time, height, .*; select one place along height",
        ),
        ("ozone", ("time", "level", "member"), "ozone must have dimensions among .*; select one place along member"),
    ],
)
def test_a_variable_along_a_dimension_that_is_not_ours_is_refused(name, dims, message):
    with pytest.raises(TaskError, match=message):
        is_on_levels(name, {name: dims})


def test_an_archive_whose_levels_have_another_name_is_refused_before_anything_is_run(small_config, tmp_path):
    dims = ("time", "layer", "latitude", "longitude")
    times = np.arange("2020-01-01", "2020-01-03", 6, dtype="datetime64[h]").astype("datetime64[ns]")
    coords = {"time": times, "layer": [500, 850], "latitude": COARSE.latitude, "longitude": COARSE.longitude}
    fields = xr.Dataset({"temperature": (dims, np.zeros((8, 2, *COARSE.shape), np.float32))}, coords)
    fields.to_netcdf(tmp_path / "archive.nc", engine="netcdf4")
    config = load_config(small_config(inputs={"kind": "archive", "path": str(tmp_path / "archive.nc")}))

    with pytest.raises(TaskError, match="temperature must have the dimension level, but has time, layer"):
        assemble(config)


@pytest.mark.parametrize(("size", "fraction"), [(1, 1.0), (2, 0.6), (3, 0.6), (3, 1.0)])
def test_counted_edges_are_the_real_ones_and_estimated_ones_near(size, fraction):
    architecture = Architecture(
        mesh_size=size, latent_size=8, gnn_msg_steps=1, radius_query_fraction_edge_length=fraction
    )
    graphs = build_graphs(architecture, COARSE)

    assert mesh_counts(size) == (len(graphs.mesh_nodes), graphs.mesh.senders.size)
    assert grid2mesh_edges(architecture, COARSE) == pytest.approx(graphs.grid2mesh.senders.size, rel=0.2)


def test_a_worker_needs_more_for_wider_latents_and_half_for_half_the_precision():
    def needed(latent_size, precision_bytes):
        architecture = Architecture(mesh_size=3, latent_size=latent_size, gnn_msg_steps=1)
        return worker_bytes(architecture, plan_layout(TASKS["GraphCast_small"], COARSE, 4, {}), 183, precision_bytes)

    # Latents grow with their size and weights with its square.
    assert 2 < needed(1024, 4) / needed(512, 4) < 4
    assert 1 < needed(512, 4) / needed(512, 2) < 2


def test_a_run_that_does_not_fit_the_memory_is_refused_with_the_numbers(small_config):
    run = assemble(load_config(small_config()))
    needed = needed_bytes(run, "float32")

    check_memory(run, "float32", 2, 2 * needed)
    with pytest.raises(ConfigError, match=r"2 workers must have .* GB each, .* in float32, but .*; take fewer workers"):
        check_memory(run, "float32", 2, 2 * needed - 1)
    with pytest.raises(ConfigError, match="take a coarser grid, a smaller model or a larger machine"):
        check_memory(run, "float32", 1, needed - 1)


def test_a_disk_that_is_too_small_for_all_forecasts_is_told(small_config, monkeypatch):
    run = assemble(load_config(small_config()))
    assert doubts(run) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=run.plan.store_bytes // 2))
    (doubt,) = doubts(run)
    assert re.search(r"all forecasts need about .* GB, .* but .* GB are free at ", doubt)
