from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from graphcast_batch.errors import CheckpointError, TaskError
from graphcast_batch.models.base import steps_in_call
from graphcast_batch.models.graphcast.parameters import random_parameters
from graphcast_batch.spec import TASKS, Architecture, Task
from tests.models.conftest import joined, made_up

pytestmark = pytest.mark.usefixtures("hasty_compiler")

FORCINGS = ("toa_incident_solar_radiation", "year_progress_sin", "day_progress_cos")


def test_several_steps_in_a_call_give_the_frames_of_one_step_in_a_call(reference):
    one, two = (
        joined(reference.forecaster("float32", n).forecast(reference.inputs, reference.forcings, reference.steps))
        for n in (1, 2)
    )

    for name in one:
        scale = reference.statistics["diffs_stddev"][name].values.min()
        np.testing.assert_allclose(one[name], two[name], rtol=0, atol=2e-4 * scale)


def test_forcings_that_the_inputs_lack_are_computed(reference):
    given = joined(reference.forecaster("float32").forecast(reference.inputs, reference.forcings, 1))
    bare = reference.inputs.drop_vars("toa_incident_solar_radiation")
    computed = joined(reference.forecaster("float32").forecast(bare, xr.Dataset(), 1))

    for name in given:
        scale = reference.statistics["diffs_stddev"][name].values.min()
        np.testing.assert_allclose(given[name], computed[name], rtol=0, atol=0.05 * scale)


def test_forcings_of_some_lead_times_suffice_and_the_rest_is_computed(reference):
    forecaster = reference.forecaster("float32", 2)
    complete = joined(forecaster.forecast(reference.inputs, reference.forcings, 2))
    half = joined(forecaster.forecast(reference.inputs, reference.forcings.isel(time=[0]), 2))

    for name in complete:
        scale = reference.statistics["diffs_stddev"][name].values.min()
        np.testing.assert_array_equal(complete[name][0], half[name][0])
        np.testing.assert_allclose(complete[name][1], half[name][1], rtol=0, atol=0.05 * scale)


TASKS_TRIED = {
    "one_frame_in": Task(
        input_variables=("temperature", "land_sea_mask", *FORCINGS),
        target_variables=("temperature",),
        forcing_variables=FORCINGS,
        pressure_levels=(500, 850),
        input_duration="6h",
    ),
    "three_frames_in": Task(
        input_variables=("2m_temperature", "temperature", "day_progress_cos"),
        target_variables=("2m_temperature", "temperature", "total_precipitation_6hr", "mean_sea_level_pressure"),
        forcing_variables=FORCINGS,
        pressure_levels=(1000,),
        input_duration="18h",
    ),
    "surface_only_without_forcings": Task(
        input_variables=("2m_temperature",),
        target_variables=("2m_temperature",),
        forcing_variables=(),
        pressure_levels=(),
    ),
    "nothing_fed_back": Task(
        input_variables=("geopotential_at_surface", *FORCINGS),
        target_variables=("2m_temperature",),
        forcing_variables=FORCINGS,
        pressure_levels=(),
    ),
    "37_levels": TASKS["GraphCast"],
}


# The depth is that of each multilayer perceptron, the task only widens the outermost: each need be seen, not each pair.
@pytest.mark.parametrize(
    ("name", "hidden_layers"),
    [
        ("one_frame_in", 0),
        ("one_frame_in", 3),
        ("three_frames_in", 1),
        ("surface_only_without_forcings", 0),
        ("nothing_fed_back", 3),
        ("37_levels", 1),
    ],
)
def test_any_task_and_depth_runs_and_gives_finite_frames_of_the_right_shape(name, hidden_layers):
    task = TASKS_TRIED[name]
    made = made_up(Architecture(mesh_size=1, latent_size=8, gnn_msg_steps=1, hidden_layers=hidden_layers), task)

    frames = joined(made.forecaster("float32", 2).forecast(made.inputs, xr.Dataset(), 4))

    assert sorted(frames) == sorted(task.target_variables)
    for name, values in frames.items():
        levels = (len(task.pressure_levels),) if name in made.channels.on_levels else ()
        assert values.shape == (4, *levels, *made.grid.shape)
        assert np.isfinite(values).all()


def test_a_frame_depends_on_every_input_frame():
    made = made_up(Architecture(mesh_size=1, latent_size=8, gnn_msg_steps=1), TASKS_TRIED["three_frames_in"])
    before = joined(made.forecaster("float32").forecast(made.inputs, xr.Dataset(), 1))

    for frame in range(3):
        changed = made.inputs.copy(deep=True)
        changed["2m_temperature"][frame] += 1
        after = joined(made.forecaster("float32").forecast(changed, xr.Dataset(), 1))
        assert not np.array_equal(before["temperature"], after["temperature"])


def test_a_single_column_of_longitudes_more_or_less_changes_nothing_hard_wired():
    for rows, columns in ((5, 9), (8, 12), (13, 30)):
        task = TASKS_TRIED["one_frame_in"]
        made = made_up(Architecture(mesh_size=1, latent_size=8, gnn_msg_steps=1), task, rows, columns)
        frames = joined(made.forecaster("float32").forecast(made.inputs, xr.Dataset(), 1))
        assert frames["temperature"].shape == (1, 2, rows, columns)


def test_the_number_of_steps_does_not_change_the_first_ones():
    made = made_up(Architecture(mesh_size=1, latent_size=8, gnn_msg_steps=1), TASKS_TRIED["one_frame_in"])
    forecaster = made.forecaster("float32", 3)

    short, long = (joined(forecaster.forecast(made.inputs, xr.Dataset(), n))["temperature"] for n in (3, 9))

    np.testing.assert_array_equal(short, long[:3])


def test_an_input_that_changes_but_is_neither_target_nor_forcing_is_refused():
    made = made_up(Architecture(mesh_size=1, latent_size=8, gnn_msg_steps=1), TASKS_TRIED["one_frame_in"])
    stray = made.inputs.assign(land_sea_mask=made.inputs["land_sea_mask"].expand_dims(time=made.inputs["time"]))

    with pytest.raises(TaskError, match=r"land_sea_mask changes in time.*neither"):
        next(made.forecaster("float32").forecast(stray, xr.Dataset(), 1))


def test_weights_of_another_task_are_refused_by_their_first_parameter():
    made = made_up(Architecture(mesh_size=1, latent_size=8, gnn_msg_steps=1), TASKS_TRIED["one_frame_in"])
    made.checkpoint = replace(made.checkpoint, parameters=random_parameters(made.checkpoint.architecture, 99, 2, 0))

    # One frame of two levels and three forcings, a static field, three forcings ahead, three structural features.
    with pytest.raises(
        CheckpointError, match=r"grid_nodes_mlp/~/linear_0:w must have shape \(12, 8\).* has \(102, 8\)"
    ):
        made.forecaster("float32")


@pytest.mark.parametrize(("steps", "most", "expected"), [(40, 8, 8), (41, 8, 1), (6, 4, 3), (2, 8, 2), (1, 1, 1)])
def test_calls_have_the_most_steps_that_divide_the_forecast(steps, most, expected):
    assert steps_in_call(steps, most) == expected


def test_forecasts_computed_together_are_those_computed_alone(reference):
    forecaster = reference.forecaster("float32", 2)
    later = reference.inputs.assign_coords(time=reference.inputs["time"] + np.timedelta64(150, "D"))
    warmer = later.assign({"2m_temperature": later["2m_temperature"] + 1}).drop_vars("toa_incident_solar_radiation")
    starts = [(reference.inputs, reference.forcings), (warmer, xr.Dataset())]

    alone = [joined(forecaster.forecast(*start, reference.steps)) for start in starts]
    calls = list(forecaster.forecast_many(starts, reference.steps))

    for k, frames in enumerate(alone):
        together = joined(call[k] for call in calls)
        for name, values in frames.items():
            scale = reference.statistics["diffs_stddev"][name].values.min()
            np.testing.assert_allclose(together[name], values, rtol=0, atol=2e-4 * scale)
