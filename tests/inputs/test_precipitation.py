"""Precipitation over 6 h is made of the windows that fields say, whichever files they are in; nothing is guessed."""

from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from graphcast_batch.errors import InputError
from graphcast_batch.grid import regular_grid
from graphcast_batch.inputs.layouts.windows import Windows
from graphcast_batch.inputs.sources.archive import Archive
from graphcast_batch.inputs.sources.volumes import Reading
from graphcast_batch.inputs.sources.window_sums import Table, ways_of
from graphcast_batch.plan import Case
from graphcast_batch.spec import Task

GRID = regular_grid(45)
SUMMED, TOTAL = "total_precipitation_6hr", "total_precipitation"
START = np.datetime64("2020-01-01T00", "ns")
HOUR = np.timedelta64(1, "h")
HOURS = 48
RAIN = np.random.default_rng(0).uniform(0, 0.01, (HOURS, *GRID.shape))
"""m in each hour from START on."""


def between(first, last):
    """Rain from one hour to another, m."""
    return RAIN[first:last].sum(axis=0)


def forecasts(leads, since, inits=(0, 6, 12), name=TOTAL):
    """By initial and lead time: since the start, or of each hour, that before the forecast too."""

    def field(init, lead):
        return between(init, init + lead) if since else between(max(init + lead - 1, 0), init + lead)

    values = [[field(init, lead) for lead in leads] for init in inits]
    return xr.Dataset(
        {
            name: (("time", "prediction_timedelta", "latitude", "longitude"), values),
            "2m_temperature": (("time", "prediction_timedelta", "latitude", "longitude"), np.ones(np.shape(values))),
        },
        {
            "time": [START + init * HOUR for init in inits],
            "prediction_timedelta": np.asarray(leads) * HOUR.astype("timedelta64[ns]"),
            "latitude": GRID.latitude,
            "longitude": GRID.longitude,
        },
    )


def archive(fields, path, precipitation=None, **reading):
    fields.to_netcdf(path, engine="netcdf4")
    return Archive(path, Reading(precipitation=precipitation, **reading), needed=[SUMMED])


def held(opened):
    """Hours from START at which there is precipitation, once all of it is right."""
    times = opened.times_of([SUMMED])
    hours = ((times - START) // HOUR).tolist()
    for hour, found in zip(hours, opened.fields([SUMMED], times, ())[SUMMED].values, strict=True):
        np.testing.assert_allclose(found, between(hour - 6, hour), rtol=1e-4, atol=1e-7)
    return hours


@pytest.mark.parametrize(
    ("leads", "hours"),
    [
        ((0, 6, 12), [6, 12, 18, 24]),
        ((6, 12), [6, 12, 18, 24]),
        ((0, 3, 9, 12), [9, 15, 21]),
        ((0, 12, 24), []),  # 12 h are not 6, and the half of them is not held
        ((9, 12), []),  # a start that is not held may be 0 or not
    ],
)
def test_sums_since_the_start_are_taken_where_both_ends_of_6_hours_are_held(tmp_path, leads, hours):
    assert held(archive(forecasts(leads, since=True), tmp_path / "a.nc")) == hours


def test_hourly_sums_of_forecasts_are_added_up(tmp_path):
    """The hour before a forecast is no part of it."""
    opened = archive(forecasts(range(13), since=False), tmp_path / "a.nc", "hourly")
    assert held(opened) == list(range(6, 25))
    how = "6 sums over 1 h added up (inputs.precipitation: hourly)"
    assert opened.changes == {"summed up": f"{SUMMED} of {TOTAL}: {how}"}


def test_what_a_read_costs_is_known_where_no_sum_can_be_made(tmp_path):
    opened = archive(forecasts((9, 12), since=True), tmp_path / "a.nc")
    names = ("2m_temperature", SUMMED)
    task = Task(input_variables=names, target_variables=names, forcing_variables=(), pressure_levels=(500,))
    assert opened.cost(Case(START + 9 * HOUR, 1, 6), task).touched_bytes > 0


def test_at_no_times_forecasts_hold_fields_of_no_time(tmp_path):
    opened = archive(forecasts((6, 12), since=True), tmp_path / "a.nc")
    names = ["2m_temperature", SUMMED]
    complete, none = (opened.fields(names, times, ()) for times in (opened.times[:1], opened.times[:0]))
    assert {name: field.shape for name, field in none.items()} == {
        name: (0, *field.shape[1:]) for name, field in complete.items()
    }


@pytest.mark.parametrize("dim", ["latitude", "longitude"])
def test_sums_along_one_row_or_column_are_refused(tmp_path, dim):
    fields = forecasts((6, 12), since=True)
    opened = archive(fields.assign({TOTAL: fields[TOTAL].isel({dim: 0}, drop=True)}), tmp_path / "a.nc")
    with pytest.raises(InputError, match=f"{TOTAL} of .* must have the dimensions time, latitude, longitude, but has"):
        held(opened)


@pytest.mark.parametrize("leads", [range(13), (6, 12)])
@pytest.mark.parametrize("precipitation", [None, "since_start"])
def test_hourly_sums_are_not_taken_for_sums_since_a_start(tmp_path, leads, precipitation):
    opened = archive(forecasts(leads, since=False), tmp_path / "a.nc", precipitation)
    with pytest.raises(InputError, match=r"must not fall with time, .* set inputs\.precipitation: hourly"):
        held(opened)


def test_sums_since_a_start_are_not_taken_for_hourly_ones(tmp_path):
    total = forecasts(range(1, 24), since=True, inits=[0]).isel(time=0, drop=True)
    times = [START + lead * HOUR for lead in range(1, 24)]
    fields = total.rename({TOTAL: "tp", "2m_temperature": "t2m", "prediction_timedelta": "time"}).assign_coords(
        time=times
    )
    with pytest.raises(InputError, match=r"as if it were summed since a start; set inputs\.precipitation: since_st"):
        held(archive(fields, tmp_path / "a.nc"))  # in short names: hourly, if it is of the CDS
    assert held(archive(fields, tmp_path / "b.nc", "since_start")) == list(range(7, 24))


def of_cfgrib(leads, since, inits):
    """As cfgrib writes ERA5: initial times and steps, of which valid times follow."""
    named = forecasts(leads, since, inits).rename({TOTAL: "tp", "prediction_timedelta": "step"})
    return named.assign_coords(valid_time=named["time"] + named["step"]).assign_attrs(GRIB_edition=1)


def test_what_cfgrib_wrote_must_be_said_and_is_heeded(tmp_path):
    fields = of_cfgrib(range(1, 13), False, (0, 12))
    with pytest.raises(InputError, match=r"the data do not state one; set inputs\.precipitation: hourly, or since"):
        held(archive(fields, tmp_path / "a.nc"))
    assert held(archive(fields, tmp_path / "b.nc", "hourly")) == list(range(6, 25))


def test_one_forecast_of_cfgrib_is_read_by_its_steps(tmp_path):
    fields = of_cfgrib((0, 6, 12), True, [0]).isel(time=0)
    assert held(archive(fields, tmp_path / "a.nc", "since_start")) == [6, 12]


def test_one_lead_time_of_several_forecasts_is_known_by_its_coordinate(tmp_path):
    one = forecasts((6, 12), since=True).isel(prediction_timedelta=0)
    valid = one["time"] + 6 * HOUR
    assert held(archive(one.assign_coords(valid_time=valid), tmp_path / "a.nc", "since_start")) == [6, 12, 18]
    one["time"].attrs["standard_name"] = "forecast_reference_time"
    assert held(archive(one, tmp_path / "b.nc", "since_start")) == [6, 12, 18]
    moved = one.assign_coords(time=valid, valid_time=valid)
    assert held(archive(moved, tmp_path / "c.nc", "since_start")) == [6, 12, 18]


def test_whether_times_of_one_lead_time_are_starts_must_be_known(tmp_path):
    one = forecasts((6, 12), since=True, name=SUMMED).isel(prediction_timedelta=0)
    with pytest.raises(InputError, match=r"must be known .*make prediction_timedelta a dimension .* inputs\.names"):
        archive(one, tmp_path / "a.nc")
    other = {"prediction_timedelta": "other_prediction_timedelta"}
    assert held(archive(one.assign_coords(time=one["time"] + 6 * HOUR), tmp_path / "b.nc", names=other)) == [6, 12, 18]
    assert held(archive(one.expand_dims("prediction_timedelta", 1), tmp_path / "c.nc")) == [6, 12, 18]


def test_a_file_a_step_as_cfgrib_writes_them_is_one_forecast(tmp_path):
    fields = of_cfgrib((6, 12), True, [0, 6])
    fields["lsm"] = fields["2m_temperature"][0, 0] * GRID.latitude[:, np.newaxis]
    for start in (0, 1):
        for step in (0, 1):
            fields.isel(time=start, step=step).to_netcdf(tmp_path / f"{start}-{step}.nc", engine="netcdf4")
    opened = Archive(tmp_path, Reading(precipitation="since_start"))
    assert held(opened) == [6, 12, 18]
    assert opened.dims["land_sea_mask"] == ("latitude", "longitude")


@pytest.mark.parametrize("said", ["attribute", TOTAL, SUMMED])
def test_units_of_sums_are_those_that_are_said(tmp_path, said):
    fields = forecasts((0, 6), since=True) * 1000
    if said == "attribute":
        fields[TOTAL].attrs["units"] = "mm"
    assert held(archive(fields, tmp_path / "a.nc", units={} if said == "attribute" else {said: "mm"})) == [6, 12, 18]


def test_what_is_6_hours_by_its_name_and_what_is_made_are_one(tmp_path):
    paths = [tmp_path / "made.nc", tmp_path / "named.nc"]
    forecasts((0, 6), since=True, inits=[0, 6]).to_netcdf(paths[0])
    named = xr.Dataset(
        {SUMMED: (("time", "latitude", "longitude"), [between(12, 18)])},
        {"time": [START + 18 * HOUR], "latitude": GRID.latitude, "longitude": GRID.longitude},
    )
    named.to_netcdf(paths[1])
    assert held(Archive([str(path) for path in paths], needed=[SUMMED])) == [6, 12, 18]


def test_the_remedy_tells_what_is_held(tmp_path):
    opened = archive(forecasts((0, 12, 24), since=True), tmp_path / "a.nc")
    names = (SUMMED, "2m_temperature")
    task = Task(input_variables=names, target_variables=names, forcing_variables=(), pressure_levels=(500,))
    (found,) = opened.findings(Case(np.datetime64("2020-01-01T12", "h"), 1, 6), task)
    assert f"{TOTAL} is held as sums over 0, 12, 24 h" in found.remedy
    assert opened.changes == {"summed up": f"{SUMMED} of {TOTAL}: at no time"}


def hour_of(moment):
    return int((moment - START.astype(np.int64)) // 3600e9)


def windows(rows, kind="messages"):
    start, end, init = (START + np.asarray(column) * HOUR for column in zip(*rows, strict=True))
    return Windows(TOTAL, kind, "", start, end, init, {})


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 12), st.integers(0, 18)).map(lambda r: (6 * r[0], r[1], r[2])),
        min_size=1,
        max_size=40,
    ),
    cuts=st.lists(st.integers(0, 40), max_size=3),
)
@settings(max_examples=100, deadline=None)
def test_every_way_covers_the_6_hours_once_whichever_files_hold_the_sums(rows, cuts):
    """``rows``: initial time, start and length; forecasts that differ are never subtracted."""
    complete = [(init + start, init + start + length, init) for init, start, length in rows]
    edges = [0, *sorted(min(cut, len(complete)) for cut in cuts), len(complete)]
    files = [windows(complete[a:b]) for a, b in pairwise(edges) if a < b]
    table, uncut = Table.of(files), Table.of([windows(complete)])
    for way, same in zip(ways_of(table), ways_of(uncut), strict=True):
        assert way.title == same.title
        np.testing.assert_array_equal(way.rows, same.rows)
        for terms in way.rows:
            covered = np.zeros(80)
            for sign, row in zip(way.signs, terms, strict=True):
                covered[hour_of(table.start[row]) : hour_of(table.end[row])] += sign
            end = hour_of(table.end[terms[0]])
            np.testing.assert_array_equal(np.flatnonzero(covered), np.arange(end - 6, end))
            assert covered.max() == 1
            if way.signs[-1] < 0:
                assert table.series[terms[0]] == table.series[terms[1]]
