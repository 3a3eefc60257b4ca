import dataclasses

import numpy as np
import pytest

from graphcast_batch.errors import (
    CheckpointError,
    GraphcastBatchError,
    InputError,
    InputNotFoundError,
    StatisticsError,
    TaskError,
    TrainingError,
)
from graphcast_batch.training.training_folder import TrainingFolder, TrainingState
from graphcast_batch.training.training_setup import training_setup
from tests.conftest import ROOT
from tests.training.made import TASK, recipe_in, write_archive

REFERENCE = ROOT / "tests" / "reference" / "small_13"
RANDOM = {"kind": "random", "architecture": {"mesh_size": 0, "latent_size": 4, "gnn_msg_steps": 1}}
LAST = ["2020-01-03T18", "2020-01-06T00"]


def on_archive(tmp_path, **changes):
    given = {"inputs": {"kind": "archive", "path": str(tmp_path / "archive.nc")}}
    given |= {"times": {"first": "2020-01-01T00", "last": "2020-01-02T00", "every_hours": 6}}
    given |= {"validation": {"times": {"list": LAST}, "rollout": 1}}
    return recipe_in(tmp_path / "training", **given | changes)


def test_a_course_knows_the_samples_of_each_rollout(tmp_path):
    write_archive(tmp_path / "archive.nc")
    phases = [{"rollout": rollout, "updates": 1, "peak": 1e-3} for rollout in (1, 3)]
    times = {"first": "2019-12-31T00", "last": "2020-01-02T00", "every_hours": 6}

    found = training_setup(on_archive(tmp_path, times=times, phases=phases))

    # The archive begins at 2019-12-31T18, so that the first start is 6 h later.
    assert [str(found.times[rollout][0]) for rollout in (1, 3)] == ["2020-01-01T00"] * 2
    assert found.summary == [
        "5 of 9 initial times have samples with 1 steps",
        "5 of 9 initial times have samples with 3 steps",
        "1 of 2 initial times of validation have samples with 1 steps",
    ]
    assert found.static.shape == (found.source.grid.size, 1)
    assert not (tmp_path / "training").exists()


def test_a_field_with_time_that_never_changes_is_static(tmp_path):
    fields = write_archive(tmp_path / "archive.nc")
    mask = fields["land_sea_mask"].expand_dims(time=fields["time"])
    write_archive(tmp_path / "archive.nc", land_sea_mask=mask)

    np.testing.assert_array_equal(
        training_setup(on_archive(tmp_path)).static[:, 0], fields["land_sea_mask"].values.ravel()
    )


def test_dataset_files_are_an_archive_too(tmp_path):
    (dataset,) = REFERENCE.glob("source-*.nc")
    recipe = recipe_in(
        tmp_path / "training",
        inputs={"kind": "datasets", "path": str(dataset)},
        times={"list": ["2022-01-01T06"]},
        validation={"times": {"list": ["2022-01-02T00"]}, "rollout": 1},
        model={
            "weights": {"kind": "checkpoint", "path": str(REFERENCE / "checkpoint.npz")},
            "statistics": str(REFERENCE),
        },
        phases=[{"rollout": 1, "updates": 1, "peak": 1e-4}],
    )

    found = training_setup(recipe)

    assert found.times[1].size == found.validation.size == 1


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"inputs": {"kind": "archive", "path": "nowhere.nc"}}, InputNotFoundError, r"nowhere\.nc"),
        ({"model__statistics": "nowhere"}, StatisticsError, "nowhere"),
        (
            {"model__weights": {"kind": "checkpoint", "path": "none.npz"}},
            CheckpointError,
            r"none\.npz is not a file",
        ),
        (
            {"model__weights": RANDOM | {"task": "GraphCast_small"}},
            InputError,
            r"every variable of the task that is trained, but lacks 10m_u_component_of_wind, .*weights of another task",
        ),
        ({"model__weights": RANDOM | {"task": TASK | {"pressure_levels": [500, 700]}}}, InputError, "700"),
        (
            {"model__weights": {**RANDOM, "architecture": RANDOM["architecture"] | {"resolution": 1.0}, "task": TASK}},
            InputError,
            r"must be on a grid of 1°.*30°.*give inputs of that resolution",
        ),
        (
            {"phases": [{"rollout": 20, "updates": 1, "peak": 1e-3}]},
            TrainingError,
            r"times must have an initial time of which .*archive\.nc holds the 2 frames that go in and the 20 steps",
        ),
        (
            {"validation__times": {"list": ["2021-01-01"]}},
            TrainingError,
            r"validation\.times must have an",
        ),
        (
            {"validation__times": {"list": ["2020-01-02T06"]}},
            TrainingError,
            r"validation must see no time that training sees, but 3 are seen .* 2020-01-02T00; let validation\.times",
        ),
        ({"model__freeze": ["mesh_gnn/*", "nothing"]}, TrainingError, r"model\.freeze: nothing must match.*mesh_gnn"),
        ({"model__freeze": ["*"]}, TrainingError, r"model\.freeze must leave a module to train"),
    ],
)
def test_what_does_not_go_together_stops_before_anything_starts(tmp_path, monkeypatch, changes, error, message):
    monkeypatch.chdir(tmp_path)
    write_archive(tmp_path / "archive.nc")

    with pytest.raises(error, match=message) as raised:
        training_setup(on_archive(tmp_path, **changes))

    assert isinstance(raised.value, GraphcastBatchError)
    assert not (tmp_path / "training").exists()


def test_an_input_that_changes_but_is_not_predicted_is_refused(tmp_path):
    fields = write_archive(tmp_path / "archive.nc")
    write_archive(tmp_path / "archive.nc", ice=fields["2m_temperature"])
    task = TASK | {"input_variables": [*TASK["input_variables"], "ice"]}

    with pytest.raises((TaskError, StatisticsError), match="ice"):
        training_setup(on_archive(tmp_path, model__weights=RANDOM | {"task": task}))


def test_temperatures_in_celsius_are_refused(tmp_path):
    fields = write_archive(tmp_path / "archive.nc")
    write_archive(tmp_path / "archive.nc", **{"2m_temperature": fields["2m_temperature"] - 273.15})

    with pytest.raises(InputError, match="2m_temperature"):
        training_setup(on_archive(tmp_path))


def test_a_folder_of_another_training_is_refused(tmp_path):
    write_archive(tmp_path / "archive.nc")
    recipe = on_archive(tmp_path)
    begun = training_setup(recipe)
    state = TrainingState(1, {}, recipe.model_dump(mode="json"), begun.checkpoint.sha256)
    recipe.folder.mkdir()
    TrainingFolder(recipe.folder).begin(0, recipe)
    TrainingFolder(recipe.folder).save(state, begun.checkpoint)

    assert training_setup(recipe).validation.size == 1
    with pytest.raises(TrainingError, match="seed must be 0, but is 3"):
        training_setup(on_archive(tmp_path, seed=3))
    TrainingFolder(recipe.folder).save(dataclasses.replace(state, begun_with=""), begun.checkpoint)
    with pytest.raises(TrainingError, match="other weights"):
        training_setup(recipe)


@pytest.mark.parametrize("task", ["GraphCast_small", "GraphCast_operational"])
def test_published_tasks_train_on_the_synthetic_planet(tmp_path, task):
    assert training_setup(recipe_in(tmp_path, model__weights=RANDOM | {"task": task})).validation.size == 3
