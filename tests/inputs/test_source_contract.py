"""The promises of the port `Source` in pipeline/ports.py, tried on every kind of source that a run can open."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import xarray as xr

from graphcast_batch.config.inputs_section import ArchiveInputs, DatasetInputs, SyntheticInputs
from graphcast_batch.errors import InputError
from graphcast_batch.grid import Grid, regular_grid
from graphcast_batch.inputs.sources.configured import open_source
from graphcast_batch.pipeline.ports import Source
from graphcast_batch.plan import Case
from graphcast_batch.variables import DIMS

DEGREES = 30
FIRST = np.datetime64("2020-01-01T00", "h")
STEP = np.timedelta64(6, "h")


@dataclass
class Opened:
    """A source, with a Case that it can start and one at a time that it does not hold, if there is such a time."""

    source: Source
    case: Case
    absent: Case | None


def case_at(hours, source="", steps=3):
    return Case(FIRST + np.timedelta64(hours, "h"), steps, 6, source)


def archive(made, folder, **options):
    path = folder / "archive.nc"
    made(degrees=options.pop("degrees", DEGREES)).to_netcdf(path, engine="netcdf4")
    return Opened(
        open_source(ArchiveInputs(kind="archive", path=str(path), **options), (300, 850), DEGREES),
        case_at(6),
        case_at(2400),
    )


def in_zarr(made, as_dataset, folder):
    made().to_zarr(folder / "archive.zarr", zarr_format=2)
    inputs = ArchiveInputs(kind="archive", path=str(folder / "archive.zarr"))
    return Opened(open_source(inputs, (300, 850)), case_at(6), case_at(2400))


def in_months(made, as_dataset, folder):
    fields = made()
    fields.isel(time=slice(0, 2)).to_netcdf(folder / "a.nc", engine="netcdf4")
    fields.isel(time=slice(2, None)).to_netcdf(folder / "b.nc", engine="netcdf4")
    inputs = ArchiveInputs(kind="archive", path=str(folder))
    return Opened(open_source(inputs, (300, 850)), case_at(6), case_at(2400))


def in_dataset_files(per_file):
    def build(made, as_dataset, folder):
        path = folder / "frames.nc"
        as_dataset(made()).to_netcdf(path, engine="netcdf4")
        inputs = DatasetInputs(kind="datasets", path=str(folder / "*.nc"), per_file=per_file)
        return Opened(open_source(inputs, (300, 850)), case_at(6, str(path)), case_at(2400, str(path)))

    return build


def synthetic(made, as_dataset, folder):
    inputs = SyntheticInputs(kind="synthetic", resolution=DEGREES)
    return Opened(open_source(inputs, (300, 850)), case_at(6), None)


KINDS = {
    "archive in netCDF": lambda made, as_dataset, folder: archive(made, folder),
    "archive in zarr": in_zarr,
    "archive in several files": in_months,
    "archive that is regridded": lambda made, as_dataset, folder: archive(
        made, folder, degrees=DEGREES // 2, regrid="subsample"
    ),
    "dataset files, one Case each": in_dataset_files("first"),
    "dataset files, all Cases": in_dataset_files("all"),
    "synthetic planet": synthetic,
}


@pytest.fixture(params=KINDS)
def opened(request, made, as_dataset, tmp_path):
    return KINDS[request.param](made, as_dataset, tmp_path)


def test_its_grid_is_that_of_all_it_reads(opened, task):
    inputs = opened.source.read(opened.case, task)

    assert opened.source.grid == regular_grid(DEGREES)
    for fields in (inputs.frames, inputs.forcings, opened.source.truth(opened.case, ["temperature"])):
        assert Grid(fields["latitude"].values, fields["longitude"].values) == opened.source.grid


def test_it_reads_the_input_frames_of_the_task_and_no_others(opened, task):
    frames = opened.source.read(opened.case, task).frames

    assert {*task.input_variables} & opened.source.dims.keys() == {*map(str, frames.data_vars)}
    assert frames["time"].values.tolist() == np.array([FIRST, FIRST + STEP], "datetime64[ns]").tolist()
    assert frames["level"].values.tolist() == list(task.pressure_levels)
    for array in frames.data_vars.values():
        assert array.dtype == np.float32
        assert np.isfinite(array.values).all()


def test_variables_have_the_dimensions_that_it_states_in_one_order(opened, task):
    for name, array in opened.source.read(opened.case, task).frames.data_vars.items():
        assert array.dims == tuple(dim for dim in DIMS if dim in opened.source.dims[name])


def test_forcings_are_read_at_valid_times_of_the_case_alone(opened, task):
    forcings = opened.source.read(opened.case, task).forcings
    valid = opened.case.init_time + opened.case.lead_times

    assert {*map(str, forcings.data_vars)} == {*task.forcing_variables} & opened.source.dims.keys()
    assert np.isin(forcings["time"].values, valid.astype("datetime64[ns]")).all()


def test_a_case_is_read_alike_whatever_was_read_before(opened, task):
    first = opened.source.read(opened.case, task)
    opened.source.read(replace(opened.case, init_time=opened.case.init_time + STEP), task)
    opened.source.truth(opened.case, ["2m_temperature"])
    again = opened.source.read(opened.case, task)

    xr.testing.assert_identical(again.frames, first.frames)
    xr.testing.assert_identical(again.forcings, first.forcings)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda task: task.model_copy(update={"pressure_levels": (7, 850)}), "7"),
        (
            lambda task: task.model_copy(update={"input_variables": (*task.input_variables, "sea_ice_cover")}),
            "sea_ice_cover",
        ),
    ],
)
def test_what_it_lacks_is_refused_by_name(opened, task, change, named):
    with pytest.raises(InputError, match=rf"\b{named}\b"):
        opened.source.read(opened.case, change(task))


def test_a_time_that_it_lacks_is_refused_and_has_no_truth(opened, task):
    if opened.absent is None:
        assert opened.source.truth(case_at(2400), ["temperature"]) is not None
        return
    with pytest.raises(InputError, match="2020-04-10"):
        opened.source.read(opened.absent, task)
    assert opened.source.truth(opened.absent, ["temperature"]) is None


def test_truth_is_what_a_later_case_starts_from(opened, task):
    truth = opened.source.truth(opened.case, ["temperature", "2m_temperature"], task.pressure_levels)
    later = opened.source.read(replace(opened.case, init_time=opened.case.init_time + 2 * STEP), task).frames

    for name, array in truth.data_vars.items():
        found = array.sel(prediction_timedelta=2 * STEP)
        np.testing.assert_array_equal(found.values, later[name].isel(time=-1).values)


def test_truth_is_by_lead_time_with_the_initial_time_and_lacks_those_that_are_not_held(opened):
    case = replace(opened.case, steps=40)
    truth = opened.source.truth(case, ["2m_temperature"])
    leads = truth["prediction_timedelta"].values.astype("timedelta64[h]").astype(int).tolist()

    assert truth["2m_temperature"].dims == ("prediction_timedelta", "latitude", "longitude")
    assert truth["2m_temperature"].dtype == np.float32
    assert truth["time"].values == case.init_time.astype("datetime64[ns]")
    assert leads == (list(range(6, 246, 6)) if opened.absent is None else [6, 12, 18, 24])


def test_truth_has_the_levels_that_are_wanted_and_held(opened):
    some = opened.source.truth(opened.case, ["temperature"], [7, 850])
    every = opened.source.truth(opened.case, ["temperature"])

    assert some["level"].values.tolist() == [850]
    assert {300, 850} <= {*every["level"].values.tolist()}
    assert some["temperature"].dims == ("prediction_timedelta", "level", "latitude", "longitude")


def test_truth_leaves_out_variables_that_it_lacks(opened):
    truth = opened.source.truth(opened.case, ["2m_temperature", "sea_ice_cover"])

    assert [*truth.data_vars] == ["2m_temperature"]
    assert opened.source.truth(opened.case, ["sea_ice_cover"]) is None


def test_the_cost_of_a_case_covers_what_it_needs_unless_nothing_is_read(opened, task):
    cost = opened.source.cost(opened.case, task)

    if opened.absent is None:
        assert cost is None
        return
    assert cost.touched_bytes >= cost.wanted_bytes > 0
    assert cost.factor >= 1
    assert cost.worst in task.input_variables
