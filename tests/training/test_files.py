import dataclasses
import json
import resource

import numpy as np
import pytest

from graphcast_batch.errors import StoreUnwritableError, TrainingError
from graphcast_batch.models.graphcast.checkpoint import load_checkpoint
from graphcast_batch.models.graphcast.weights import ConfiguredWeights
from graphcast_batch.recipe import load_recipe
from graphcast_batch.training.training_folder import TrainingFolder, TrainingState, refuse_other
from tests.training.made import CONTENT, recipe_in


@pytest.fixture
def recipe(tmp_path):
    return recipe_in(tmp_path / "training")


@pytest.fixture
def folder(recipe):
    made = TrainingFolder(recipe.folder)
    made.path.mkdir()
    made.begin(0, recipe)
    return made


def state_of(recipe, update=9, size=3):
    arrays = {
        "parameters:mesh_gnn/~/linear_0:w": np.arange(size, dtype=np.float32),
        "optimizer:1:count": np.int32(update) + np.zeros((), np.int32),
    }
    return TrainingState(update, arrays, recipe.model_dump(mode="json"), "abc")


def weights_of(recipe):
    weights = ConfiguredWeights(recipe.model.weights)
    return weights.checkpoint(weights.channels({}))


def test_what_is_saved_is_read_again_bit_by_bit_and_nothing_else_is_left(recipe, folder):
    assert folder.state() is None

    folder.save(state_of(recipe), weights_of(recipe))

    found, saved = folder.state(), state_of(recipe)
    assert (found.update, found.recipe, found.begun_with) == (9, saved.recipe, "abc")
    assert list(found.arrays) == list(saved.arrays)
    for name, array in saved.arrays.items():
        assert found.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(found.arrays[name], array)
    assert load_checkpoint(folder.weights).task == recipe.model.weights.task
    assert sorted(path.name for path in folder.path.iterdir()) == [
        *("recipe.yaml", "record.jsonl", "state.npz", "weights.npz")
    ]


def test_a_disk_that_is_full_leaves_the_checkpoint_of_before(recipe, folder):
    folder.save(state_of(recipe, 9), weights_of(recipe))
    before = {path.name: path.read_bytes() for path in folder.path.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Weights fit, the state does not.
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    try:
        with pytest.raises(StoreUnwritableError, match=r"saving the training .*failed: .*run again"):
            folder.save(state_of(recipe, 10, 2**19), weights_of(recipe))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert {path.name: path.read_bytes() for path in folder.path.iterdir()} == before


def test_what_a_killed_process_left_is_cleared_away(recipe, folder):
    (folder.path / ".drafts").mkdir()
    (folder.path / ".drafts" / "state.npz").write_bytes(b"half")

    folder.save(state_of(recipe), weights_of(recipe))

    assert folder.state().update == 9
    assert not (folder.path / ".drafts").exists()


@pytest.mark.parametrize("damage", [lambda held: held[: len(held) // 2], lambda held: b"", lambda held: b"\0" * 99])
def test_a_damaged_state_says_what_to_do(recipe, folder, damage):
    folder.save(state_of(recipe), weights_of(recipe))
    path = folder.path / "state.npz"
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(TrainingError, match=r"state\.npz must be the state of a training.*remove it to train"):
        folder.state()


def test_the_recipe_in_the_folder_is_the_recipe(recipe, folder):
    assert load_recipe(folder.path / "recipe.yaml") == recipe


def test_the_record_loses_what_will_be_made_again_and_what_was_broken_off(recipe, folder):
    lines = [{"update": n, "loss": 1 / n} for n in range(1, 7)]
    folder.note(lines[:4])
    folder.note(lines[4:])
    with folder.record.open("a") as file:
        file.write('{"update": 7, "lo')
    assert list(folder.lines()) == lines

    folder.begin(4, recipe)

    assert [json.loads(line) for line in folder.record.read_text().splitlines()] == lines[:4]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"workers__count": 2},
        {"checkpoint_every": 5},
        {"validation__rollout": 1},
        {"phases": [CONTENT["phases"][0] | {"updates": 9}, {"rollout": 3, "updates": 7, "peak": 1e-4}]},
    ],
)
def test_what_changes_nothing_of_what_was_made_may_change(recipe, tmp_path, changes):
    begun = {"phases": [CONTENT["phases"][0] | {"updates": 9}, CONTENT["phases"][1]]} if "phases" in changes else {}
    state = state_of(recipe_in(tmp_path / "elsewhere", **begun))

    refuse_other(state, recipe_in(tmp_path / "training", **changes), "abc", tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "seed must be 0, but is 1; take another folder"),
        ({"batch": 8}, "batch must be 4, but is 8"),
        ({"times__last": "2020-01-03T12"}, "times must be"),
        ({"phases": [CONTENT["phases"][0] | {"peak": 2e-2}, CONTENT["phases"][1]]}, "phases must be"),
        ({"phases": [CONTENT["phases"][0], CONTENT["phases"][1] | {"rollout": 3}]}, "phases must be"),
    ],
)
def test_another_training_is_refused(recipe, tmp_path, changes, message):
    with pytest.raises(TrainingError, match=message):
        refuse_other(state_of(recipe), recipe_in(tmp_path / "training", **changes), "abc", tmp_path)


def test_other_weights_to_begin_with_are_refused(recipe, tmp_path):
    with pytest.raises(TrainingError, match=r"began with other weights than those of model\.weights"):
        refuse_other(dataclasses.replace(state_of(recipe), begun_with="def"), recipe, "abc", tmp_path)
