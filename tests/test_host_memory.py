"""A worker holds no more on its host than it must."""

import json
import threading
import tracemalloc
import weakref
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from graphcast_batch.app import planning
from graphcast_batch.grid import regular_grid
from graphcast_batch.inputs.case_inputs import CaseInputs
from graphcast_batch.inputs.formats import opening
from graphcast_batch.inputs.formats.opening import load, open_data
from graphcast_batch.inputs.sources.synthetic import SyntheticPlanet
from graphcast_batch.models.base import CallSize
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.state_arrays import initial_arrays
from graphcast_batch.pipeline import case_frames
from graphcast_batch.pipeline.case_frames import CaseFrames
from graphcast_batch.setup.host_memory import HostLoad, host_bytes
from graphcast_batch.spec import TASKS, Architecture
from graphcast_batch.timing import Stopwatch
from tests.conftest import SMALL
from tests.test_memory import of_xla
from tests.test_pipeline import FakeForecasts, FakeSource, cases, context, make, store_of


@contextmanager
def allocated():
    """Yields a list that then holds the bytes that stay allocated, and the most that were at any time."""
    found = []
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        yield found
        found += [size - before for size in tracemalloc.get_traced_memory()]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("together", "least", "most"), [(0, 1.0, 1.6), (2**30, 2.0, 9.0)])
def test_of_large_variables_one_after_another_is_read_with_its_chunks(tmp_path, monkeypatch, together, least, most):
    values = np.random.default_rng(0).normal(size=(2, 500, 1000)).astype(np.float32)  # that no codec makes smaller
    fields = xr.Dataset(dict.fromkeys("abcdefgh", (("time", "latitude", "longitude"), values)))
    chunks = {name: {"chunks": (1, 500, 1000)} for name in "abcdefgh"}
    fields.to_zarr(tmp_path / "large.zarr", encoding=chunks, zarr_format=2)
    monkeypatch.setattr(opening, "_TOGETHER_BYTES", together)

    with open_data(str(tmp_path / "large.zarr")) as opened, allocated() as found:
        loaded = load(opened, "large.zarr")

    assert all(np.array_equal(loaded[name].values, values) for name in "abcdefgh")
    kept, peak = (size / fields.nbytes for size in found)
    assert kept == pytest.approx(1, abs=0.05)
    assert least < peak < most


def test_the_state_is_made_with_one_variable_twice_in_memory():
    grid, task = regular_grid(2.5), TASKS["GraphCast_small"]
    times = np.array(["2020-01-01T00", "2020-01-01T06"], "datetime64[ns]")
    names = [name for name in task.input_variables if name not in task.forcing_variables]
    fields = SyntheticPlanet().fields(names, times, grid, task.pressure_levels)

    with allocated() as found:
        made = initial_arrays(Channels.of(task, {}), fields, grid)

    assert found[1] < 1.4 * sum(array.nbytes for array in made)


class LargeInputs(FakeSource):
    def __init__(self):
        self.read_so_far = []

    def read(self, case, task):
        inputs = super().read(case, task)
        values = np.zeros(10)
        self.read_so_far.append(weakref.ref(values))
        return CaseInputs(inputs.frames.assign(b=("place", values)), inputs.forcings)


def test_the_inputs_of_a_case_are_dropped_once_the_device_has_its_state(tmp_path):
    source, seen = LargeInputs(), []

    class Watching(FakeForecasts):
        def forecast(self, inputs, forcings, steps):
            for frames in super().forecast(inputs.drop_vars("b"), forcings, steps):
                inputs = None
                yield frames
                seen.append(source.read_so_far[-1]() is None)

    (case,) = cases(1, 4)
    make(context(store_of(tmp_path / "s", (case,)), Watching(), source), case)

    assert seen == [True] * 3  # at the start of each call but the first


@pytest.mark.parametrize("large", [False, True])
def test_the_device_waits_until_large_frames_are_taken_and_small_ones_wait_themselves(monkeypatch, large):
    frames = {"a": np.zeros((1, 5, 8), np.float32)}
    monkeypatch.setattr(case_frames, "MOST_WAITING_BYTES", frames["a"].nbytes - large)
    (case,) = cases(1, 2)
    between, given = CaseFrames(case, Stopwatch(), lambda *_: None), threading.Event()

    def give():
        between.give(frames)
        given.set()

    giver = threading.Thread(target=give)
    giver.start()
    assert given.wait(0.3) is not large
    assert next(iter(between)) is frames
    giver.join(10)
    assert given.is_set()


@pytest.mark.parametrize("large", [False, True])
def test_nothing_waits_for_a_case_that_wants_no_more_frames(monkeypatch, large):
    frames = {"a": np.zeros((1, 5, 8), np.float32)}
    monkeypatch.setattr(case_frames, "MOST_WAITING_BYTES", frames["a"].nbytes - large)
    (case,) = cases(1, 3)
    between = CaseFrames(case, Stopwatch(), lambda *_: None)

    giver = threading.Thread(target=lambda: [between.give(frames) for _ in range(3)])
    giver.start()
    between.refuse()

    giver.join(10)
    assert not giver.is_alive()


SIZES = CallSize(
    Architecture(mesh_size=6, latent_size=512, gnn_msg_steps=16),
    regular_grid(0.25),
    Channels.of(TASKS["GraphCast"], {}),
    "bfloat16",
    accelerated=True,
)
FRAME = 4 * 721 * 1440 * (5 + 6 * 37)
"""Bytes of a frame of the published task on 37 levels at 0.25°."""


def test_on_a_cpu_the_bytes_of_the_device_are_bytes_of_the_host():
    on_cpu = replace(SIZES, accelerated=False)

    assert host_bytes(on_cpu, 10**10, HostLoad()) - host_bytes(on_cpu, 0, HostLoad()) == 10**10
    assert host_bytes(SIZES, 10**10, HostLoad()) == host_bytes(SIZES, 0, HostLoad())


def test_frames_of_four_calls_are_on_the_host_of_an_accelerator():
    more = host_bytes(replace(SIZES, steps=4), 0, HostLoad()) - host_bytes(SIZES, 0, HostLoad())

    assert more == 4 * 3 * FRAME


def test_what_is_read_rounded_and_cut_out_adds_to_the_host():
    plain = host_bytes(SIZES, 0, HostLoad())
    variable = FRAME * 37 / 227  # of one lead time

    assert host_bytes(SIZES, 0, HostLoad(rounded=True)) - plain == pytest.approx(4 * variable)
    assert host_bytes(SIZES, 0, HostLoad(kept_bytes=10**9)) - plain == 10**9
    # Chunks of three times as many values, compressed to some 70 %.
    assert host_bytes(SIZES, 0, HostLoad(read_factor=3.0)) - plain == pytest.approx(1.7 * 2 * 2 * variable)


@pytest.mark.slow
def test_the_prediction_is_within_a_fifth_of_the_peak_of_a_run(small_config, command, tmp_path):
    architecture = {"mesh_size": 5, "latent_size": 32, "gnn_msg_steps": 2}
    config = small_config(
        inputs={"kind": "synthetic", "resolution": 1},
        times={"first": "2020-01-01T00", "last": "2020-01-01T12", "every_hours": 6},
        steps=4,
        model=SMALL["model"] | {"weights": SMALL["model"]["weights"] | {"architecture": architecture}},
        limits="off",
    )
    predicted = planning.plan(config)
    done = command("run", config)
    assert done.returncode == 0, done.stderr

    records = [json.loads(path.read_text()) for path in (tmp_path / "run" / "ledger").rglob("2020*.json")]
    peak = max(record["details"]["peak_memory_bytes"] for record in records)
    taken = "float32 on CPU, fast, 1 step a call"
    # What XLA counts for the call itself: another test compares it with its own prediction.
    counted, _ = of_xla(Architecture(**architecture), regular_grid(1.0), steps=1, lean=False, accelerated=False)
    assert peak == pytest.approx(predicted.host_memory[taken] - predicted.memory[taken] + counted, rel=0.2)
