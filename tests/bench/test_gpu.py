"""The benchmark of an accelerator: on a CPU at a tiny size, and with processes that end as those on a device may."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from graphcast_batch.bench import accelerator_part, accelerator_suite
from graphcast_batch.bench.accelerator_part import Part, kept_files
from graphcast_batch.bench.accelerator_suite import measure
from graphcast_batch.bench.records import read_result
from graphcast_batch.bench.reference_distance import ReferenceForecast, distances
from graphcast_batch.bench.step_contestant import SIZES
from graphcast_batch.cli import main
from graphcast_batch.errors import BenchError
from graphcast_batch.models.base import CallSize
from graphcast_batch.models.model_kinds import MODELS
from tests.conftest import HASTY
from tests.models.conftest import FOLDER

CPU = {"JAX_PLATFORMS": "cpu"}
PROCESS = """\
import json, os, signal, sys
part, answers = json.loads(sys.argv[3]), open(sys.argv[4], "w")
for samples in ([1.5], [2.0, 3.0]):
    answers.write(json.dumps({"name": f"figure {len(samples)}", "unit": "s", "samples": samples}) + "\\n")
if part["size"] == "small":
    answers.write('{"name": "half a li')
    answers.flush()
    print("the device was lost", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
if part["size"] == "full":
    answers.write(json.dumps({"failure": "XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory"}))
if part["size"] == "coarse":
    answers.flush()
    signal.pause()
"""


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Measures parts in processes that only pretend; gives the results, one after each part."""
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable}\n{PROCESS}")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(accelerator_suite, "visible_devices", lambda: ((("gpu", "NVIDIA H100"),), ""))

    def call(*parts, minutes=5.0, reference=None):
        monkeypatch.setattr(accelerator_suite, "_PUBLISHED", parts)
        return list(measure("published", minutes, reference, tmp_path))

    return call


def test_what_a_part_measured_before_it_failed_is_kept_and_the_others_go_on(told):
    results = told(Part("forecast", 1, "small"), Part("forecast", 1, "full"), Part("forecast", 1, "operational"))

    lost, full, last = results[-1].settings["parts"].items()
    assert lost[0] == "small, bfloat16, lean, 1 step a call"
    assert "its process ended with code -9: the device was lost" in lost[1]
    assert "s: XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory" in full[1]
    assert last[1].startswith("measured in ")
    names = [f"{name}: figure {count}" for name, _ in (lost, full, last) for count in (1, 2)]
    assert [figure.name for figure in results[-1].figures] == names
    assert [list(figure.samples) for figure in results[-1].figures] == [[1.5], [2.0, 3.0]] * 3
    assert [len(result.figures) for result in results] == [2, 4, 6]  # after each part what there is
    assert results[-1].machine["device"] == "NVIDIA H100"


def test_a_part_that_does_not_fit_the_time_left_is_left_out_and_one_that_outlasts_it_is_ended(told):
    (*_, result) = told(
        Part("forecast", 1000, "operational"), Part("forecast", 1, "coarse"), Part("reference", 1), minutes=0.25
    )

    long, ended, without = result.settings["parts"].values()
    assert re.fullmatch(r"left out: it takes about 1000 s, and 1\d s are left", long)
    assert ended.endswith("there was no time left")
    assert without == "left out: there is no folder of reference forecasts; name one with --reference"
    assert len(result.figures) == 2  # which it had measured


def test_a_run_in_which_nothing_could_be_measured_fails_and_its_result_names_the_reasons(told, monkeypatch, capsys):
    told()  # sets up what is pretended
    Path(sys.executable).write_text("#!/bin/sh\necho no driver >&2\nexit 1\n")
    monkeypatch.setattr(accelerator_suite, "_PUBLISHED", (Part("forecast", 1, "small"), Part("reference", 1)))
    out = Path(sys.executable).parent / "results"

    with pytest.raises(SystemExit) as ended:
        main(["bench", "gpu", "--out", str(out)])

    assert ended.value.code == 1
    assert "no part could be measured, for the reasons above" in capsys.readouterr().err
    (path,) = out.glob("bench-gpu-nvidia-h100-*.json")
    for words in read_result(path).settings["parts"].values():
        assert "its process ended with code 1: no driver" in words


def test_a_machine_without_an_accelerator_is_refused(command, tmp_path):
    refused = command("bench", "gpu", "--out", tmp_path / "results", env=os.environ | CPU)

    assert refused.returncode == 1
    assert "JAX sees none here, only a CPU; run it where there is one" in refused.stderr
    assert not (tmp_path / "results").exists()


def test_a_platform_that_does_not_start_is_told_with_the_reason(monkeypatch, tmp_path):
    monkeypatch.setattr(accelerator_suite, "visible_devices", lambda: ((), "CUDA_ERROR_NO_DEVICE"))

    with pytest.raises(BenchError, match="must start to measure a device, but it does not: CUDA_ERROR_NO_DEVICE"):
        next(measure("tiny", 1, None, tmp_path))


def test_distances_are_those_of_fields_that_were_moved_by_as_much():
    reference = ReferenceForecast.read(FOLDER / "small_13")
    published = reference.published["float32"]
    deviation = reference.statistics["diffs_stddev"]["temperature"].values
    moved = {name: field.copy() for name, field in published.items()}
    moved["temperature"][1, 5, 3, 4] += 7 * deviation[5]

    assert reference.distance(published) == 0
    np.testing.assert_allclose(reference.distance(moved), 7, rtol=1e-4)
    assert reference.share(reference.published["bfloat16"]) == 1
    half = {name: (field + published[name]) / 2 for name, field in reference.published["bfloat16"].items()}
    np.testing.assert_allclose(reference.share(half), 0.5, rtol=1e-2)


def test_files_of_a_profile_are_kept_without_the_name_of_the_host_unless_they_are_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(accelerator_part, "_MOST_PROFILE_BYTES", 1000)
    made, kept = tmp_path / "plugins" / "profile" / "today", tmp_path / "kept"
    made.mkdir(parents=True)
    (made / "node7.example.org.trace.json.gz").write_bytes(bytes(1000))
    (made / "node7.example.org.xplane.pb").write_bytes(bytes(1001))

    with pytest.raises(BenchError, match=r"at most 1 kB, so these are not: node7\.example\.org\.xplane\.pb of 1 kB"):
        list(kept_files(tmp_path / "plugins", kept))

    assert [(path.name, path.stat().st_size) for path in kept.iterdir()] == [("profile.json.gz", 1000)]


def test_a_folder_without_reference_forecasts_is_refused(tmp_path):
    with pytest.raises(BenchError, match=r"must hold folders of forecasts .*, but holds none; name another one"):
        next(distances(tmp_path, None))


@pytest.mark.slow
def test_every_part_is_measured_at_a_tiny_size_on_a_cpu(command, tmp_path):
    out, reference = tmp_path / "results", tmp_path / "reference"
    shutil.copytree(FOLDER / "operational_13", reference / "operational_13")
    words = ["--size", "tiny", "--out", out, "--reference", reference]

    done = command("bench", "gpu", *words, env=os.environ | CPU | {"XLA_FLAGS": HASTY})

    assert done.returncode == 0, done.stderr
    (path,) = out.glob("bench-gpu-tiny-*.json")
    result = read_result(path)
    figures = {figure.name: figure.median for figure in result.figures}
    assert {words.partition(" in ")[0] for words in result.settings["parts"].values()} == {"measured"}
    assert len(result.settings["parts"]) == 5

    single, profiled = "tiny, bfloat16, lean, 1 step a call", "tiny, bfloat16, lean, 1 step a call, profile"
    np.testing.assert_allclose(
        figures[f"{single}: a step, frames on the host"] * 4,
        figures[f"{single}: a forecast of 24 h, frames on the host"],
        rtol=1e-3,
    )
    assert figures[f"{single}: to the first frame, compiled anew"] > figures[f"{single}: a step, frames on the host"]
    assert f"{profiled}: to the first frame, compiled before" in figures
    size = SIZES["tiny"]
    call = CallSize(size.architecture, size.grid, size.channels, "bfloat16", accelerated=False)
    needed = MODELS["native"].predicted_bytes(call, "lean") / 1e9
    np.testing.assert_allclose(figures[f"{single}: memory of the device as predicted"], needed, rtol=1e-4)

    (profile,) = out.glob("profile-gpu-tiny-*/profile.xplane.pb")
    kept = figures[f"{profiled}: profile of 3 steps, profile.xplane.pb"]
    np.testing.assert_allclose(kept, profile.stat().st_size / 1e6, rtol=1e-4)

    batches = "tiny, bfloat16, fast, 2 steps a call, batches: batch size"
    assert (
        figures[f"{batches} 2: memory of the device as predicted"]
        > figures[f"{batches} 1: memory of the device as predicted"]
    )
    assert min(figures[f"{batches} {cases}: steps of all Cases"] for cases in (1, 2)) > 0

    assert figures["reference forecasts: operational_13, float32: largest distance"] < 2e-4
    assert figures["reference forecasts: operational_13, bfloat16: distance / DeepMind's"] < 1.25

    run = "tiny, bfloat16, run"
    busy = {stage: figures[f"{run}: {stage} of all Cases"] for stage in ("read", "compute", "check", "write", "commit")}
    slowest = max(busy, key=busy.get)
    ratio = figures[f"{run}: wall of all Cases"] / busy[slowest]
    np.testing.assert_allclose(figures[f"{run}: wall / slowest stage, {slowest}"], ratio, rtol=1e-3)
    assert json.loads(path.read_text())["command"] == "graphcast-batch bench gpu --size tiny --minutes 8"
