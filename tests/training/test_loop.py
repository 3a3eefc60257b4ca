import json
import math

import pytest

from graphcast_batch.errors import TrainingError, WorkersLostError
from graphcast_batch.training.training_folder import TrainingFolder
from graphcast_batch.training.training_loop import train
from tests.training.made import recipe_in


class Group:
    """Workers whose losses are given, and which may die at some updates."""

    def __init__(self, recipe, loss=lambda update: 1.0, seconds=0.5, deaths=()):
        self._recipe, self._loss, self._seconds, self._deaths = recipe, loss, seconds, list(deaths)
        self.update = self.saved = 0
        self.calls = []

    def advance(self, updates):
        self.calls.append(("advance", updates))
        lines = []
        for _ in range(updates):
            if self._deaths and self._deaths[0] == self.update:
                del self._deaths[0]
                raise WorkersLostError("a worker died")
            loss = self._loss(self.update + 1)
            if not math.isfinite(loss):
                if lines:
                    break
                raise TrainingError(f"the loss is {loss}")
            self.update += 1
            phase, _ = self._recipe.phase_of(self.update - 1)
            known = {"update": self.update, "rollout": phase.rollout, "rate": 1e-3, "loss": loss}
            lines.append(known | {"seconds": self._seconds, "waited": 0.0})
        return lines

    def validate(self):
        self.calls.append(("validate", self.update))
        return 0.5, 2.0

    def save(self):
        self.calls.append(("save", self.update))
        self.saved = self.update

    def restart(self):
        self.calls.append(("restart", self.saved))
        if self._deaths and self._deaths[0] == "restart":
            del self._deaths[0]
            raise WorkersLostError("a worker was stillborn")
        self.update = self.saved

    def of(self, kind):
        return [number for name, number in self.calls if name == kind]


@pytest.fixture
def recipe(tmp_path):
    phases = [{"rollout": 1, "updates": 20, "peak": 1e-3}, {"rollout": 4, "updates": 5, "peak": 1e-3}]
    return recipe_in(tmp_path / "training", phases=phases, checkpoint_every=8, validation__every=10)


def go(recipe, group, asked=lambda: False):
    told = []
    return train(recipe, group, told.append, asked), told


def recorded(recipe):
    return [json.loads(line) for line in TrainingFolder(recipe.folder).record.read_text().splitlines()]


def test_every_update_is_made_once_with_checkpoints_and_validation_at_their_times(recipe):
    group = Group(recipe)

    complete, told = go(recipe, group)

    assert complete
    assert group.of("save") == [8, 16, 24, 25]
    assert group.of("validate") == [10, 20, 25]
    assert [line["update"] for line in told if "loss" in line] == list(range(1, 26))
    assert recorded(recipe) == told
    assert {"update": 20, "validation": 0.5, "persistence": 2.0} in told


def test_a_call_takes_about_two_seconds_whatever_the_rollout(recipe):
    group = Group(recipe, seconds=0.25)

    go(recipe, group)

    # One to see how long it takes; then 8 of 1 step, fewer where something else is due; of 4 steps a quarter.
    assert group.of("advance") == [1, 7, 2, 6, 4, 2, 2, 1]


def test_asked_to_stop_it_saves_and_goes_on_later(recipe):
    group = Group(recipe, seconds=2.0)

    complete, _ = go(recipe, group, asked=lambda: group.update == 5)

    assert (complete, group.saved) == (False, 5)
    again = Group(recipe)
    again.update = again.saved = 5
    assert go(recipe, again)[0]
    assert [line["update"] for line in recorded(recipe) if "loss" in line] == list(range(1, 26))


def test_two_trainings_cannot_use_a_folder_at_once(recipe):
    group, other = Group(recipe, seconds=2.0), Group(recipe)

    def asked():
        if group.update == 5:
            with pytest.raises(TrainingError, match="must be used by one training at a time, but another is using it"):
                go(recipe, other)
        return False

    assert go(recipe, group, asked)[0]

    assert other.calls == []
    other.update = 25
    assert go(recipe, other)[0]  # now that the first has ended


def test_a_training_that_has_ended_is_left_as_it_is(recipe):
    group = Group(recipe)
    group.update = 25

    assert go(recipe, group) == (True, [])
    assert group.calls == []


def test_after_a_death_all_go_on_from_the_checkpoint_and_nothing_is_recorded_twice(recipe):
    group = Group(recipe, seconds=2.0, deaths=[11, "restart", 13])

    complete, told = go(recipe, group)

    assert complete
    assert group.of("restart") == [8, 8, 8]
    assert [line["update"] for line in told if "lost" in line] == [11, 11, 13]
    assert [line["update"] for line in recorded(recipe) if "loss" in line] == list(range(1, 26))


def test_a_training_that_does_not_get_further_gives_up(recipe):
    group = Group(recipe, deaths=[10] * 9)

    with pytest.raises(WorkersLostError):
        go(recipe, group)

    assert len(group.of("restart")) == 3
    assert group.saved == 8


def test_a_loss_that_is_not_finite_ends_it_after_all_before_is_recorded(recipe):
    group = Group(recipe, loss=lambda update: math.nan if update == 14 else 1.0)

    with pytest.raises(TrainingError, match="the loss is nan"):
        go(recipe, group)

    assert recorded(recipe)[-1]["update"] == 13
    assert group.saved == 8


def long(tmp_path):
    return recipe_in(tmp_path / "training", phases=[{"rollout": 1, "updates": 300, "peak": 1.0}], checkpoint_every=100)


def test_a_loss_that_grows_beyond_measure_ends_it_before_that_is_saved(tmp_path):
    recipe = long(tmp_path)
    group = Group(recipe, loss=lambda update: 1.0 if update < 170 else 11.0)

    with pytest.raises(TrainingError, match=r"must not grow.*than 1 before and 11 up to.*weights\.npz is of the last"):
        go(recipe, group)

    assert group.saved == 100
    assert 190 < group.update < 200


@pytest.mark.parametrize(
    "loss",
    [
        lambda update: 1e6 if update % 10 == 0 else 1.0,  # samples that are bad now and then
        lambda update: 1.0 + 0.02 * update,  # grows, but not beyond measure
        lambda update: 1000.0 / update,
    ],
)
def test_a_loss_that_only_leaps_or_falls_goes_on(tmp_path, loss):
    recipe = long(tmp_path)

    assert go(recipe, Group(recipe, loss=loss))[0]


def test_a_phase_of_longer_rollouts_may_begin_with_a_higher_loss(recipe):
    assert go(recipe, Group(recipe, loss=lambda update: 1.0 if update <= 20 else 50.0))[0]
