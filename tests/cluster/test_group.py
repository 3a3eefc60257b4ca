"""Workers that train together on a real Ray: what they come to, and what becomes of it when one of them dies."""

import os
import re
import signal

import numpy as np
import psutil
import pytest

from graphcast_batch.models.graphcast.checkpoint import load_checkpoint
from tests.test_finetune import lines, saved, until, weights, write_recipe
from tests.training.made import write_archive

PHASES = [{"rollout": 1, "updates": 3, "peak": 1e-3}]


def trained(run_on_ray, folder, count, **changes):
    """The folder of a training by so many workers."""
    name = f"of_{count}"
    recipe = write_recipe(folder, name, workers__count=count, **{"phases": PHASES} | changes)
    done = run_on_ray("finetune", recipe, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / name


def assert_alike(one, other):
    """Within what rounding makes of the order of sums; an update is 1e-3 at most."""
    for name, expected in weights(one).items():
        np.testing.assert_allclose(weights(other)[name], expected, rtol=0, atol=2e-5, err_msg=name)
    for first, second in zip(lines(one), lines(other), strict=True):
        for key in first.keys() - {"seconds", "waited", "peak_bytes"}:
            assert second[key] == pytest.approx(first[key], rel=1e-4), key


@pytest.mark.slow
@pytest.mark.parametrize(("count", "together"), [(2, 2), (4, 1)])
def test_several_workers_come_to_the_same_as_one(run_on_ray, tmp_path, count, together):
    several = trained(run_on_ray, tmp_path, count, samples_per_call=together)

    assert_alike(trained(run_on_ray, tmp_path, 1), several)
    assert load_checkpoint(several / "weights.npz").architecture.latent_size == 4


def workers():
    """Processes of trainings, on the Ray that the tests share."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "_Actor" in child.name() or "_Actor" in " ".join(child.cmdline()[:1])]


@pytest.mark.slow
def test_after_the_death_of_a_worker_all_go_on_from_the_last_checkpoint(begin_on_ray, run_on_ray, tmp_path):
    phases = [{"rollout": 1, "updates": 40, "peak": 1e-3}]
    undisturbed = trained(run_on_ray, tmp_path, 2, phases=phases)
    recipe, folder = write_recipe(tmp_path, "disturbed", workers__count=2, phases=phases), tmp_path / "disturbed"

    begun = begin_on_ray("finetune", recipe, cwd=tmp_path)
    until(begun, lambda: saved(folder))
    for worker in workers()[-1:]:
        os.kill(worker.pid, signal.SIGKILL)
    done = begun.end()

    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert re.search(r"after update \d+: a worker of the training died", told)
    for name, expected in weights(undisturbed).items():
        np.testing.assert_array_equal(weights(folder)[name], expected)
    assert [line["update"] for line in lines(folder) if "loss" in line] == list(range(1, 41))


@pytest.mark.slow
def test_an_error_of_one_worker_ends_the_training_of_all(run_on_ray, tmp_path):
    fields = write_archive(tmp_path / "archive.nc")
    field = fields["temperature"].copy(deep=True)
    field[{"time": 12, "level": 0, "latitude": 0, "longitude": 0}] = np.nan
    write_archive(tmp_path / "archive.nc", temperature=field)
    recipe = write_recipe(
        tmp_path,
        "gappy",
        inputs={"kind": "archive", "path": str(tmp_path / "archive.nc")},
        validation={"times": {"list": ["2020-01-04T06"]}, "rollout": 1},
        times={"first": "2020-01-01T00", "last": "2020-01-03T12", "every_hours": 6},
        workers__count=2,
    )

    done = run_on_ray("finetune", recipe, cwd=tmp_path)

    assert done.returncode == 1, done.stdout
    assert re.search(r"TrainingError: .*temperature of .* is not at time 2020-01-03T18", " ".join(done.stderr.split()))
    assert "Traceback" not in done.stderr
