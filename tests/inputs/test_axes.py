"""Coordinates are found whatever they are called, unless they may be mistaken."""

import numpy as np
import pytest
import xarray as xr

from graphcast_batch.inputs.layouts.axes import LEAD, axes

DATES = np.array(["2020-01-01", "2020-01-02"], "datetime64[ns]")
VALUES = {"time": DATES, "level": [500, 850], "latitude": [-45.0, 45.0], "longitude": [0.0, 180.0]}


def dataset(names=None, attributes=None, values=None):
    """One field on levels, of whose coordinates some are called otherwise."""
    names, values = names or {}, VALUES | (values or {})
    called = {ours: names.get(ours, ours) for ours in VALUES}
    coords = {called[ours]: (called[ours], values[ours], (attributes or {}).get(ours, {})) for ours in VALUES}
    return xr.Dataset({"t": (tuple(called.values()), np.zeros([2] * 4))}, coords)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        *(
            ("level", name)
            for name in ("plev", "isobaricInhPa", "pressure_level", "pressure", "levels", "PLEV", "plevel")
        ),
        *(("time", name) for name in ("valid_time", "date", "datetime", "Time", "when")),
        *(("latitude", name) for name in ("lat", "Latitude", "LAT")),
        *(("longitude", name) for name in ("lon", "Longitude", "long")),
    ],
)
def test_a_usual_name_is_known(ours, theirs):
    assert axes(dataset({ours: theirs}), {}) == {theirs: ours}


@pytest.mark.parametrize(
    ("ours", "attributes"),
    [
        ("level", {"units": "millibar"}),
        ("level", {"units": "Pa"}),
        ("level", {"standard_name": "air_pressure"}),
        ("latitude", {"units": "degrees_north"}),
        ("longitude", {"units": "degreeE"}),
        ("longitude", {"standard_name": "longitude"}),
    ],
)
def test_attributes_tell_what_the_name_does_not(ours, attributes):
    assert axes(dataset({ours: "x"}, {ours: attributes}), {}) == {"x": ours}
    assert axes(dataset({ours: "x"}), {}) == {}


@pytest.mark.parametrize("units", ["1", "level", "m", "K", ""])
def test_levels_that_are_no_pressures_are_not_taken_for_such(units):
    assert axes(dataset({"level": "lev"}, {"level": {"units": units}}), {}) == {}


def test_dates_that_forecasts_start_from_are_not_those_that_fields_are_valid_at():
    assert axes(dataset({"time": "forecast_reference_time"}), {}) == {}
    starts = dataset({"time": "t0"}, {"time": {"standard_name": "forecast_reference_time"}})
    assert axes(starts, {}) == {}


def test_what_the_config_says_is_left_to_it():
    assert axes(dataset({"level": "plev", "time": "date"}), {"plev": "floor", "date": "time"}) == {}


def test_of_cfgrib_the_time_is_that_which_fields_are_valid_at():
    analyses = dataset().assign_coords(step=0, valid_time=("time", DATES))
    assert axes(analyses, {}) == {"valid_time": "time"}


@pytest.mark.parametrize("name", ["step", "lead_time", "forecast_period"])
def test_of_forecasts_by_lead_time_it_is_that_which_they_start_from(name):
    several = (
        dataset().expand_dims({name: [6, 12]}).assign_coords(valid_time=(("time", name), np.stack([DATES, DATES])))
    )
    assert axes(several, {}) == {name: LEAD}
    one = several.isel(time=0)
    assert axes(one, {}) == {name: LEAD}
    assert axes(dataset({"time": "init_time"}).expand_dims({name: [6]}), {}) == {name: LEAD, "init_time": "time"}
