"""Trainings through the public door: real Ray, real processes killed for real."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import xarray as xr
import yaml
from PIL import Image

from graphcast_batch.cli import main
from graphcast_batch.models.graphcast.checkpoint import load_checkpoint
from graphcast_batch.recipe import load_recipe
from tests.conftest import ROOT, SMALL
from tests.training.made import content

LONG = {"phases": [{"rollout": 1, "updates": 60, "peak": 1e-2, "warm_up": 5, "last": 0.0}], "validation__every": 30}
"""So that it can be met halfway."""
MEASURED = ("seconds", "waited", "peak_bytes")


def write_recipe(folder, name, **changes):
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content(folder=str(folder / name), **LONG | changes)))
    return path


def saved(folder):
    """The update of the last checkpoint; 0 without one."""
    try:
        with np.load(folder / "state.npz") as state:
            return int(state["update"])
    except FileNotFoundError:
        return 0


def until(process, reached):
    deadline = time.monotonic() + 180
    while not reached():
        assert process.is_running, process.end()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def weights(folder):
    with np.load(folder / "weights.npz") as held:
        return {name: held[name] for name in held if name.startswith("params:")}


def lines(folder):
    return [json.loads(line) for line in (folder / "record.jsonl").read_text().splitlines()]


def without_clocks(found):
    return [{key: value for key, value in line.items() if key not in MEASURED} for line in found]


@pytest.fixture(scope="module")
def trained(run_on_ray, tmp_path_factory):
    """What one training that nothing disturbed said, and its folder."""
    folder = tmp_path_factory.mktemp("trained")
    return run_on_ray("finetune", write_recipe(folder, "training"), cwd=folder), folder / "training"


def test_a_training_leaves_weights_a_record_and_curves(trained):
    done, folder = trained

    assert done.returncode == 0, done.stderr
    assert "12 of 12 initial times have samples with 1 steps\n3 of 3 initial times of validation" in done.stdout
    assert re.search(r"update 60: validation loss [\d.]+, [\d.]+ of that of persistence, [\d.]+", done.stdout)
    assert re.search(r"60 of 60 updates; [\d.]+% of the time waited for samples\nweights: .*weights\.npz", done.stdout)
    made = [line for line in lines(folder) if "loss" in line]
    assert [line["update"] for line in made] == list(range(1, 61))
    assert [line["update"] for line in lines(folder) if "validation" in line] == [30, 60]
    assert made[-1]["loss"] < made[0]["loss"]
    assert made[0]["rate"] == pytest.approx(2e-3)
    with Image.open(folder / "curves.png") as image:
        assert image.text["Title"] == "Training over 60 updates"
    assert load_recipe(folder / "recipe.yaml") == load_recipe(folder.parent / "training.yaml")
    assert sorted(path.name for path in folder.iterdir()) == [
        *("curves.png", "recipe.yaml", "record.jsonl", "state.npz", "weights.npz")
    ]


def test_killed_and_then_asked_to_stop_it_goes_on_and_ends_bit_identical(trained, begin_on_ray, run_on_ray, tmp_path):
    recipe, folder = write_recipe(tmp_path, "disturbed"), tmp_path / "disturbed"

    killed = begin_on_ray("finetune", recipe, cwd=tmp_path)
    until(killed, lambda: saved(folder))
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.end().returncode == -signal.SIGKILL
    first = saved(folder)
    stopping = begin_on_ray("finetune", recipe, cwd=tmp_path)
    until(stopping, lambda: saved(folder) > first)
    os.kill(stopping.pid, signal.SIGTERM)
    stopped = stopping.end()
    assert stopped.returncode == 75, stopped.stderr
    second = saved(folder)
    done = run_on_ray("finetune", recipe, cwd=tmp_path)

    assert 0 < first < second < 60
    assert f"{second} of 60 updates" in stopped.stdout + stopped.stderr
    assert done.returncode == 0, done.stderr
    complete = trained[1]
    for name, expected in weights(complete).items():
        np.testing.assert_array_equal(weights(folder)[name], expected)
    assert without_clocks(lines(folder)) == without_clocks(lines(complete))
    again = run_on_ray("finetune", recipe, cwd=tmp_path)
    assert again.returncode == 0
    assert saved(folder) == 60


def test_forecasts_are_made_with_what_was_trained(trained, command, small_config, tmp_path):
    config = small_config(
        inputs={"kind": "synthetic", "resolution": 30},
        model={
            "weights": {"kind": "checkpoint", "path": str(trained[1] / "weights.npz")},
            "statistics": str(ROOT / "stats" / "synthetic"),
        },
        workers=SMALL["workers"] | {"count": 1},
    )

    done = command("run", config)

    assert done.returncode == 0, done.stderr
    stored = xr.open_zarr(tmp_path / "run")
    assert stored["temperature"].sizes["level"] == 2
    assert "trained by graphcast-batch for 60 updates" in stored.attrs["source"]


def test_weights_say_what_resolution_they_were_trained_for(trained, small_config, capsys):
    weights = trained[1] / "weights.npz"
    assert load_checkpoint(weights).architecture.resolution == 30
    config = small_config(model={"weights": {"kind": "checkpoint", "path": str(weights)}})

    with pytest.raises(SystemExit, match="1"):
        main(["plan", str(config)])

    assert "must be on a grid of 30°, which the weights were trained for" in " ".join(capsys.readouterr().err.split())


def test_another_training_in_the_folder_is_refused_before_anything_starts(trained, tmp_path, capsys):
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(content(folder=str(trained[1]), **LONG | {"seed": 5})))

    with pytest.raises(SystemExit, match="1"):
        main(["finetune", str(other)])

    told = capsys.readouterr().err
    assert re.search("holds a training by another recipe: seed must be 0, but is 5", " ".join(told.split()))
    assert "Traceback" not in told


def test_a_batch_that_the_workers_cannot_share_is_refused(command, tmp_path):
    done = command("finetune", write_recipe(tmp_path, "five", workers__count=5))

    assert done.returncode == 2, done.stderr
    assert "batch must be a multiple of the 5 workers times 2 samples" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "five").exists()


def test_the_job_is_the_command():
    words = [sys.executable, ROOT / "jobs" / "finetune.py", "--help"]

    assert "RECIPE" in subprocess.run(words, capture_output=True, text=True, check=True).stdout
