"""Bred vectors of a model that is linear, so that what they grow to is known."""

from contextlib import nullcontext

import numpy as np
import pytest
import xarray as xr

from graphcast_batch.errors import ConfigError, ForecastError
from graphcast_batch.grid import cell_area
from graphcast_batch.inputs.case_inputs import CaseInputs
from graphcast_batch.perturbations.draws import Draw
from graphcast_batch.perturbations.white_noise import WhiteNoise
from graphcast_batch.plan import Case
from tests.perturbations.states import GRID, INIT_TIME, RAIN, TASK, chosen, frames, statistics
from tests.perturbations.states import perturb as perturb_as

GROWTH = {"2m_temperature": 1.0, "temperature": 1.5, "u_component_of_wind": 0.5, "specific_humidity": 1.0}
CASE = Case(INIT_TIME, 8, 6, member=3)
HOUR = np.timedelta64(1, "h")


class Linear:
    """A preparation whose model multiplies what differs from the inputs, in every step."""

    def __init__(self, growth=GROWTH):
        self.growth, self.read_of, self.made = growth, [], []

    def reading(self):
        return nullcontext()

    def read(self, case):
        self.read_of.append(case.init_time)
        return CaseInputs(frames(), xr.Dataset())

    def forecast(self, starts, last):
        self.made += [case for case, _ in starts]
        return [self._made(case, inputs.frames, last) for case, inputs in starts]

    def _made(self, case, given, last):
        found = {}
        for name, growth in self.growth.items():
            still = frames()[name].values[-1].astype(np.float64)
            moved = given[name].values[-1] - still
            steps = range(1, case.steps + 1)
            found[name] = np.stack([still + moved * growth**step for step in steps]).astype(np.float32)[-last:]
        return found


def bred(**keys):
    return perturb_as("bred", amplitude=dict.fromkeys(GROWTH, 0.01), **keys)


def state(number, preparation=None, weights=0, case=CASE, **keys):
    return bred(**keys)(case, frames(), number, weights, preparation or Linear())


def moved(number, name, **keys):
    """What was added to the last frame, in units of amplitude times diffs_stddev; ([level], lat, lon)."""
    stddev = 0.01 * np.asarray(statistics().diffs_stddev[name].values, np.float64)
    change = state(number, **keys)[name].values[-1].astype(np.float64) - frames()[name].values[-1]
    return change / (stddev[:, None, None] if stddev.ndim else stddev)


def test_what_the_model_amplifies_is_most_of_a_bred_vector():
    kept = {name: moved(0, name, cycles=3, cycle_hours=12) for name in GROWTH}

    # 3 cycles of 2 steps of a linear model: the noise of each variable times growth to the 6th, and one factor for all.
    noise = WhiteNoise(GRID)
    grown = {
        name: growth**6
        * np.stack([*noise(name, TASK.pressure_levels if kept[name].ndim > 2 else (None,), Draw(0, 0, INIT_TIME))])
        for name, growth in GROWTH.items()
    }
    levels = np.concatenate(list(grown.values()))
    norm = np.sqrt(np.mean(np.mean(levels**2, axis=(0, 2)) * cell_area(GRID.latitude)))
    for name in ("2m_temperature", "temperature", "u_component_of_wind"):
        expected = grown[name] / norm
        np.testing.assert_allclose(kept[name], expected.reshape(kept[name].shape), atol=0.01)


def test_its_root_mean_square_over_the_sphere_is_the_amplitude():
    fields = np.concatenate([moved(2, name).reshape(-1, *GRID.shape) for name in GROWTH if name != "specific_humidity"])
    humidity = moved(2, "specific_humidity")  # of which a part may be cut off at 0
    everything = np.concatenate([fields, humidity])
    rms = np.sqrt(np.mean(np.mean(everything**2, axis=(0, 2)) * cell_area(GRID.latitude)))
    assert rms == pytest.approx(1, abs=0.01)


def test_states_come_in_pairs_of_which_one_is_bred_for_both():
    make, preparation = bred(cycles=2), Linear()
    plus = make(CASE, frames(), 2, 0, preparation)
    assert (len(preparation.read_of), len(preparation.made)) == (2, 4)
    minus = make(CASE, frames(), 3, 0, preparation)
    assert len(preparation.made) == 4
    for name in ("temperature", "2m_temperature"):
        np.testing.assert_allclose((plus[name] + minus[name]) / 2, frames()[name], rtol=1e-6)
        assert not np.array_equal(plus[name], minus[name])
    for name in (RAIN, "land_sea_mask"):
        np.testing.assert_array_equal(plus[name], frames()[name])


def test_cycles_go_from_the_inputs_of_one_earlier_time_to_those_of_the_next():
    preparation = Linear()
    state(0, preparation, cycles=3, cycle_hours=24)
    assert preparation.read_of == [INIT_TIME - hours * HOUR for hours in (72, 48, 24)]
    assert {(case.steps, case.member) for case in preparation.made} == {(4, 3)}


def test_a_state_depends_on_its_number_the_weights_the_seed_and_the_initial_time_alone():
    make = bred()
    for number in (5, 1, 2):
        make(CASE, frames(), number, 0, Linear())
    last = make(CASE, frames(), 1, 0, Linear())
    xr.testing.assert_identical(last, state(1))

    later = Case(INIT_TIME + 6 * HOUR, 8, 6, member=3)
    others = [state(0), state(2), state(0, case=later), state(0, seed=8), state(0, Linear(dict.fromkeys(GROWTH, 1.2)))]
    assert len({each["temperature"].values.tobytes() for each in others}) == 5

    shared = bred()
    shared(CASE, frames(), 0, 0, Linear())
    other = shared(CASE, frames(), 0, 1, Linear(dict.fromkeys(GROWTH, 1.2)))  # of another checkpoint
    xr.testing.assert_identical(other, others[-1])


def test_a_cycle_of_one_step_has_its_start_as_first_frame():
    made = state(0, cycles=1, cycle_hours=6)
    change = made["temperature"].values.astype(np.float64) - frames()["temperature"].values
    np.testing.assert_allclose(change[1], 1.5 * change[0], atol=2e-4)


@pytest.mark.parametrize("growth", [0.0, np.nan])
def test_forecasts_that_do_not_differ_or_are_not_finite_are_refused(growth):
    with pytest.raises(ForecastError, match=r"the bred vector 1 of 2020-01-01T06.*must have grown from 2019-12-30T06"):
        state(2, Linear(dict.fromkeys(GROWTH, growth)))


def test_a_cycle_is_whole_steps_and_states_are_pairs():
    with pytest.raises(ConfigError, match="cycle_hours must be a multiple of 6 h, the model's step, but is 8"):
        bred(cycle_hours=8)
    with pytest.raises(ValueError, match="members must be even with kind: bred, which makes pairs, but is 3"):
        chosen("bred", members=3)
