"""CF's standard names tell variables that no table knows, where they leave no doubt."""

import numpy as np
import pytest
import xarray as xr

from graphcast_batch.inputs.layouts.dialects import translation

COORDS = {
    "time": np.array(["2020-01-01", "2020-01-02"], "datetime64[ns]"),
    "plev": [50000.0, 85000.0],
    "lat": [-45.0, 45.0],
    "lon": [0.0, 180.0],
}


def field(standard, units, *dims, **attributes):
    dims = dims or ("time", "plev", "lat", "lon")
    return dims, np.zeros([2] * len(dims)), {"standard_name": standard, "units": units, **attributes}


def recognized(height=None, **fields):
    coords = {name: (name, values, {"units": "Pa"} if name == "plev" else {}) for name, values in COORDS.items()}
    if height is not None:
        coords["height"] = ((), height, {"units": "m"})
    return dict(translation(xr.Dataset(fields, coords), "here").recognized)


SINGLE = ("time", "lat", "lon")


def test_cmip_is_understood():
    found = recognized(
        ta=field("air_temperature", "K"),
        zg=field("geopotential_height", "m"),
        ua=field("eastward_wind", "m s-1"),
        va=field("northward_wind", "m s-1"),
        wap=field("lagrangian_tendency_of_air_pressure", "Pa s-1"),
        hus=field("specific_humidity", "1"),
        psl=field("air_pressure_at_mean_sea_level", "Pa", *SINGLE),
        sftlf=field("land_area_fraction", "%", "lat", "lon"),
    )
    assert found == {
        "ta": "temperature",
        "zg": "geopotential",
        "ua": "u_component_of_wind",
        "va": "v_component_of_wind",
        "wap": "vertical_velocity",
        "hus": "specific_humidity",
        "psl": "mean_sea_level_pressure",
        "sftlf": "land_sea_mask",
    }


def test_heights_above_the_ground_tell_what_is_measured_there():
    rest = {"ta": field("air_temperature", "K")}
    tas, uas = field("air_temperature", "K", *SINGLE), field("eastward_wind", "m s-1", *SINGLE)
    assert recognized(2.0, **rest, tas=tas)["tas"] == "2m_temperature"
    assert recognized(10.0, **rest, uas=uas)["uas"] == "10m_u_component_of_wind"
    for height in (None, 10.0, 100.0):
        assert "tas" not in recognized(height, **rest, tas=tas)


@pytest.mark.parametrize(
    "other",
    [
        {"ta_mean": field("air_temperature", "K", cell_methods="time: mean")},
        {"ts": field("air_temperature", "", "time", "plev", "lat", "lon")},
        {"pr": field("precipitation_amount", "kg m-2", *SINGLE)},
        {"ta_floor": field("air_temperature", "K", "time", "floor", "lat", "lon")},
    ],
)
def test_what_leaves_a_doubt_is_left_alone(other):
    psl = field("air_pressure_at_mean_sea_level", "Pa", *SINGLE)
    assert recognized(psl=psl, **other) == {"psl": "mean_sea_level_pressure"}


def test_of_two_that_say_the_same_none_is_taken_and_a_name_counts_more():
    one, psl = field("air_temperature", "K"), field("air_pressure_at_mean_sea_level", "Pa", *SINGLE)
    assert "temperature" not in recognized(a=one, b=one, psl=psl).values()
    assert "temperature" not in recognized(a=one, temperature=one, psl=psl).values()
