"""Moments of tiled and merged parts against plain numpy and whole numbers; blocks against what they must take in."""

import functools
import itertools
import math
import weakref

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from graphcast_batch.errors import StatisticsError
from graphcast_batch.inputs.sources.archive import Archive
from graphcast_batch.inputs.tally import ArchiveBlock, Moments, moments, tally_block

START = np.datetime64("2020-01-01T00", "ns")
HOUR = np.timedelta64(1, "h")
STEP = 6 * HOUR


def every(hours, count):
    return START + np.arange(count) * hours * HOUR


def of_values(frames):
    times = every(6, len(frames))
    return moments(dict(zip(times, frames, strict=True)), times, STEP, changing=False)[0]


@given(
    values=arrays(np.float32, (12, 3, 2), elements=st.floats(-1e6, 1e6, width=32)),
    cuts=st.sets(st.integers(1, 11)),
    backwards=st.booleans(),
)
def test_moments_do_not_depend_on_how_the_numbers_are_split(values, cuts, backwards):
    bounds = [0, *sorted(cuts), 12]
    parts = [of_values(values[a:b]) for a, b in itertools.pairwise(bounds)]
    complete = functools.reduce(Moments.merge, parts[::-1] if backwards else parts)
    exact = values.astype(np.float64)
    scale = np.abs(exact).max() + 1e-30
    assert complete.count == 24
    np.testing.assert_allclose(complete.mean, exact.mean((0, 2)), rtol=1e-12, atol=1e-12 * scale)
    np.testing.assert_allclose(complete.stddev, exact.std((0, 2)), rtol=1e-9, atol=1e-9 * scale)


@pytest.mark.parametrize("points", [1, 100, 2**13, 2**13 + 1, 50_000])
def test_moments_are_those_of_numpy_however_many_tiles_there_are(points):
    values = np.random.default_rng(points).gamma(0.1, 1e-3, (3, 10, points)).astype(np.float32)
    exact, times = values.astype(np.float64), every(6, 3)
    found = moments(dict(zip(times, values, strict=True)), times, STEP, changing=True)
    for part, expected in zip(found, (exact, np.diff(exact, axis=0)), strict=True):
        assert part.count == expected.shape[0] * points
        np.testing.assert_allclose(part.mean, expected.mean((0, 2)), rtol=1e-12, atol=1e-19)
        np.testing.assert_allclose(part.stddev, expected.std((0, 2)), rtol=1e-12)


def test_a_field_without_levels_has_moments_that_are_numbers():
    values = np.random.default_rng(0).normal(280, 10, (4, 100))
    found = of_values(values)
    assert found.mean.shape == found.stddev.shape == ()
    assert float(found.mean) == pytest.approx(values.mean(), rel=1e-14)
    assert float(found.stddev) == pytest.approx(values.std(), rel=1e-13)


def test_a_first_value_far_out_costs_no_digit_that_counts():
    # One of 8192 numbers is v and the others are 0: the mean is v/8192, the variance v**2 (1/8192 - 1/8192**2).
    values = np.zeros((1, 2**13), np.float32)
    values[0, 0] = outlier = np.float32(1.1)
    found = of_values(values)
    assert float(found.mean) == pytest.approx(float(outlier) * 2.0**-13, rel=1e-11)
    assert float(found.stddev) == pytest.approx(float(outlier) * math.sqrt(2.0**-13 - 2.0**-26), rel=1e-11)


def test_a_large_mean_does_not_drown_a_small_deviation():
    ramp = np.linspace(-0.1, 0.1, 500)[:, np.newaxis]
    values = (1e5 + ramp + np.random.default_rng(0).normal(0, 0.02, (500, 400))).astype(np.float32)
    merged = functools.reduce(Moments.merge, (of_values(part) for part in np.array_split(values, 50)))
    # Every float32 near 1e5 is a whole number of 1/128, so that Python's integers hold the sums without rounding.
    numbers = [int(number) for number in ((values.astype(np.float64) - 1e5) * 128).ravel()]
    count, total, squares = len(numbers), sum(numbers), sum(number * number for number in numbers)
    deviation = math.sqrt((count * squares - total * total) / count**2) / 128
    assert float(merged.stddev) == pytest.approx(deviation, rel=1e-12)
    assert float(merged.mean) == pytest.approx(1e5 + total / count / 128, rel=1e-15)


@pytest.mark.parametrize("value", [0.1, 1e-7, 101_325.3, -3e30])
def test_equal_numbers_have_no_deviation_however_they_round(value):
    times = every(6, 3)
    frames = dict.fromkeys(times, np.full((2, 9000), value, np.float32))
    values, changes = moments(frames, times, STEP, changing=True)
    np.testing.assert_array_equal(values.mean, np.float32(value).astype(np.float64))
    assert not values.stddev.any()
    assert not changes.stddev.any()


def test_what_never_changes_has_changes_without_deviation():
    times = every(6, 3)
    frames = dict.fromkeys(times, np.random.default_rng(0).normal(280, 10, (2, 9000)).astype(np.float32))
    _, changes = moments(frames, times, STEP, changing=True)
    assert not changes.mean.any()
    assert not changes.stddev.any()


@given(
    held=st.lists(st.integers(0, 40), min_size=1, max_size=20, unique=True),
    counted=st.sets(st.integers(0, 40)),
)
def test_values_count_at_the_times_asked_for_and_changes_up_to_them(held, counted):
    counted = sorted(counted & set(held)) or held[:1]
    rows = dict(zip(held, np.random.default_rng(0).normal(0, 1, (len(held), 3, 5)), strict=True))
    frames = {START + hour * HOUR: row for hour, row in rows.items()}
    values, changes = moments(frames, START + np.asarray(counted) * HOUR, STEP, changing=True)
    expected = np.stack([rows[hour] for hour in counted])
    pairs = [rows[hour] - rows[hour - 6] for hour in counted if hour - 6 in rows]
    np.testing.assert_allclose(values.stddev, expected.std((0, 2)), rtol=1e-12)
    assert (changes is None) == (not pairs)
    if pairs:
        assert changes.count == 5 * len(pairs)
        np.testing.assert_allclose(changes.mean, np.stack(pairs).mean((0, 2)), rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(changes.stddev, np.stack(pairs).std((0, 2)), rtol=1e-12)


@pytest.fixture(scope="module")
def stored(tmp_path_factory, made):
    """A file of six times, 6 h apart, and its fields."""
    path, fields = tmp_path_factory.mktemp("archive") / "a.nc", made()
    fields.to_netcdf(path, engine="netcdf4")
    return path, fields


def no_forcing(name, times, latitude, longitude):
    raise AssertionError(f"{name} is held")


@given(first=st.integers(0, 5), cut=st.integers(1, 5))
@settings(max_examples=10, deadline=None)
def test_a_block_counts_its_own_values_and_its_first_change_from_the_step_before(stored, first, cut):
    path, fields = stored
    times, names = fields["time"].values, ("2m_temperature", "temperature")
    pieces = tuple(part for part in (times[first : first + cut], times[first + cut :]) if part.size)
    block = ArchiveBlock(names, names[1:], (500,), times[:first][-1:], pieces, STEP)
    found = tally_block(Archive(path), no_forcing, block)
    surface = fields["2m_temperature"].values[first:].astype(np.float64)
    assert float(found.values["2m_temperature"].stddev) == pytest.approx(surface.std(), rel=1e-12)
    assert "2m_temperature" not in found.changes
    changes = np.diff(fields["temperature"].sel(level=[500]).values[max(0, first - 1) :].astype(np.float64), axis=0)
    assert ("temperature" in found.changes) == bool(changes.size)
    if changes.size:
        np.testing.assert_allclose(found.changes["temperature"].stddev, changes.std((0, 2, 3)), rtol=1e-12)


class Watchful:
    """Gives fields of zeros and ones, and notes how many of those given before are still held."""

    def __init__(self):
        self.dims = {"2m_temperature": ("time", "point")}
        self.given, self.held = [], []

    def fields(self, names, times, levels):
        self.held.append(sum(kept() is not None for kept in self.given))
        values = np.zeros((len(times), 100), np.float32)
        values[:, 50:] = 1
        self.given.append(weakref.ref(values))
        return xr.Dataset({"2m_temperature": (("time", "point"), values)}, coords={"time": times})


def test_of_what_was_read_only_the_step_before_is_held_while_more_is_read():
    source, times, names = Watchful(), every(6, 9), ("2m_temperature",)
    found = tally_block(
        source, no_forcing, ArchiveBlock(names, names, (), times[:1], (times[1:4], times[4:7], times[7:]), STEP)
    )
    assert found.values["2m_temperature"].count == found.changes["2m_temperature"].count == 8 * 100
    assert source.held == [0, 1, 0, 0]


def test_values_of_a_block_that_are_infinite_are_placed_and_give_no_warning(tmp_path, made):
    fields = made()
    fields["2m_temperature"][1:3, 2, 1] = np.inf
    fields.to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    times = fields["time"].values
    block = ArchiveBlock(("2m_temperature",), ("2m_temperature",), (), times[:0], (times,), STEP)
    with pytest.raises(StatisticsError, match=r"2m_temperature must be finite, but 2 of .* time 2020-01-01T06:00"):
        tally_block(Archive(tmp_path / "a.nc"), no_forcing, block)
