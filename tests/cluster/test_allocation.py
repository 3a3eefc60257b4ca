"""Environments of batch scripts, steps and shells, with values as Slurm's manual pages and a Slurm 22.05 give them."""

import shutil
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from graphcast_batch.cluster.slurm.allocation import Allocation, allocation, hosts
from graphcast_batch.errors import AllocationError

JOB = {
    "SLURM_JOB_ID": "1234",
    "SLURM_JOB_NODELIST": "n[1-3]",
    "SLURM_JOB_NUM_NODES": "3",
    "SLURM_JOB_CPUS_PER_NODE": "72(x2),36",
    "SLURM_MEM_PER_NODE": "2048",
}
BATCH = JOB | {"SLURM_NNODES": "3", "SLURM_NODEID": "0", "SLURM_CPUS_ON_NODE": "72"}
STEP = JOB | {
    "SLURM_STEP_NODELIST": "n[2-3]",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_NNODES": "2",
    "SLURM_NODEID": "1",
    "SLURM_CPUS_ON_NODE": "8",
}
TORCH = {"WORLD_SIZE": "4", "RANK": "2", "MASTER_ADDR": "n1", "MASTER_PORT": "29500"}
SHOWN = {  # what `scontrol show hostnames` of Slurm 22.05 prints
    "n[1-3,05-07],gpu01": "n1 n2 n3 n05 n06 n07 gpu01",
    "n[9-11]": "n9 n10 n11",
    "n[009-011]": "n009 n010 n011",
    "n[99-0101]": "n99 n100 n101",
    "n[3,1-2]": "n3 n1 n2",
    "a,a": "a a",
    "rack[1-2]n[0-3]": "rack1n0 rack1n1 rack1n2 rack1n3 rack2n0 rack2n1 rack2n2 rack2n3",
    "a[1-2]b[3-4]c[5-6]": "a1b3c5 a1b3c6 a2b3c5 a2b3c6 a1b4c5 a1b4c6 a2b4c5 a2b4c6",
    "a-1.domain.org": "a-1.domain.org",
    "[1-3]": "1 2 3",
}


def short_list(names):
    """Writes names as Slurm does: those that differ by one in their last digits share a bracket."""
    groups = []
    for name in names:
        prefix = name.rstrip("0123456789")
        number = name[len(prefix) :]
        if groups and groups[-1][0] == prefix and number:
            first, last = groups[-1][1:]
            if last and number == f"{int(last) + 1:0{len(first)}}":
                groups[-1] = prefix, first, number
                continue
        groups.append((prefix, number, number))
    return ",".join(prefix + (first if first == last else f"[{first}-{last}]") for prefix, first, last in groups)


@pytest.mark.parametrize(("nodelist", "shown"), SHOWN.items())
def test_a_node_list_expands_as_slurm_shows_it(nodelist, shown):
    assert hosts(nodelist) == tuple(shown.split())


def test_slurm_itself_shows_the_same(tmp_path):
    if not shutil.which("scontrol"):
        pytest.skip("no scontrol to ask")
    config = tmp_path / "slurm.conf"
    config.write_text("ClusterName=test\nSlurmctldHost=localhost\nNodeName=n1\n")
    for nodelist, shown in SHOWN.items():
        asked = subprocess.run(
            ["scontrol", "show", "hostnames", nodelist],
            env={"PATH": "/usr/bin", "SLURM_CONF": str(config)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert asked.stdout.split() == shown.split()


def test_names_may_go_on_after_the_last_bracket():
    assert hosts("rack[1-2]n[0-1]-ib") == ("rack1n0-ib", "rack1n1-ib", "rack2n0-ib", "rack2n1-ib")


@given(st.lists(st.from_regex(r"[a-z]{1,3}-?[0-9]{0,3}", fullmatch=True), min_size=1), st.integers(0, 10**6))
@example(["n08", "n09", "n10"], 98)
@example(["n8", "n9", "n10", "n010"], 98)
def test_the_short_form_of_any_names_expands_to_them(names, start):
    names += [f"n{number}" for number in range(start, start + 5)]
    assert hosts(short_list(names)) == tuple(names)


@pytest.mark.parametrize(
    "nodelist",
    ["", ",", "a,", "a,,b", "a b", "a[1-2", "a]", "a[]", "a[2-1]", "a[x]", "a[1-2-3]", "a[1,]", "a[٣]", "[[1]]", "a\n"],
)
def test_what_is_no_node_list_is_refused(nodelist):
    with pytest.raises(AllocationError, match="a list of nodes must"):
        hosts(nodelist)


@pytest.mark.parametrize(
    "nodelist", ["a[1-99999999]", "a" + "[1-2]" * 20, "a[1-40000],b[1-40000]", "a" * 300, "a[0-999999999]" * 5]
)
def test_absurd_node_lists_are_refused(nodelist):
    with pytest.raises(AllocationError, match="at most 65536 hosts"):
        hosts(nodelist)


def test_a_batch_script_is_on_the_first_node_of_its_job():
    told = {"SLURM_JOB_START_TIME": "1700000000", "SLURM_JOB_END_TIME": "1700003600", "SLURM_RESTART_COUNT": "2"}
    assert allocation(BATCH | told) == Allocation(
        "slurm", "1234", ("n1", "n2", "n3"), 3, 0, 72, None, 2**31, 1.7e9, 1.7e9 + 3600, 2
    )


def test_a_step_may_have_fewer_nodes_and_cpus_than_its_job():
    found = allocation(STEP)
    assert (found.nodes, found.size, found.rank, found.cpus) == (("n2", "n3"), 2, 1, 8)


def test_a_step_has_the_gpus_of_its_own():
    assert allocation(STEP | {"SLURM_STEP_GPUS": "3", "SLURM_JOB_GPUS": "0-3"}).gpus == 1


@pytest.mark.parametrize("step", [{"SLURM_STEP_NODELIST": "n1"}, {"SLURM_STEP_NODELIST": "n[7-9]"}])
def test_a_batch_script_submitted_from_within_a_step_is_not_in_that_step(step):
    assert allocation(BATCH | step).nodes == ("n1", "n2", "n3")


def test_a_shell_of_salloc_has_what_the_first_node_has():
    found = allocation(JOB)
    assert (found.size, found.rank, found.cpus, found.start, found.end) == (3, 0, 72, None, None)


def test_cpus_of_a_node_are_those_at_its_place_in_the_job():
    told = {name: text for name, text in STEP.items() if name != "SLURM_CPUS_ON_NODE"}
    assert allocation(told).cpus == 36


def test_a_task_of_a_job_array_is_named_after_the_array():
    told = {"SLURM_ARRAY_JOB_ID": "1230", "SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "9"}
    found = allocation(BATCH | told)
    assert (found.job, found.task, found.tasks) == ("1230_0", 0, 9)


@pytest.mark.parametrize(
    ("told", "gpus"),
    [
        ({"SLURM_GPUS_ON_NODE": "4", "SLURM_JOB_GPUS": "0,1"}, 4),
        ({"SLURM_JOB_GPUS": "0,2-3"}, 3),
        ({"SLURM_STEP_GPUS": "3", "SLURM_JOB_GPUS": "0-3"}, 4),
        ({"SLURM_GPUS_PER_NODE": "2"}, 2),
        ({"SLURM_GPUS_PER_NODE": "a100:2"}, 2),
        ({"SLURM_GPUS_PER_NODE": "nvidia_a100-sxm4-80gb:2,v100:1"}, 3),
        ({"CUDA_VISIBLE_DEVICES": "GPU-8932f937-d72c,MIG-1"}, 2),
        ({"CUDA_VISIBLE_DEVICES": ""}, 0),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, 0),
        ({}, None),
    ],
)
def test_gpus_are_counted_by_whatever_tells_them(told, gpus):
    assert allocation(BATCH | told).gpus == gpus


@pytest.mark.parametrize(
    ("told", "mebibytes"),
    [
        ({"SLURM_MEM_PER_NODE": "4096"}, 4096),
        ({"SLURM_MEM_PER_NODE": "4G"}, 4096),
        ({"SLURM_MEM_PER_NODE": "1048576K"}, 1024),
        ({"SLURM_MEM_PER_NODE": "0"}, None),
        ({"SLURM_MEM_PER_CPU": "100"}, 7200),
        ({"SLURM_MEM_PER_GPU": "1000", "SLURM_GPUS_ON_NODE": "2"}, 2000),
        ({"SLURM_MEM_PER_GPU": "1000"}, None),
        ({}, None),
    ],
)
def test_memory_is_that_of_the_node(told, mebibytes):
    without = {name: text for name, text in BATCH.items() if name != "SLURM_MEM_PER_NODE"}
    assert allocation(without | told).memory_bytes == (mebibytes and mebibytes * 2**20)


def test_launchers_like_torchrun_tell_size_and_rank():
    found = allocation(TORCH)
    assert (found.scheduler, found.size, found.rank, found.nodes) == ("torch", 4, 2, ())
    found = allocation(TORCH | {"WORLD_SIZE": "16", "RANK": "9", "LOCAL_WORLD_SIZE": "8", "GROUP_RANK": "1"})
    assert (found.size, found.rank) == (2, 1)
    assert allocation({"WORLD_SIZE": "1", "RANK": "0", "MASTER_ADDR": "n1"}).nodes == ("n1",)


def test_slurm_is_believed_rather_than_a_launcher_within_it():
    assert allocation(BATCH | TORCH) == allocation(BATCH)


@pytest.mark.parametrize("environment", [{}, {"HOME": "/root", "SLURM_CONF": "/etc/slurm/slurm.conf", "RANK": "3"}])
def test_without_a_scheduler_there_is_one_node(environment):
    assert allocation(environment) == Allocation("none", "", (), 1, 0, None, None, None, None, None, 0, None, None)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"SLURM_JOB_ID": "12x"}, r"SLURM_JOB_ID must be a whole number of at least 1, but is '12x'; unset it"),
        ({"SLURM_NODEID": "3"}, r"must be below the number of nodes, 3, but is 3"),
        ({"SLURM_NODEID": "-1"}, r"SLURM_NODEID must be a whole number of at least 0, but is '-1'"),
        ({"SLURM_JOB_NUM_NODES": "2"}, r"SLURM_JOB_NUM_NODES must be the number of nodes in SLURM_JOB_NODELIST, 3"),
        ({"SLURM_MEM_PER_CPU": "1"}, r"only one of .* but SLURM_MEM_PER_NODE and SLURM_MEM_PER_CPU are"),
        ({"SLURM_MEM_PER_NODE": "lots"}, r"SLURM_MEM_PER_NODE must be a number of MiB, or such as 4G, but is 'lots'"),
        ({"SLURM_CPUS_ON_NODE": "0"}, r"SLURM_CPUS_ON_NODE must be a whole number of at least 1"),
        ({"SLURM_CPUS_ON_NODE": "", "SLURM_JOB_CPUS_PER_NODE": "72(x2)"}, r"the CPUs of 3 nodes"),
        ({"SLURM_CPUS_ON_NODE": "", "SLURM_JOB_CPUS_PER_NODE": "72x2"}, r"must be such as 2\(x3\),1"),
        ({"SLURM_JOB_GPUS": "3-1"}, r"SLURM_JOB_GPUS must count in rising ranges"),
        ({"SLURM_GPUS_PER_NODE": "a100:"}, r"SLURM_GPUS_PER_NODE must be such as 2 or a100:2"),
        ({"SLURM_ARRAY_TASK_ID": "1"}, r"SLURM_ARRAY_JOB_ID and SLURM_ARRAY_TASK_ID must both be set"),
        ({"SLURM_JOB_START_TIME": "20", "SLURM_JOB_END_TIME": "10"}, r"END_TIME must be after .*START_TIME, 20"),
    ],
)
def test_what_is_broken_or_contradicts_itself_is_named(told, message):
    with pytest.raises(AllocationError, match=message):
        allocation(BATCH | told)


@pytest.mark.parametrize("told", [{"RANK": "4"}, {"RANK": ""}, {"LOCAL_WORLD_SIZE": "3"}])
def test_a_launcher_that_contradicts_itself_is_named(told):
    with pytest.raises(AllocationError, match="must be above RANK and a multiple of LOCAL_WORLD_SIZE"):
        allocation(TORCH | told)


NAMES = sorted(
    {*BATCH, *STEP, *TORCH}
    | {"SLURM_GPUS_ON_NODE", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "SLURM_GPUS_PER_NODE", "CUDA_VISIBLE_DEVICES"}
    | {"SLURM_MEM_PER_CPU", "SLURM_MEM_PER_GPU", "SLURM_JOB_START_TIME", "SLURM_JOB_END_TIME", "SLURM_RESTART_COUNT"}
    | {"SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "LOCAL_WORLD_SIZE", "GROUP_RANK"}
)
ANY_TEXT = st.text() | st.text("0123456789-,[]()x:nKMG", max_size=30) | st.integers().map(str)


@settings(max_examples=300)
@given(st.sampled_from([{}, BATCH, STEP, TORCH]), st.dictionaries(st.sampled_from(NAMES), ANY_TEXT))
def test_any_text_in_any_variable_gives_a_value_or_an_error_of_ours(real, told):
    try:
        found = allocation(real | told)
    except AllocationError:
        return
    assert 0 <= found.rank < found.size
    assert len(found.nodes) in (0, found.size)
    assert all(count is None or count >= 0 for count in (found.cpus, found.gpus, found.memory_bytes, found.end))
