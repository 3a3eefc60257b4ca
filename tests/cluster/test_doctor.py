"""What a doctor finds: every problem is made for real where a test can make it."""

import ctypes
import re
import resource
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import pytest

from graphcast_batch import cli
from graphcast_batch.cluster import driver, ray_folder
from graphcast_batch.cluster.diagnostics import doctor, survey
from graphcast_batch.cluster.diagnostics.doctor import diagnose, here, of_folder, of_nodes
from graphcast_batch.cluster.diagnostics.survey import GREETING, PRIZES, SWAPPED, Visit, visit
from graphcast_batch.cluster.nodes import resources
from graphcast_batch.cluster.slurm.allocation import Allocation
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.setup.resources import memory_uses
from graphcast_batch.setup.run_setup import assemble
from tests.conftest import SMALL
from tests.forks import PROCESSES

NEW_MOUNTS = 0x00020000
"""CLONE_NEWNS of unshare(2)."""


@pytest.fixture(scope="module")
def healthy():
    """This machine."""
    return survey.survey(0, None, "")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(survey, "_PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(doctor, "_LONG_WAIT_SECONDS", 0.5)


@pytest.fixture
def mounted(tmp_path):
    """Mounts small file systems in memory."""
    places = []

    def mount(options):
        place = tmp_path / f"disk-{len(places)}"
        place.mkdir()
        mounting = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place]
        if subprocess.run(mounting, capture_output=True, check=False).returncode:
            pytest.skip("only root may mount a small file system; try `unshare -Urm pytest`")
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", place], check=True)


def problems(findings, state="problem"):
    return {finding.what: finding.text for finding in findings if finding.state == state}


def as_healthy(healthy):
    """A way to reach this machine that spares the look at it."""

    def everywhere(function, *arguments):
        if function is survey.survey:
            return [replace(healthy, visit=visit(0, *arguments) if arguments[0] else Visit())]
        return here(function, *arguments)

    return everywhere


def hide(place):
    """Puts an empty file system over a folder, in this process alone."""
    survey._PATIENCE_SECONDS = 0.5
    assert ctypes.CDLL(None, use_errno=True).unshare(NEW_MOUNTS) == 0
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)


def test_a_laptop_without_anything_is_well_and_nothing_is_left_on_it(tmp_path):
    found = diagnose(tmp_path, None)

    assert problems(found) == {}
    assert {"versions", "devices", "folder", "exclusive", "rename", "space", "cache"} <= {one.what for one in found}
    assert list(tmp_path.iterdir()) == []


def test_several_processes_at_once_create_each_file_once_and_read_nothing_torn(tmp_path, healthy):
    def everywhere(function, *arguments):
        if function is not survey.survey:
            return here(function, *arguments)
        with ProcessPoolExecutor(2, PROCESSES) as pool:
            visits = [pool.submit(visit, number, *arguments) for number in range(4)]
            return [replace(healthy, host=f"n{number}", visit=met.result()) for number, met in enumerate(visits)]

    found = diagnose(tmp_path, None, None, everywhere)

    assert problems(found) == {}
    assert {one.what: one.state for one in found}["exclusive"] == "ok"
    assert {one.what: one.state for one in found}["rename"] == "ok"


def test_a_store_that_another_node_does_not_see_is_a_problem(tmp_path, healthy, mounted):
    mounted("size=1m")  # or there is no right to

    def everywhere(function, *arguments):
        if function is not survey.survey:
            return here(function, *arguments)
        with ProcessPoolExecutor(1, PROCESSES, hide, (tmp_path,)) as elsewhere:
            other = elsewhere.submit(visit, 1, *arguments)
            return [
                replace(healthy, host="n1", visit=visit(0, *arguments)),
                replace(healthy, host="n2", visit=other.result()),
            ]

    found = diagnose(tmp_path, None, None, everywhere)

    told = [one.text for one in found if one.what == "folder"]
    assert any(text.startswith("n2: does not see a file that was written into") for text in told)


def test_a_disk_of_one_node_under_several_is_a_problem(healthy):
    there = Visit("ext4", "/scratch", won=tuple(range(PRIZES)))
    node, job = replace(healthy, visit=there), Allocation("slurm", "7", size=2)
    told = problems(of_folder([node], 1, job))["folder"]
    assert told.startswith("all nodes of the job must share the store, but it is on a disk of one (ext4 at /scratch)")
    assert problems(of_folder([replace(node, visit=replace(there, kind="lustre"))], 1, job)) == {}


def test_what_the_nodes_themselves_saw_counts_more_than_the_kind_of_disk(healthy):
    there = Visit("ext4", "/scratch", won=tuple(range(PRIZES)))
    nodes = [replace(healthy, host="n1", visit=there), replace(healthy, host="n2", visit=replace(there, won=()))]
    assert problems(of_folder(nodes, 2, Allocation("slurm", "7", size=2))) == {}
    assert "what 1 of 2 nodes write is not seen" in problems(of_folder(nodes, 1, None))["shared"]


def test_a_file_created_twice_or_a_clock_that_is_off_is_told(healthy):
    there = Visit("nfs4", "/data", won=tuple(range(PRIZES)), clock=-40.0)
    found = of_folder([replace(healthy, host=host, visit=there) for host in ("n1", "n2")], 2, None)
    assert f"but {PRIZES} of {PRIZES} were by several or none" in problems(found)["exclusive"]
    assert "must agree to 5 s, but differ by -40.0 s" in problems(found, "note")["file clock"]


def test_a_file_that_is_seen_half_written_is_told(tmp_path, healthy):
    (tmp_path / GREETING).write_text("hello")
    (tmp_path / SWAPPED).write_bytes(b"a" * 999 + b"b")
    found = of_folder([replace(healthy, visit=visit(0, tmp_path, "hello"))], 1, None)
    assert "reads returned parts of both" in problems(found)["rename"]


@pytest.mark.parametrize(
    ("options", "told"),
    [("size=1m,ro", "Read-only file system"), ("size=1m,nr_inodes=1", "No space left")],
)
def test_a_folder_that_cannot_be_written_is_a_problem(mounted, healthy, options, told):
    place = mounted(options)
    assert told in problems(diagnose(place, None, None, as_healthy(healthy)))["folder"]


def test_a_full_disk_is_a_problem(mounted, healthy):
    place = mounted("size=64k")
    (place / "filler").write_bytes(bytes(2**16))
    assert "No space left" in problems(diagnose(place, None, None, as_healthy(healthy)))["folder"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("size=9m,nr_inodes=40", r"the run makes 44 files, but \d+ are left"),
        ("size=300k", r"but one Case alone is 0\.000311 GB before compression"),
    ],
)
def test_a_disk_too_small_for_the_run_is_a_problem(mounted, healthy, options, told):
    place = mounted(options)
    config = parse_config(SMALL | {"store": str(place / "run")}, RunConfig, origin="here")
    found = problems(diagnose(place, config, None, as_healthy(healthy)))
    assert found.keys() == {"space"}
    assert re.search(told, found["space"])


def test_a_run_that_cannot_be_put_together_is_a_problem(tmp_path, healthy):
    model = SMALL["model"] | {"statistics": str(tmp_path / "none")}
    config = parse_config(SMALL | {"store": str(tmp_path / "run"), "model": model}, RunConfig, origin="here")
    assert str(tmp_path / "none") in problems(diagnose(tmp_path, config, None, as_healthy(healthy)))["run"]


def test_what_is_wrong_with_a_node_is_told(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "2")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
    try:
        node = survey.survey(0, None, "")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    found = problems(of_nodes([node], None))
    assert "the scheduler gives 2 GPUs, but JAX sees 1 x cpu (cpu)" in found["devices"]
    assert "temporary" not in found
    note = problems(of_nodes([node], None), "note")["temporary"]
    assert f"Ray's sockets and logs go to /tmp, as {long} is too long for Ray's sockets" in note
    assert "512 files open" in found["open files"]


def test_a_jax_that_does_not_work_and_a_machine_without_a_folder_for_ray_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "nonsense")
    monkeypatch.setattr(ray_folder, "candidates", lambda: [str(tmp_path / "none")])
    found = problems(of_nodes([survey.survey(0, None, "")], None))
    assert "JAX sees no device: " in found["devices"]
    assert "nonsense" in found["devices"]
    assert "correct or unset JAX_PLATFORMS=nonsense" in found["devices"]
    assert f"none can be made in {tmp_path / 'none'}; set TMPDIR" in found["temporary"]


def test_gpus_that_ray_and_jax_do_not_agree_on_are_told(healthy):
    assert "Ray has 4 GPUs to hand out, but JAX sees 0" in problems(of_nodes([healthy], {"GPU": 4.0}))["devices"]
    seeing = replace(healthy, devices=(("gpu", "NVIDIA H100"),))
    assert "Ray has none to hand out" in problems(of_nodes([seeing], {"CPU": 2.0}), "note")["devices"]
    assert problems(of_nodes([seeing], {"GPU": 1.0})) == {}


def test_nodes_with_other_versions_are_a_problem_that_names_them(healthy):
    other = replace(healthy, host="n2", versions={**healthy.versions, "jax": "0.1"})
    told = problems(of_nodes([healthy, other], None))["versions"]
    assert f"jax: {healthy.versions['jax']} on {healthy.host}, 0.1 on n2" in told


def test_of_many_nodes_only_those_that_differ_are_named(healthy):
    nodes = [replace(healthy, host=f"n{number}") for number in range(9)]
    nodes[3] = replace(nodes[3], temporary="", temporary_fault="none can be made")
    told = [one.text for one in of_nodes(nodes, None) if one.what == "temporary"]
    assert told[0].startswith("n0, n1, n2, n4, n5 and 3 more: ")
    assert told[1].startswith("n3: ")


def test_clocks_that_differ_are_a_problem(tmp_path, healthy):
    def everywhere(function, *arguments):
        told = as_healthy(healthy)(function, *arguments)
        return [one - 60 if isinstance(one, float) else one for one in told]

    assert "differ by -60" in problems(diagnose(tmp_path, None, None, everywhere))["clocks"]


def test_a_broken_or_partly_joined_allocation_is_a_problem(tmp_path, healthy, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "x")
    assert "SLURM_JOB_ID must be" in problems(diagnose(tmp_path, None, None, as_healthy(healthy)))["scheduler"]
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "3")
    found = diagnose(tmp_path, None, {"CPU": 2.0}, as_healthy(healthy))
    assert "1 nodes, 2 CPUs, 0 GPUs, but the job has 3 nodes" in problems(found)["ray"]
    assert "does not know when its job ends" in problems(found, "note")["scheduler"]
    monkeypatch.setenv("SLURM_JOB_END_TIME", f"{time.time() + 615:.0f}")
    found = diagnose(tmp_path, None, None, as_healthy(healthy))
    assert [one.text for one in found if one.what == "scheduler"] == ["slurm job 7, node 1 of 3, 10 min left"]


@pytest.mark.parametrize(
    ("share", "state", "text"),
    [
        (1.3, "ok", r"^2 workers a node, each with .* \(float32 on CPU, fast, 1 step a call\), of .* GB$"),
        (0.9, "note", r"\(float32 on CPU, lean, 1 step a call\), of .* which may be too little; take fewer workers"),
        (
            0.7,
            "problem",
            r"^2 workers must have .* but there are .*; take fewer workers \(workers\.count: 1 for each node\)$",
        ),
    ],
)
def test_the_memory_of_the_workers_is_compared_with_that_of_the_node(tmp_path, healthy, share, state, text):
    config = parse_config(
        SMALL | {"store": str(tmp_path / "run"), "workers": {"device": "cpu", "threads": 2}}, RunConfig, origin="here"
    )
    needed = memory_uses(assemble(config), accelerated=False)[share > 1].host_bytes
    given = Allocation(cpus=4, memory_bytes=int(2 * share * needed))
    node = replace(healthy, given=given, usable_bytes=given.memory_bytes)

    found = [one for one in diagnose(tmp_path, config, None, as_healthy(node)) if one.what == "workers"]

    assert [one.state for one in found] == [state]
    assert re.search(text, found[0].text)


def test_a_limit_of_a_cgroup_is_reported(healthy):
    (found,) = [one for one in of_nodes([replace(healthy, usable_bytes=10**9)], None) if one.what == "memory"]

    assert found.text.endswith("; a limit of its cgroup leaves 1 GB")


def test_a_cache_that_cannot_be_written_is_a_problem(tmp_path, healthy, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc")
    assert (
        "/proc/graphcast-batch must be writable"
        in problems(diagnose(tmp_path, None, None, as_healthy(healthy)))["cache"]
    )


def test_a_node_that_fails_is_a_problem(tmp_path):
    found = diagnose(tmp_path, None, None, lambda function, *_: [ModuleNotFoundError("graphcast_batch")])
    assert "a node cannot be examined: graphcast_batch" in problems(found)["nodes"]


@pytest.mark.slow
def test_over_ray_each_node_is_looked_at(tmp_path, cluster):
    found = diagnose(tmp_path, None, resources(), driver.on_each_node)
    failed = driver.on_each_node(lambda number: 1 // number)

    assert problems(found) == {}
    assert {one.what: one.text for one in found}["ray"].startswith("1 nodes, ")
    assert isinstance(failed[0], ZeroDivisionError)


def test_the_command_tells_and_ends_with_1_if_there_is_a_problem(command, small_config, tmp_path):
    config = small_config()
    with pytest.raises(SystemExit) as end:
        cli.main(["doctor", str(config)])
    assert end.value.code == 0

    ill = command(
        "doctor", config, also={"RAY_ADDRESS": "", "XLA_FLAGS": "--xla_nonsense=1", "TMPDIR": str(tmp_path / "no")}
    )
    assert ill.returncode == 1
    assert "the run makes 0.00124 GB before compression, and 44 files" in ill.stdout
    assert "Unknown flag in XLA_FLAGS: --xla_nonsense=1; correct or unset XLA_FLAGS=--xla_nonsense=1" in ill.stdout
    assert f"go to /tmp, as {tmp_path / 'no'} is too long for Ray's sockets, or cannot be written" in ill.stdout


def test_a_job_of_several_nodes_without_a_cluster_is_noted(tmp_path, monkeypatch):
    for name, value in {"WORLD_SIZE": "3", "RANK": "0", "LOCAL_WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(survey, "visible_devices", lambda: ((("cpu", "cpu"),), ""))
    note = problems(diagnose(tmp_path, None), "note")["ray"]
    assert "Ray has 1 of the 3 nodes of this job, and the others stay idle" in note
    assert "graphcast-batch launch --folder FOLDER -- COMMAND" in note
