"""Members of an ensemble in one worker: each has its own weights and state, whatever comes before and beside it."""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from graphcast_batch.errors import InputError
from graphcast_batch.inputs.case_inputs import CaseInputs
from graphcast_batch.members import Member
from graphcast_batch.pipeline import case_frames
from graphcast_batch.pipeline.member_weights import MemberWeights
from graphcast_batch.pipeline.worker_context import WorkerContext
from graphcast_batch.stores.layout import Layout, Plan
from graphcast_batch.stores.store_kinds import create_or_extend
from tests.test_pipeline import GRID, FakeSource, cases, unlimited
from tests.test_pipeline import TASK as PLAIN

CHECKPOINTS, STATES, STEPS = 3, 2, 4
NUMBERS = range(CHECKPOINTS * STATES)


def hours(case):
    return (case.init_time - np.datetime64("2020-01-01T00")) / np.timedelta64(1, "h")


class Adding:
    """Frames hold 100 times the weights, plus the start, plus the step; one thread at a time."""

    device = "paper"
    task = PLAIN

    def __init__(self, refused=()):
        self.weights, self.swaps, self.refused = {"w": {"w": np.float32(0)}}, [], list(refused)

    def replace_weights(self, parameters):
        self.weights = None
        number = int(parameters["w"]["w"])
        if number in self.refused:
            self.refused.remove(number)
            raise MemoryError("the device is full")
        self.swaps.append(number)
        self.weights = parameters

    def forecast(self, inputs, forcings, steps):
        for step in range(steps):
            yield self._frames(inputs, step)

    def forecast_many(self, starts, steps):
        for step in range(steps):
            yield [self._frames(inputs, step) for inputs, _ in starts]

    def _frames(self, inputs, step):
        number = 100 * self.weights["w"]["w"] + float(inputs["start"]) + step
        return {
            "a": np.full((1, 2, *GRID.shape), number, np.float32),
            "b": np.full((1, *GRID.shape), number, np.float32),
        }


class Starts(FakeSource):
    """States that hold the day of their initial time, each of which is read in its turn."""

    def __init__(self):
        self.read_of = []

    def read(self, case, task):
        self.read_of.append(case.key)
        return CaseInputs(xr.Dataset({"start": 1000.0 * hours(case)}), xr.Dataset())


def checkpoint_of(case):
    return case.member % CHECKPOINTS


class Perturbed:
    def __call__(self, case, frames, preparation):
        return frames + 10.0 * (case.member // CHECKPOINTS)

    def read_bytes(self, case):
        return 0


class Weights(MemberWeights):
    """Counts what is read."""

    def __init__(self, kept):
        self.read_of = []
        super().__init__(checkpoint_of, self.read, kept, {"w": {"w": np.float32(0)}})

    def read(self, number):
        self.read_of.append(number)
        return {"w": {"w": np.float32(number)}}


class Prepared(Perturbed):
    """Adds the last frame of two short forecasts, which cancel each other."""

    def __init__(self, steps):
        self.steps = steps

    def __call__(self, case, frames, preparation):
        start = replace(case, steps=self.steps)
        both = [(start, CaseInputs(sign * frames, xr.Dataset())) for sign in (1, -1)]
        plus, minus = (float(made["b"][-1, 0, 0]) for made in preparation.forecast(both, 2))
        return (
            super().__call__(case, frames, preparation) + (plus + minus) / 2 - value_of_weights(case) - self.steps + 1
        )


def value_of_weights(case):
    return 100.0 * checkpoint_of(case)


def worker(tmp_path, times, model, source, weights, batch_size=1, perturb=None):
    some = [replace(case, member=number) for case in cases(times, STEPS) for number in NUMBERS]
    layout = Layout(GRID, (500, 850), (("a", True), ("b", False)), STEPS, 6)
    members = tuple(Member(number, "", "") for number in NUMBERS)
    store = create_or_extend(
        tmp_path / "s", Plan(tuple(some), layout, (), members), identity={}, provenance={}, config_text=""
    )
    context = WorkerContext(
        source,
        lambda inputs: None,
        model,
        store,
        lambda start: unlimited,
        "t",
        batch_size,
        perturb=perturb or Perturbed(),
        weights=weights,
    )
    return some, context


def run_case(context, case):
    return context.run_case(case, context.store.ledger.lease(case, 60), 1)


def value(case, step):
    return 1000.0 * hours(case) + 100.0 * checkpoint_of(case) + 10.0 * (case.member // CHECKPOINTS) + step


def assert_own_frames(context, some):
    stored = context.store.forecasts().load()
    for case in some:
        here = stored["b"].isel(context.store.place_of(case)).values[:, 0, 0]
        np.testing.assert_array_equal(here, [value(case, step) for step in range(STEPS)])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("batch_size", "at_once", "kept"), [(1, 4, 3), (1, 4, 1), (3, 10, 2)])
def test_each_member_has_its_own_weights_and_state_in_any_order(tmp_path, seed, batch_size, at_once, kept):
    model, source, weights = Adding(), Starts(), Weights(kept)
    some, context = worker(tmp_path, 3, model, source, weights, batch_size)
    random.Random(seed).shuffle(some)

    with ThreadPoolExecutor(at_once) as pool:
        made = list(pool.map(lambda case: run_case(context, case), some))

    assert len(made) == len(some)
    assert_own_frames(context, some)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(("batch_size", "steps"), [(1, 1), (1, 5), (2, 2), (2, 5), (3, STEPS)])
def test_forecasts_before_a_forecast_may_be_longer_than_it_and_share_calls(
    tmp_path, monkeypatch, batch_size, steps, large
):
    if large:
        monkeypatch.setattr(case_frames, "MOST_WAITING_BYTES", 0)
    some, context = worker(tmp_path, 2, Adding(), Starts(), Weights(3), batch_size, Prepared(steps))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda case: run_case(context, case), some))

    assert_own_frames(context, some)


def test_members_that_arrive_between_those_of_another_time_wait_until_its_state_is_not_needed(tmp_path):
    model, source, weights = Adding(), Starts(), Weights(CHECKPOINTS)
    some, context = worker(tmp_path, 2, model, source, weights)
    first, second = some[: len(NUMBERS)], some[len(NUMBERS) :]
    mixed = [case for pair in zip(first, second, strict=True) for case in pair]

    with ThreadPoolExecutor(len(mixed)) as pool:
        with context._reading:  # until all of them wait
            made = [pool.submit(run_case, context, case) for case in mixed]
            while len(context._turns._waiting) < len(mixed) - 1:
                time.sleep(0.001)
        assert all(each.result() for each in made)

    assert len(source.read_of) == 2
    assert_own_frames(context, some)


def test_in_the_order_of_a_plan_states_and_weights_are_read_once(tmp_path):
    model, source, weights = Adding(), Starts(), Weights(CHECKPOINTS)
    some, context = worker(tmp_path, 2, model, source, weights)
    some.sort(key=lambda case: (case.init_time, checkpoint_of(case)))

    for case in some:
        run_case(context, case)

    assert source.read_of == ["2020-01-01T00", "2020-01-01T06"]
    assert weights.read_of == [1, 2]
    assert model.swaps == [1, 2, 0, 1, 2]
    assert_own_frames(context, some)


def test_weights_that_there_is_no_room_to_keep_are_read_again(tmp_path):
    model, source, weights = Adding(), Starts(), Weights(kept=1)
    some, context = worker(tmp_path, 2, model, source, weights)
    some.sort(key=lambda case: (case.init_time, checkpoint_of(case)))

    for case in some:
        run_case(context, case)

    assert weights.read_of == [1, 2, 0, 1, 2]


def test_a_swap_that_fails_fails_its_case_and_the_next_one_has_its_own_weights(tmp_path):
    model, source, weights = Adding(refused=[1]), Starts(), Weights(CHECKPOINTS)
    some, context = worker(tmp_path, 1, model, source, weights)
    first, refused = (next(case for case in some if checkpoint_of(case) == number) for number in (0, 1))

    run_case(context, first)
    with pytest.raises(MemoryError, match="the device is full"):
        run_case(context, refused)
    other = next(case for case in some if checkpoint_of(case) == 0 and case != first)
    run_case(context, other)
    run_case(context, refused)

    assert_own_frames(context, [first, other, refused])


def test_a_state_that_cannot_be_read_fails_each_of_its_members_and_is_not_kept(tmp_path):
    class Broken(Starts):
        def read(self, case, task):
            found = super().read(case, task)
            if len(self.read_of) == 1:
                raise InputError("a gap")
            return found

    model, source, weights = Adding(), Broken(), Weights(CHECKPOINTS)
    (first, second, *_), context = worker(tmp_path, 1, model, source, weights)

    with pytest.raises(InputError, match="a gap"):
        run_case(context, first)
    run_case(context, second)
    run_case(context, first)

    assert len(source.read_of) == 2
    assert_own_frames(context, [first, second])
