"""Runs on a real Slurm of two nodes, by the real commands: disturbed in each way that a cluster does, and whole."""

import re
from pathlib import Path

import pytest

from graphcast_batch.cluster.slurm.allocation import hosts
from tests.slurm.conftest import ROOT, write_config

pytestmark = pytest.mark.slurm
CASES = 32


def test_one_ray_cluster_over_two_nodes(begin, is_as_undisturbed):
    run = begin(CASES, "--nodes", "2")
    run.until_done()
    assert min(run.hosts()) > 0, run.told
    is_as_undisturbed(run)


@pytest.mark.parametrize("members", [0, 4])
def test_an_array_of_four_shares_one_store(begin, is_as_undisturbed, members):
    run = begin(CASES, submit=False, members=members)
    run.submit("--cpus-per-node", "1", "--time", "10", "--array", "1-4", "--", "--mem=1500")
    run.until_done()
    workers = {line.split("; ")[-1] for line in run.told.splitlines() if " complete (" in line}
    assert len(workers) == 4, run.told
    is_as_undisturbed(run)


@pytest.mark.parametrize("members", [0, 8])
def test_requeued_in_the_middle(begin, is_as_undisturbed, members):
    run = begin(CASES, "--nodes", "2", members=members)
    run.until_made(4)
    run.bed.call("scontrol", "requeue", run.job)
    run.bed.until_state(run.job, "PENDING")
    run.in_flight = len(run.leases())
    run.until_done()
    assert run.bed.job(run.job)["Restarts"] == "1"
    is_as_undisturbed(run)


def test_preempted_by_a_job_of_higher_priority(begin, is_as_undisturbed):
    run = begin(CASES, "--nodes", "2")
    run.until_made(4)
    urgent = ["--partition=high", "--nodes=2", "--exclusive", "--wrap=sleep 3", f"--output={run.folder}/urgent"]
    other = run.bed.call("sbatch", "--parsable", *urgent).strip()
    run.bed.until_state(other, "COMPLETED")
    run.in_flight = len(run.leases())
    run.until_done()
    assert run.bed.job(run.job)["Restarts"] == "1"
    is_as_undisturbed(run)


def test_canceled_and_submitted_again(begin, is_as_undisturbed):
    run = begin(CASES, "--nodes", "2")
    run.until_made(4)
    run.bed.call("scancel", run.job)
    run.bed.until_state(run.job, "CANCELLED")
    run.bed.until_idle()
    run.in_flight = len(run.leases())
    run.submit("--nodes", "2", "--cpus-per-node", "2", "--time", "10")
    run.until_done()
    is_as_undisturbed(run)


def test_the_walltime_is_reached(begin, is_as_undisturbed):
    run = begin(48, submit=False, heavy=True)
    run.submit("--cpus-per-node", "1", "--time", "2", "--", "--mem=3000")
    run.until_done(seconds=900)
    assert int(run.bed.job(run.job)["Restarts"]) >= 1
    assert "no further Case is handed out" in run.told
    is_as_undisturbed(run)


def test_a_node_goes_down_and_comes_back(begin, is_as_undisturbed):
    run = begin(CASES, "--nodes", "2")
    run.until_made(4)
    before = set(run.leases())
    run.bed.kill_node("n2")
    run.in_flight = len(before)
    run.until_done()
    run.bed.revive("n2")
    run.bed.until_idle()
    assert run.bed.call("srun", "--nodelist=n2", "hostname").strip() == "n2"
    is_as_undisturbed(run)


def test_slurms_daemon_on_a_node_dies_and_comes_back(begin, is_as_undisturbed):
    run = begin(200, "--nodes", "2")
    run.until_made(4)
    run.bed.kill_slurmd("n2")
    run.bed.until(lambda: "down" in run.bed.call("sinfo", "-h", "-n", "n2", "-o", "%t"))
    assert run.bed.job(run.job)["JobState"] == "RUNNING"
    run.until_done()
    run.bed.heal()
    run.bed.until_idle()
    is_as_undisturbed(run)


def test_two_jobs_on_one_node_at_once_one_of_them_by_hand(begin, is_as_undisturbed):
    runs = [begin(CASES // 2, submit=False)]
    runs.append(begin(CASES // 2, submit=False, beside=True))
    runs[0].submit("--cpus-per-node", "1", "--time", "10", "--", "--mem=3000", "--nodelist=n1")
    by_hand = ["--cpus-per-task=1", "--mem=3000", "--nodelist=n1", ROOT / "slurm/ray.sbatch", runs[1].config]
    runs[1].jobs.append(runs[1].bed.call("sbatch", "--parsable", *map(str, by_hand), cwd=runs[1].folder).strip())
    meetings = [runs[0].store / f"slurm/{runs[0].job}.0", runs[1].folder / f"graphcast-{runs[1].job}.0"]
    addresses = [meeting / "address" for meeting in meetings]
    runs[0].bed.until(lambda: all(path.exists() for path in addresses))  # two Rays are there at this moment
    for run in runs:
        run.until_done()
        is_as_undisturbed(run)


def test_the_launcher_gives_ray_what_slurm_gave(bed, shared):
    ask = "import ray; ray.init(logging_level='ERROR'); print(sorted(ray.cluster_resources().items()))"
    told = bed.call(
        *("srun", "--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=2", "--gpus-per-node=2", "--mem=2000"),
        *("graphcast-batch", "launch", "--folder", str(shared / "resources"), "--", "python", "-c", ask),
    )
    assert "('CPU', 4.0)" in told
    assert "('GPU', 4.0)" in told
    assert bed.call("srun", "--nodes=2", "bash", "-c", "ls $TMPDIR").split() == []  # Ray's folders are gone
    assert "raylet" not in bed.call("srun", "--nodes=2", "bash", "-c", "ps -e")


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_node_that_does_not_join_is_named(bed, shared, goes_on):
    copy = f"graphcast-batch launch --folder {shared}/missing{goes_on} --wait 2 {'--without-missing' * goes_on}"
    told = bed.call(
        *("bash", "-c", f"srun -N2 --mem=2000 bash -c 'test $SLURM_NODEID = 1 || {copy} -- echo the run' || echo $?")
    )
    assert "1 of 2 nodes have not joined Ray within 2 s: n2" in told
    assert ("the run" in told) == goes_on
    assert told.split()[-1] == ("run" if goes_on else "1")


def test_the_code_of_a_command_is_kept(bed, shared):
    copy = f"graphcast-batch launch --folder {shared}/code -- bash -c 'exit 3'"
    assert bed.call("bash", "-c", f"srun -N2 --mem=2000 {copy} || echo ended with $?").endswith("ended with 3\n")


def test_forecasts_are_evaluated_once_they_are_made(begin, is_as_undisturbed):
    run = begin(8, submit=False)
    run.submit("--nodes", "2", "--cpus-per-node", "2", "--evaluate-after", "--", "--mem=3000")
    first, evaluation = run.jobs
    assert run.bed.job(evaluation)["Dependency"].startswith(f"afterany:{first}")
    run.until_done()
    assert "RMSE of forecast, global" in run.told
    run.jobs.remove(evaluation)
    is_as_undisturbed(run)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--partition", "lwo"], "--partition must be one of this cluster's, high, low, but is lwo"),
        (["--gpus-per-node", "3"], "--gpus-per-node must be at most 2, the most that a node of partition low has"),
        (["--nodes", "3"], "--nodes must be at most 2, the most that partition low has, but is 3"),
        (["--cpus-per-node", "64"], "--cpus-per-node must be at most 2, the most that a node of partition low has"),
        (["--time", "1h"], "--time must be like 90 (minutes)"),
    ],
)
def test_what_the_cluster_has_not_is_told_at_once(begin, flags, told):
    run = begin(4, submit=False)
    run.change(workers={"device": "auto", "threads": 1})
    with pytest.raises(RuntimeError) as error:
        run.submit("--cpus-per-node", "2", *flags)
    assert told in " ".join(str(error.value).split())
    assert not run.bed.call("squeue", "-h")


def test_a_store_that_the_nodes_do_not_see_is_told_of(begin):
    run = begin(4, submit=False)
    unseen = run.bed.root / "local" / "store"  # a disk of each node's own
    run.change(store=str(unseen))
    run.submit("--cpus-per-node", "2")
    run.until_done("FAILED")
    status = " ".join(run.bed.call("graphcast-batch", "status", str(unseen)).split())
    assert "FAILED" in status
    assert f"write into {unseen}/slurm?" in status


def test_the_doctor_looks_at_all_nodes_of_a_job(bed, shared):
    doctor = f"graphcast-batch doctor {write_config(shared / 'doctor', 4, heavy=False)} --folder"
    looks = f"{doctor} {shared}/doctor && echo all is well; {doctor} $TMPDIR || echo ended with $?"
    copy = f"graphcast-batch launch --folder {shared}/doctor/meet -- bash -c '{looks}'"
    told = bed.call("srun", "--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=2", "--mem=3000", "bash", "-c", copy)
    well, _, ill = told.partition("all is well")
    assert "problem" not in well, told
    assert re.search(r"a file is seen on all nodes \(2\)", well), told
    assert re.search(r"problem +folder: n2: does not see a file that was written into .* on another node", ill), told
    assert ill.rstrip().endswith("ended with 1")


@pytest.mark.parametrize("nodes", ["n[1-3,05-07],gpu01", "rack[1-2]n[0-3]", "a1b[01-03]", "x[8-11],x[098-101]", "one"])
def test_lists_of_nodes_are_read_as_slurm_does(bed, nodes):
    assert list(hosts(nodes)) == bed.call("scontrol", "show", "hostnames", nodes).split()


def test_a_config_that_a_node_does_not_see_is_told_of_by_the_node(begin):
    run = begin(4, submit=False)
    unseen = Path("/dev/shm/graphcast-unseen.yaml")  # each node has memory of its own
    unseen.write_text(run.config.read_text())
    try:
        run.submit("--nodes", "2", "--cpus-per-node", "2", config=unseen)
        run.until_done("FAILED")
    finally:
        unseen.unlink()
    for node in run.bed.nodes:
        assert f"{node}: the config {unseen} must be readable, but is not" in run.told
