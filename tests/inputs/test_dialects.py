"""Layouts are recognized by what is in them, and contradictions are told."""

import numpy as np
import pytest
import xarray as xr

from graphcast_batch.errors import InputError
from graphcast_batch.inputs.layouts.dialects import translation

PLACE = {"latitude": [-45.0, 45.0], "longitude": [0.0, 180.0]}
ALOFT = ("time", "level", "latitude", "longitude")


def dataset(dims=ALOFT, **variables):
    sizes = [2] * len(dims)
    fields = {name: (dims, np.zeros(sizes, np.float32), attrs) for name, attrs in variables.items()}
    coords = {dim: PLACE.get(dim, [0, 1]) for dim in dims}
    return xr.Dataset(fields, coords)


def test_a_geopotential_without_levels_is_that_of_the_surface():
    single = dataset(("time", "latitude", "longitude"), z={})
    assert translation(single, "here").apply(single).data_vars.keys() == {"geopotential_at_surface"}
    aloft = dataset(("valid_time", "pressure_level", "latitude", "longitude"), z={})
    assert translation(aloft, "here").apply(aloft).data_vars.keys() == {"geopotential"}


def test_an_own_layout_is_told_in_names():
    own = dataset(temp={})
    with pytest.raises(
        InputError,
        match=r"here must have variables of a known layout \(grib, cds.* such as inputs\.names \{temp: temperature\}",
    ):
        translation(own, "here")
    found = translation(own, "here", names={"temp": "temperature"})
    assert found.apply(own).data_vars.keys() == {"temperature"}


def test_a_name_that_is_nearly_known_is_pointed_at():
    with pytest.raises(InputError, match=r"but has temperatur; .* inputs\.names \{temperatur: temperature\}"):
        translation(dataset(temperatur={}), "here")


@pytest.mark.parametrize(
    ("names", "taken"), [(("msl", "prmsl", "mslet"), "msl"), (("mslet", "prmsl"), "prmsl"), (("mslet",), "mslet")]
)
def test_of_several_reductions_of_pressure_to_sea_level_one_is_taken(names, taken):
    surface = dataset(("time", "latitude", "longitude"), **{name: {"units": "Pa"} for name in names})
    assert translation(surface, "here").names == {taken: "mean_sea_level_pressure"}


def test_geopotential_is_taken_before_height_and_both_are_understood():
    both = dataset(z={"units": "m2 s-2"}, gh={"units": "gpm"})
    assert translation(both, "here").names == {"z": "geopotential"}
    found = translation(dataset(gh={"units": "gpm"}), "here")
    assert (found.names, found.conversions["geopotential"].factor) == ({"gh": "geopotential"}, 9.80665)


def test_a_geopotential_on_one_level_or_along_a_dimension_that_is_not_known_is_not_that_of_the_surface():
    one = dataset(("time", "latitude", "longitude"), z={}).assign_coords(isobaricInhPa=500)
    assert translation(one, "here").names["z"] == "geopotential"
    assert translation(dataset(("time", "floor", "latitude", "longitude"), z={}), "here").names["z"] == "geopotential"


def test_units_of_precipitation_since_some_time_are_heeded_under_its_name_or_that_of_the_sum():
    flux = dataset(("time", "latitude", "longitude"), tp={"units": "kg m-2"})
    assert translation(flux, "here").conversions["total_precipitation"].factor == 1e-3
    for name in ("total_precipitation", "total_precipitation_6hr"):
        silent = dataset(("time", "latitude", "longitude"), tp={})
        assert translation(silent, "here", units={name: "mm"}).conversions["total_precipitation"].factor == 1e-3


def test_a_dialect_may_be_forced_on_a_layout_that_looks_like_another():
    both = dataset(temperature={}, t={})
    assert translation(both.drop_vars("t"), "here").dialect == "weatherbench2"
    with pytest.raises(InputError, match="one variable of here must be temperature, but temperature and t both are"):
        translation(both, "here", "cds-legacy")
    assert translation(both, "here", "weatherbench2").apply(both).data_vars.keys() == {"temperature", "t"}


def test_two_dimensions_are_never_one():
    members = dataset(("number", *ALOFT), temperature={})
    with pytest.raises(InputError, match="one dimension of here must be level, but number and level both are"):
        translation(members, "here", names={"number": "level"})


def test_units_that_the_data_state_are_converted_unless_the_config_knows_better():
    stated = dataset(geopotential_height={"units": "gpm"}, temperature={"units": "K"})
    found = translation(stated, "here")
    assert found.units == {"geopotential": "gpm"}
    assert found.conversions["geopotential"].factor == 9.80665
    wrong = dataset(temperature={"units": "K"})
    assert translation(wrong, "here", units={"temperature": "degC"}).conversions["temperature"].offset == 273.15


def test_heights_without_a_unit_are_heights():
    assert translation(dataset(gh={}), "here").units == {"geopotential": "gpm"}


def test_a_members_number_is_dropped_but_several_members_are_not():
    member = dataset(t={}).expand_dims(number=[3])
    assert "number" not in translation(member, "here").apply(member).dims
    members = dataset(t={}).expand_dims(number=[0, 1])
    assert translation(members, "here").apply(members).sizes["number"] == 2
