import numpy as np
import pytest
import xarray as xr

from graphcast_batch.errors import TrainingError
from graphcast_batch.models.graphcast.checkpoint import load_checkpoint
from graphcast_batch.training.training_folder import TrainingFolder
from graphcast_batch.training.training_setup import training_setup
from graphcast_batch.training.training_worker import TrainingWorker
from tests.training.made import recipe_in, write_archive

pytestmark = pytest.mark.usefixtures("hasty_compiler")

KEEP = 2**20


def apprentice(recipe, precision="float32"):
    return TrainingWorker(training_setup(recipe), precision, 0, 1, KEEP)


def weights(folder):
    return load_checkpoint(TrainingFolder(folder).weights).parameters


def assert_same(one, other):
    assert one.keys() == other.keys()
    for module, named in one.items():
        for name, values in named.items():
            np.testing.assert_array_equal(values, other[module][name])


def test_one_that_is_taken_up_goes_on_as_if_it_had_never_stopped(tmp_path):
    complete = apprentice(recipe_in(tmp_path / "whole"))
    lines = [*complete.advance(8), *complete.advance(100)]
    complete.save()
    broken = apprentice(recipe_in(tmp_path / "broken"))
    first = broken.advance(5)
    broken.save()
    broken.advance(2)  # is lost with the process

    again = apprentice(recipe_in(tmp_path / "broken"))
    assert again.update == 5
    later = [*again.advance(3), *again.advance(2)]
    again.save()

    assert again.update == 10
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "broken"))
    clocks = {"seconds", "waited", "peak_bytes"}
    plain = [{key: value for key, value in line.items() if key not in clocks} for line in lines]
    assert plain == [{key: value for key, value in line.items() if key not in clocks} for line in first + later]
    assert [line["rollout"] for line in lines] == [1] * 8 + [2] * 2
    assert all(0 <= line["waited"] <= line["seconds"] for line in lines)
    assert again.validate() == complete.validate()


def test_weights_tell_what_they_were_made_from(tmp_path):
    recipe = recipe_in(tmp_path / "training")
    made = apprentice(recipe)
    made.advance(1)
    made.save()

    found = load_checkpoint(TrainingFolder(recipe.folder).weights)

    assert found.description == "trained by graphcast-batch for 1 updates, from: random weights, seed 0"
    assert recipe.model.weights.architecture.resolution == 0
    architecture = recipe.model.weights.architecture.model_copy(update={"resolution": 30.0})  # of its inputs
    assert (found.task, found.architecture) == (recipe.model.weights.task, architecture)


def test_the_loss_of_weather_that_never_changes_goes_to_nothing(tmp_path):
    fields = write_archive(tmp_path / "archive.nc", constant=True)
    # Rain is the same everywhere, so that it too can be learnt without error.
    rain = np.float32(fields["total_precipitation_6hr"].mean())
    field = xr.full_like(fields["total_precipitation_6hr"], rain)
    write_archive(tmp_path / "archive.nc", constant=True, total_precipitation_6hr=field)
    made = apprentice(
        recipe_in(
            tmp_path / "training",
            inputs={"kind": "archive", "path": str(tmp_path / "archive.nc")},
            times={"first": "2020-01-01T00", "last": "2020-01-02T00", "every_hours": 6},
            validation={"times": {"list": ["2020-01-03T00"]}},
            phases=[{"rollout": 1, "updates": 400, "peak": 2e-2, "warm_up": 10, "last": 0.0}],
        )
    )

    lines = made.advance(400)

    assert lines[0]["loss"] > 0.1
    assert lines[-1]["loss"] < 1e-3 * lines[0]["loss"]
    loss, persistence = made.validate()
    assert loss < 1e-3 * lines[0]["loss"]
    assert persistence < 1


def test_a_sample_that_is_not_weather_stops_it_with_its_place(tmp_path):
    fields = write_archive(tmp_path / "archive.nc")
    field = fields["temperature"].copy(deep=True)
    field[{"time": 3, "level": 0, "latitude": 0, "longitude": 0}] = np.nan
    write_archive(tmp_path / "archive.nc", temperature=field)
    made = apprentice(
        recipe_in(
            tmp_path / "training",
            inputs={"kind": "archive", "path": str(tmp_path / "archive.nc")},
            times={"list": ["2020-01-01T00", "2020-01-01T06"]},
            validation={"times": {"list": ["2020-01-03T00"]}},
            # No more, which would still be read when the next test opens a file: netCDF is not for two threads.
            phases=[{"rollout": 1, "updates": 1, "peak": 1e-3}],
        )
    )

    with pytest.raises(TrainingError, match=r"temperature of .* is not at time 2020-01-01T12"):
        made.advance(1)


def test_a_rate_that_is_far_too_high_ends_in_a_clear_stop_and_keeps_what_was_good(tmp_path):
    phases = [{"rollout": 1, "updates": 50, "peak": 1e30}]
    made = apprentice(recipe_in(tmp_path / "training", phases=phases))

    said = made.advance(50)

    assert 1 <= len(said) < 50
    assert all(np.isfinite(line["loss"]) for line in said)
    with pytest.raises(TrainingError, match=r"must stay finite, but are .*learning rate 1e\+30.*lower the peak"):
        made.advance(50)
    assert made.update == len(said)
