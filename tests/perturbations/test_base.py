import hashlib
import math
import os
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from scipy.stats import chi2

from graphcast_batch.errors import ConfigError, InputError
from graphcast_batch.grid import cell_area, regular_grid
from graphcast_batch.inputs.quality.checks import find_faults
from graphcast_batch.inputs.sources.planet_archive import SyntheticArchive
from graphcast_batch.inputs.sources.synthetic import SyntheticPlanet
from graphcast_batch.inputs.statistics import Statistics, read_statistics
from graphcast_batch.perturbations.base import perturbation
from graphcast_batch.plan import Case
from graphcast_batch.spec import TASKS
from tests.conftest import ROOT
from tests.perturbations.states import (
    BY_LEVEL,
    GRID,
    INIT_TIME,
    ON_LEVELS,
    RAIN,
    TASK,
    added,
    chosen,
    frames,
    perturb,
    statistics,
)

KINDS = pytest.mark.parametrize("kind", ["gaussian", "spherical"])
LATER = INIT_TIME + np.timedelta64(6, "h")
DIGEST = """
import hashlib
from tests.perturbations.states import INIT_TIME, frames, perturb
for kind in ("gaussian", "spherical"):
    made = perturb(kind)(frames(), 3, INIT_TIME)
    print(hashlib.sha256(b"".join(made[name].values.tobytes() for name in sorted(made.data_vars))).hexdigest())
"""


def digest(state):
    content = b"".join(state[name].values.tobytes() for name in sorted(state.data_vars))
    return hashlib.sha256(content).hexdigest()


@KINDS
def test_any_state_is_made_again_alone_to_the_bit(kind):
    given, make = frames(), perturb(kind)
    states = [make(given, number, INIT_TIME) for number in range(3)]

    alone = pickle.loads(pickle.dumps(perturb(kind, members=100)))(given, 2, INIT_TIME.astype("datetime64[h]"))

    xr.testing.assert_identical(alone, states[2])


def test_another_process_without_threads_and_newer_instructions_makes_the_same_states():
    usable = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    environment = {"NPY_DISABLE_CPU_FEATURES": " ".join(usable), "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

    done = subprocess.run(
        [sys.executable, "-c", DIGEST], env=os.environ | environment, cwd=ROOT, capture_output=True, text=True
    )

    assert done.stdout.split() == [digest(perturb(kind)(frames(), 3, INIT_TIME)) for kind in ("gaussian", "spherical")]


@KINDS
def test_a_field_depends_neither_on_other_variables_nor_on_other_levels(kind):
    given = frames()
    everything = perturb(kind)(given, 1, INIT_TIME)

    some = perturb(kind, amplitude={"temperature": 0.5}, levels=[850, 500])(given, 1, INIT_TIME)

    xr.testing.assert_identical(
        some["temperature"].sel(level=[500, 850]), everything["temperature"].sel(level=[500, 850])
    )
    xr.testing.assert_identical(some["temperature"].sel(level=200), given["temperature"].sel(level=200))
    xr.testing.assert_identical(some.drop_vars("temperature"), given.drop_vars("temperature"))


@KINDS
def test_numbers_times_seeds_variables_and_levels_have_fields_of_their_own(kind):
    given = frames()
    first = added(perturb(kind)(given, 0, INIT_TIME), given)
    others = [
        added(perturb(kind)(given, 1, INIT_TIME), given),
        added(perturb(kind)(given, 0, LATER), given),
        added(perturb(kind)(given, 0, np.datetime64("1959-12-31T18")), given),
        added(perturb(kind, seed=1)(given, 0, INIT_TIME), given),
    ]

    fields = [each["2m_temperature"].isel(time=0).values.ravel() for each in (first, *others)]
    fields += [first["temperature"].isel(time=0).sel(level=level).values.ravel() for level in (200, 850)]
    fields += [first["u_component_of_wind"].isel(time=0).sel(level=200).values.ravel()]
    correlation = np.corrcoef(fields) - np.eye(len(fields))
    assert np.abs(correlation).max() < 0.7  # two levels of the smooth fields have 0.24


@KINDS
def test_the_standard_deviation_is_the_amplitude_times_that_of_a_change(kind):
    amplitude = {"temperature": 0.1, "2m_temperature": 0.8}
    given, make = frames()[["2m_temperature", "temperature"]], perturb(kind, amplitude=amplitude)
    area = cell_area(GRID.latitude)[:, np.newaxis]

    states = [added(make(given, number, INIT_TIME), given).isel(time=1) for number in range(100)]

    for name, scale in (("2m_temperature", 0.8 * 2.0), ("temperature", 0.1 * 1.5 * BY_LEVEL)):
        fields = np.asarray([state[name].values for state in states])
        stddev = np.sqrt((fields**2 * area).mean(axis=(0, -2, -1)))
        np.testing.assert_allclose(stddev, scale, rtol=0.08)
        assert np.all(np.abs((fields * area).mean(axis=(0, -2, -1))) < 0.15 * scale)


def test_white_noise_is_normal_and_independent_at_every_point():
    given = frames()
    noise = added(perturb("gaussian", amplitude={"temperature": 1})(given, 0, INIT_TIME), given)["temperature"]
    unit = noise.isel(time=0, latitude=slice(1, -1)) / xr.DataArray(1.5 * BY_LEVEL, dims="level")

    squares, count = (unit**2).sum(["latitude", "longitude"]).values, unit[0].size
    assert np.all((chi2.ppf(1e-6, count) < squares) & (squares < chi2.isf(1e-6, count)))
    assert abs(unit.mean()) < 5 / math.sqrt(unit.size)
    for dim in ("level", "latitude", "longitude"):
        assert abs((unit * unit.roll({dim: 1})).mean()) < 5 / math.sqrt(unit.size)
    poles = noise.isel(latitude=[0, -1])
    np.testing.assert_array_equal(poles, poles.isel(longitude=[0] * 36).values)


@KINDS
def test_a_number_perturbs_every_variable_that_is_fed_back_but_precipitation(kind):
    given = frames()
    state = perturb(kind, amplitude=0.25)(given, 0, INIT_TIME)

    named = dict.fromkeys(["2m_temperature", *ON_LEVELS], 0.25)
    xr.testing.assert_identical(state, perturb(kind, amplitude=named)(given, 0, INIT_TIME))
    assert all((state[name] != given[name]).any() for name in named)
    assert state[RAIN].identical(given[RAIN])


@KINDS
def test_all_frames_have_the_same_perturbation_and_the_given_ones_stay(kind):
    given = frames()
    before = given.copy(deep=True)

    state = perturb(kind)(given, 0, INIT_TIME)

    xr.testing.assert_identical(given, before)
    found = added(state, given)
    for name in ("2m_temperature", "temperature", "u_component_of_wind"):
        assert state[name].dtype == np.float32
        rounding = np.spacing(np.abs(state[name]).max().values)
        np.testing.assert_allclose(found[name][0], found[name][1], atol=rounding)
        assert np.abs(found[name]).max() > 0.5
    for name in (RAIN, "land_sea_mask"):
        assert np.shares_memory(state[name].values, given[name].values)


@KINDS
def test_centred_pairs_have_the_state_without_a_perturbation_as_their_mean(kind):
    given, make = frames(), perturb(kind, centred=True)
    plus, minus, other = (make(given, number, INIT_TIME).astype(np.float64) for number in (0, 1, 2))

    for name in ("2m_temperature", "temperature", "u_component_of_wind"):
        rounding = np.spacing(np.float32(np.abs(plus[name]).max()))
        np.testing.assert_allclose(plus[name] + minus[name], 2 * given[name].astype(np.float64), atol=rounding)
        assert np.abs(other[name] - plus[name]).max() > 0.5
        assert np.abs(other[name] - minus[name]).max() > 0.5
    xr.testing.assert_identical(perturb(kind)(given, 1, INIT_TIME), make(given, 2, INIT_TIME))


@KINDS
def test_humidity_and_precipitation_stay_at_or_above_0(kind):
    given = frames()

    state = perturb(kind, amplitude={"specific_humidity": 1, RAIN: 1})(given, 0, INIT_TIME)

    for name in ("specific_humidity", RAIN):
        assert state[name].min() == 0
        assert (state[name] > given[name]).any()
        assert (state[name] == 0).mean() > 0.2


@KINDS
def test_perturbed_weather_is_still_weather_to_the_checks_of_inputs(kind):
    task = TASKS["GraphCast_small"]
    source = SyntheticArchive(SyntheticPlanet(), 10.0, task.pressure_levels)
    inputs = source.read(Case(INIT_TIME, 1, task.step_hours), task)
    make = perturbation(chosen(kind, amplitude=0.5), read_statistics(ROOT / "stats" / "synthetic"), task, source.grid)

    state = make(inputs.frames, 0, INIT_TIME)

    assert find_faults(replace(inputs, frames=state), task, source.grid, 0) == []
    changed = [name for name in state.data_vars if not state[name].identical(inputs.frames[name])]
    assert {*changed} == {*task.target_variables} - {RAIN}


def test_missing_values_stay_missing():
    given = frames()
    given["2m_temperature"][:, 3, 4] = np.nan

    state = perturb("gaussian")(given, 0, INIT_TIME)

    assert np.array_equal(np.isnan(state["2m_temperature"]), np.isnan(given["2m_temperature"]))


def test_values_that_a_perturbation_moves_out_of_the_atmosphere_are_refused_with_their_place():
    expected = (
        r"the perturbed state number 3 of 2020-01-01T06:00 cannot start a forecast: temperature must stay within 170 "
        r"and 340 K at 850 hPa, but \d+ of 1368 perturbed values lie beyond these limits, at -?\d.* to \d.*, the first "
        r"at time 2020-01-01T00:00, latitude -?\d+, longitude \d+.*; lower ensemble.perturbations.amplitude"
    )
    with pytest.raises(InputError, match=expected):
        perturb("gaussian", amplitude={"temperature": 20}, levels=[850])(frames(), 3, INIT_TIME)


def test_inputs_that_are_no_weather_are_perturbed_as_they_are():
    given = frames() * 0  # 0 K is beyond the limits before anything is added

    assert (perturb("gaussian")(given, 0, INIT_TIME)["2m_temperature"] != 0).all()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("toa_incident_solar_radiation", "is a forcing"),
        ("land_sea_mask", "never changes"),
        ("vertical_velocity", "it predicts but does not take as an input"),
        ("geopotential", "its task does not have"),
    ],
)
def test_variables_that_the_model_does_not_feed_back_are_refused(name, reason):
    with pytest.raises(ConfigError, match=rf"amplitude must name variables .* names {name}, which {reason}; name some"):
        perturb(amplitude={"temperature": 1, name: 1})


def test_levels_that_the_model_lacks_or_that_nothing_is_perturbed_at_are_refused():
    with pytest.raises(ConfigError, match=r"must be levels of the model, \[200, 500, 850\] hPa, but has \[700\]"):
        perturb(levels=[500, 700])
    with pytest.raises(ConfigError, match="levels must be left out where no variable on levels is perturbed"):
        perturb(levels=[500], amplitude={"2m_temperature": 1})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda diffs: diffs.drop_vars("temperature"), "they lack it"),
        (lambda diffs: diffs.sel(level=[200, 500]), r"they lack its levels \[850\] hPa"),
        (lambda diffs: diffs.assign(temperature=0 * diffs["temperature"]), r"they have \[0.0, 0.0, 0.0\]"),
        (lambda diffs: diffs.assign(temperature=np.nan * diffs["temperature"]), r"they have \[nan"),
    ],
)
def test_statistics_that_cannot_scale_a_perturbation_are_refused(change, reason):
    wrong = Statistics(mean=xr.Dataset(), stddev=xr.Dataset(), diffs_stddev=change(statistics().diffs_stddev))

    with pytest.raises(ConfigError, match=f"perturbing temperature needs .* diffs_stddev, but {reason}.*; correct"):
        perturbation(chosen(amplitude={"temperature": 1}), wrong, TASK, GRID)


def test_a_model_that_feeds_back_only_precipitation_needs_it_named():
    task = TASK.model_copy(update={"target_variables": (RAIN,)})
    with pytest.raises(ConfigError, match="amplitude must name the variables to perturb"):
        perturbation(chosen(), statistics(), task, GRID)

    assert perturbation(chosen(amplitude={RAIN: 0.1}), statistics(), task, GRID)


def test_a_length_that_the_grid_does_not_resolve_is_refused():
    with pytest.raises(ConfigError, match="length_km must be at least 2224 on the grid 19 x 36"):
        perturb(length_km=500.0)
    assert perturb(length_km=500.0, grid=regular_grid(2))
