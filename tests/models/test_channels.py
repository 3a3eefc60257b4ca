import numpy as np
import pytest
import xarray as xr

from graphcast_batch.errors import TaskError
from graphcast_batch.grid import Grid
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.state_arrays import forcing_blocks, initial_arrays, named_fields
from graphcast_batch.spec import Task

TASK = Task(
    input_variables=("b", "a", "z", "year_progress_sin"),
    target_variables=("b", "a", "c"),
    forcing_variables=("year_progress_sin", "f"),
    pressure_levels=(500, 850),
)
DIMS = {"a": ("time", "level"), "b": ("time",), "c": ("time",), "f": ("time", "level"), "z": ()}


def published_order():
    """The published vector of TASK, written out by hand: inputs by name, time slowest, then forcings."""
    return [
        *("a0@500", "a0@850", "a1@500", "a1@850", "b0", "b1", "y0", "y1", "z"),
        *("f2@500", "f2@850", "y2"),
    ]


def test_rows_lead_from_our_order_to_the_published_one():
    channels = Channels.of(TASK, DIMS)

    ours = [
        *("a0@500", "a0@850", "b0", "a1@500", "a1@850", "b1"),
        *("y0", "y1", "z", "f2@500", "f2@850", "y2"),
    ]
    assert [published_order()[row] for row in channels.input_rows] == ours
    assert channels.inputs == 12


def test_columns_put_what_is_fed_back_first():
    task = TASK.model_copy(update={"target_variables": ("b", "a", "aa"), "input_variables": ("b", "a")})
    channels = Channels.of(task, DIMS | {"aa": ("time",)})

    assert channels.targets == ("a", "b", "aa")
    assert channels.output_columns.tolist() == [0, 1, 3, 2]  # published: a@500, a@850, aa, b


def test_names_sort_by_their_characters_not_by_case_or_locale():
    task = TASK.model_copy(
        update={"target_variables": ("a", "B", "10m", "_x"), "input_variables": ("a", "B", "10m", "_x")}
    )

    assert Channels.of(task, dict.fromkeys(("a", "B", "10m", "_x", "f"), ("time",))).carried == ("10m", "B", "_x", "a")


def test_a_target_that_nobody_knows_is_refused():
    with pytest.raises(TaskError, match="the variable c is neither in the inputs nor among those"):
        Channels.of(TASK, {name: dims for name, dims in DIMS.items() if name != "c"})


def test_a_variable_on_levels_needs_a_task_with_levels():
    with pytest.raises(TaskError, match="the task must name the pressure_levels of a, f, but names none"):
        Channels.of(TASK.model_copy(update={"pressure_levels": ()}), DIMS)


GRID = Grid(np.array([-90, 0, 90], np.float32), np.array([0, 90, 180, 270], np.float32))
TIMES = np.array(["2020-01-01T00", "2020-01-01T06"], "datetime64[ns]")


def fields():
    place = {"latitude": GRID.latitude, "longitude": GRID.longitude}
    rows = np.arange(2 * 2 * 12, dtype=np.float32).reshape(2, 2, 3, 4)
    dims = ("time", "level", "latitude", "longitude")
    return xr.Dataset(
        {"a": (dims, rows), "b": (("time", "longitude"), rows[:, 0, 0]), "z": (("latitude", "longitude"), rows[0, 0])},
        coords={"time": TIMES, "level": [500, 850], **place},
    )


def test_fields_become_points_with_latitude_slowest_and_missing_dimensions_spread():
    frames, forcings, static = initial_arrays(Channels.of(TASK, DIMS), fields(), GRID)

    assert frames.shape == (2, 12, 3)
    assert forcings.shape == (2, 12, 1)
    np.testing.assert_array_equal(frames[1, 5], [24 + 5, 24 + 12 + 5, 24 + 1])  # b has no latitude
    np.testing.assert_array_equal(static[:, 0], np.arange(12))


def test_order_of_levels_and_dimensions_in_the_inputs_does_not_matter():
    channels = Channels.of(TASK, DIMS)
    turned = fields().isel(level=[1, 0]).transpose("longitude", "level", "latitude", "time")

    for one, other in zip(
        initial_arrays(channels, fields(), GRID), initial_arrays(channels, turned, GRID), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_prescribed_forcings_are_taken_where_they_are_and_computed_elsewhere():
    task = TASK.model_copy(update={"forcing_variables": ("year_progress_sin",)})
    channels = Channels.of(task, DIMS)
    known = xr.Dataset(
        {"year_progress_sin": ("time", np.float32([7]))}, {"time": [np.datetime64("2020-01-01T12", "ns")]}
    )

    first, second = forcing_blocks(channels, known, TIMES[-1], steps=2, steps_per_block=1, grid=GRID)

    assert (first == 7).all()
    assert second.shape == (1, 12, 1)
    assert np.ptp(second) == 0
    assert 0 < second[0, 0, 0] < 0.05


def test_planes_become_named_fields_in_their_order():
    channels = Channels.of(TASK, DIMS)
    planes = np.arange(2 * 4 * 12).reshape(2, 4, 12)

    found = named_fields(channels, channels.targets, planes, GRID)

    assert {name: values.shape for name, values in found.items()} == {"a": (2, 2, 3, 4), "b": (2, 3, 4), "c": (2, 3, 4)}
    np.testing.assert_array_equal(found["c"][1].ravel(), planes[1, 3])


def test_a_weather_variable_that_goes_in_but_not_out_is_refused():
    task = TASK.model_copy(update={"input_variables": ("a", "b", "temperature")})
    with pytest.raises(TaskError, match=r"the input temperature changes in time.*but is neither"):
        Channels.of(task, DIMS)
