import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from graphcast_batch.cli import app
from graphcast_batch.cluster.slurm.submit import Job, check_shared, jobs, script, submit, time_seconds
from graphcast_batch.config.loading import load_config
from graphcast_batch.errors import ConfigError, SubmissionError
from graphcast_batch.setup.resources import memory_uses
from graphcast_batch.setup.run_setup import assemble

ROOT = Path(__file__).parents[2]
KINDS = ("ray", "array", "evaluate")
SINFO = "gpu|12|gpu:a100:4(S:0-1)|64\ngpu|2|gpu:h100:8,nvme:1|96\ncpu*|200|(null)|128\n"


def directives(text):
    return dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", text, re.MULTILINE))


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_of_slurm_are_what_the_program_writes(kind):
    assert (ROOT / "slurm" / f"{kind}.sbatch").read_text() == script(Job(kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("submitted", [False, True])
def test_bash_understands_every_script(kind, submitted):
    places = {"config": Path("/a b/it's.yaml"), "folder": Path("/s p/slurm"), "program": ("/x y/python", "-m", "z")}
    text = script(Job(kind, **places if submitted else {}))
    done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1)
NAMES = WORDS.filter(lambda text: "/" not in text and "\\" not in text and text not in (".", ".."))


def as_sbatch_reads(text):
    """Words of all #SBATCH lines, by the rules of Slurm's own parser (get_argument in its slurm_opt.c)."""
    for line in text.splitlines():
        if line.startswith("#SBATCH"):
            yield from words_of(line.removeprefix("#SBATCH"))


def words_of(line):
    place = 0
    while place < len(line):
        if line[place].isspace():
            place += 1
            continue
        assert line[place] != ":", "Slurm: Unexpected `:`"
        word, quote, escaped = "", "", False
        while place < len(line) and (quote or not line[place].isspace()):
            character = line[place]
            place += 1
            if not escaped and character == "\\":
                escaped = True
            elif not escaped and quote and character == quote:
                quote = ""
            elif not escaped and not quote and character in "\"'":
                quote = character
            elif not escaped and not quote and character == "#":
                place = len(line)
            else:
                word, escaped = word + character, False
        assert not quote, "Slurm: Unmatched quote"
        yield word


def as_bash_reads(text):
    """The config, folder and program that the script sets; the whole of it is held to be bash before."""
    checked = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    head = text.partition("# --- check that each node")[0] + 'printf \'%s\\0\' "$config" "$folder" "${program[@]}"'
    environment = {"SLURM_JOB_ID": "7", "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    return subprocess.run(["bash"], input=head, text=True, capture_output=True, check=True, env=environment).stdout


@settings(max_examples=40, deadline=None)
@given(NAMES, NAMES, WORDS, WORDS, WORDS, st.lists(WORDS))
def test_sbatch_and_bash_read_exactly_what_was_given(config, store, partition, account, program, more):
    folder, more = Path("/disk") / store / "slurm", ["-C", *more]
    flags = (("partition", partition), ("account", account), ("time", "2:00:00"))
    text = script(Job("array", Path("/c") / config, folder, (program, "-m", "x"), flags, tuple(more)))

    assert as_bash_reads(text).split("\0") == [f"/c/{config}", f"{folder}/7.0", program, "-m", "x", ""]
    words = list(as_sbatch_reads(text))
    assert words[-len(more) :] == more
    ours = dict(word.removeprefix("--").partition("=")[::2] for word in words[: -len(more)])
    assert (ours["partition"], ours["account"], ours["time"]) == (partition, account, "2:00:00")
    assert ours["output"].replace("%A_%a", "1_2").replace("%%", "%") == f"{folder}/1_2.out"
    assert len(ours) == 13


@pytest.mark.parametrize("bad", ["a\nb", "a\rb", "\x1b[2J", "a\x7f", "a\x85b", "a\u2028b", "a\udcffb", "a\0b", "a\tb"])
@pytest.mark.parametrize("where", ["config", "folder", "program", "flags", "more"])
def test_what_would_leave_its_line_is_refused(bad, where):
    places = {
        "config": Path(f"/{bad}"),
        "folder": Path(f"/{bad}"),
        "program": (bad,),
        "flags": (("partition", bad),),
        "more": ("-C", bad),
    }
    with pytest.raises(SubmissionError, match="must be text without line breaks and other control characters"):
        script(Job("ray", **{where: places[where]}))


def test_other_flags_stay_together_and_something_else_there_is_refused():
    assert "\n#SBATCH -C gpu --qos=high\n" in script(Job("ray", more=("-C", "gpu", "--qos=high")))
    with pytest.raises(SubmissionError, match=r"after -- flags of sbatch must follow, such as --qos=low, but 'gpu'"):
        script(Job("ray", more=("gpu",)))
    with pytest.raises(SubmissionError, match="must have no backslash in its path"):
        script(Job("ray", folder=Path("/a\\b")))


def test_flags_replace_ours_and_others_come_after_them():
    text = script(Job("ray", flags=(("nodes", "4"), ("exclusive", ""), ("time", "2-0")), more=("--qos=debug",)))
    found = directives(text)
    assert (found["nodes"], found["time"], found["exclusive"], found["qos"]) == ("4", "2-0", "", "debug")
    assert text.count("#SBATCH --nodes=") == 1
    assert text.index("--qos") > text.index("--output")


def test_an_odd_path_reaches_the_program_as_it_is(tmp_path):
    """The script runs with commands of Slurm that only tell how they were called."""
    config, folder = tmp_path / "it's $HOME.yaml", tmp_path / "a b"
    config.write_text("")
    fake(tmp_path / "bin", srun='echo "srun<$*>"; [[ $* == *check* ]] || exit 4', squeue="echo N/A")
    text = script(Job("ray", config, folder, ("/usr/bin/env",)))
    done = run_script(text, tmp_path)
    assert f"run {config}>" in done.stdout
    assert f"--folder {folder}/7.0" in done.stdout
    assert done.returncode == 4


def run_script(text, tmp_path, **variables):
    environment = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "HOME": str(tmp_path)}
    return subprocess.run(
        ["bash"], input=text, env=environment | variables, text=True, capture_output=True, check=False, timeout=60
    )


def fake(folder, **commands):
    """Commands that do what a line of bash says."""
    folder.mkdir(exist_ok=True)
    for name, body in commands.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)
    return folder


def test_the_nodes_are_asked_before_anything_is_started(tmp_path):
    (tmp_path / "x.yaml").write_text("")
    fake(tmp_path / "bin", srun='shift; exec env SLURM_NODEID=0 "$@"', squeue="echo N/A")
    for job, told in {
        Job(
            "ray", tmp_path / "none.yaml", tmp_path / "f", ("/usr/bin/env",)
        ): "the config .*none.yaml must be readable",
        Job("ray", tmp_path / "x.yaml", tmp_path / "f", ("/no/python",)): "/no/python must be on the PATH, but is not",
    }.items():
        done = run_script(script(job), tmp_path)
        assert done.returncode == 2
        assert re.search(told, done.stderr)


def test_work_that_is_left_goes_back_to_slurm(tmp_path):
    (tmp_path / "x.yaml").write_text("")
    said = tmp_path / "said"
    fake(
        tmp_path / "bin",
        srun=f"[[ $* == *check* ]] || {{ mkdir -p {tmp_path}/f/7.0; echo 75 > {tmp_path}/f/7.0/done; exit 1; }}",
        squeue="echo N/A",
        scontrol=f'echo "$*" > {said}',
        sleep="exit 0",
    )
    done = run_script(script(Job("ray", tmp_path / "x.yaml", tmp_path / "f", ("/usr/bin/env",))), tmp_path)
    assert done.returncode == 75  # what the command said, not srun
    assert said.read_text() == "requeue 7\n"
    assert not (tmp_path / "f" / "7.0").exists()


def test_a_job_that_is_warned_at_once_does_not_requeue_itself_for_ever(tmp_path):
    (tmp_path / "x.yaml").write_text("")
    fake(
        tmp_path / "bin",
        srun="[[ $* == *check* ]] || { kill -USR1 $PPID; sleep 0.5; exit 75; }",
        squeue="echo N/A",
        scontrol="echo requeued",
    )
    done = run_script(script(Job("ray", tmp_path / "x.yaml", tmp_path / "f", ("/usr/bin/env",))), tmp_path)
    assert done.returncode == 75
    assert "warned in its first minute" in done.stderr
    assert "requeued\n" not in done.stdout


@pytest.mark.parametrize(
    ("time", "seconds"),
    [("90", 5400), ("1:30", 90), ("1:30:00", 5400), ("2-12", 216000), ("2-12:30", 217800), ("1-0:0:1", 86401)],
)
def test_times_are_read_as_slurm_does(time, seconds):
    assert time_seconds(time) == seconds


@pytest.mark.parametrize("time", ["", "1h", "1:2:3:4", "-5", "1-", "٣"])
def test_other_times_are_refused(time):
    with pytest.raises(SubmissionError, match=r"--time must be like 90 \(minutes\)"):
        time_seconds(time)


@pytest.mark.parametrize(("time", "warning"), [("12:00:00", 300), ("20", 300), ("2", 30), ("UNLIMITED", 300)])
def test_a_short_job_is_warned_in_its_last_quarter(time, warning):
    assert directives(script(Job("ray", flags=(("time", time),))))["signal"] == f"B:USR1@{warning}"


@pytest.fixture
def at_slurm(tmp_path, monkeypatch):
    """Slurm's commands as they answer on a cluster."""
    (tmp_path / "sinfo.txt").write_text(SINFO)
    said = f"cat > {tmp_path}/script; echo '4711;cluster'"
    folder = fake(tmp_path / "bin", sinfo=f"cat {tmp_path}/sinfo.txt", sbatch=said)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return tmp_path


def job_with(folder, **flags):
    return Job("ray", Path("/c.yaml"), folder / "store/slurm", flags=tuple(flags.items()))


def test_what_is_submitted_is_kept(at_slurm):
    name = submit(job_with(at_slurm, nodes="2", partition="gpu"))
    assert name == "4711"
    kept = (at_slurm / "store/slurm/4711-ray.sbatch").read_text()
    assert kept == (at_slurm / "script").read_text() == script(job_with(at_slurm, nodes="2", partition="gpu"))


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"partition": "gup"}, r"--partition must be one of this cluster's, cpu, gpu, but is gup"),
        (
            {"partition": "gpu", "gpus-per-node": "9"},
            r"--gpus-per-node must be at most 8, .* partition gpu has, but is 9",
        ),
        ({"partition": "cpu", "gpus-per-node": "1"}, r"at most 0, .*a node of partition cpu has, but is 1"),
        ({"gpus-per-node": "a100:1"}, r"at most 0, .*a node of partition cpu has, but is 1"),
        (
            {"cpus-per-task": "200"},
            r"--cpus-per-node must be at most 128, .*a node of partition cpu has, but is 200",
        ),
        ({"partition": "gpu", "nodes": "15"}, r"--nodes must be at most 14, .*partition gpu has, but is 15"),
    ],
)
def test_what_the_cluster_has_not_is_refused_before_sbatch(at_slurm, flags, told):
    with pytest.raises(SubmissionError, match=told):
        submit(job_with(at_slurm, **flags))
    assert not (at_slurm / "script").exists()


def test_what_sbatch_says_is_passed_on(at_slurm):
    fake(at_slurm / "bin", sbatch="echo 'Invalid account or account/partition combination' >&2; exit 1")
    with pytest.raises(SubmissionError, match=r"sbatch has refused the job: Invalid account .*--dry-run"):
        submit(job_with(at_slurm))


def test_without_sbatch_it_says_where_to_submit(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SubmissionError, match=r"sbatch must be on the PATH .* from a login node"):
        submit(job_with(tmp_path))


def test_a_store_in_memory_is_refused(tmp_path):
    with pytest.raises(SubmissionError, match=r"/dev/shm/.* is in this machine's memory \(tmpfs at /dev/shm\)"):
        check_shared(Path("/dev/shm/not-there/store"))
    check_shared(tmp_path)


def test_states_come_from_squeue_and_of_old_jobs_from_sacct(at_slurm):
    for name in ("12-ray", "5-array", "30-evaluate"):
        (at_slurm / "slurm").mkdir(exist_ok=True)
        (at_slurm / "slurm" / f"{name}.sbatch").write_text("")
    (at_slurm / "slurm" / "5_2.out").write_text("")
    fake(
        at_slurm / "bin",
        squeue='[[ $* == *jobs=12* ]] && echo "N/A|RUNNING|n[1-4]" && exit; exit 1',
        sacct='[[ $* == *jobs=5,30* ]] && echo "5_1|COMPLETED" && echo "5_2|FAILED" && echo "5_3|COMPLETED"',
    )
    found = [(job.job, job.kind, job.state) for job in jobs(at_slurm)]
    states = ["2 COMPLETED, 1 FAILED", "RUNNING n[1-4]", ""]
    assert found == list(zip(("5", "12", "30"), ("array", "ray", "evaluate"), states, strict=True))


def test_a_job_is_told_of_where_there_is_no_slurm(tmp_path, monkeypatch):
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "12-ray.sbatch").write_text("")
    monkeypatch.setenv("PATH", str(tmp_path))
    result = CliRunner().invoke(app, ["status", str(tmp_path)])
    assert (result.exit_code, result.stdout) == (
        0,
        "job 12 (ray): not known to Slurm here\nthe store is not laid out yet\n",
    )


def test_the_command_prints_the_script_and_submits_nothing(at_slurm, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text((ROOT / "configs/demo.yaml").read_text().replace("runs/demo", str(tmp_path / "store")))
    shown = ["submit", str(config), "--nodes", "2", "--gpus-per-node", "4", "--account", "me"]
    result = CliRunner().invoke(app, [*shown, "--dry-run", "--", "--qos=high"])
    assert result.exit_code == 0, result.output
    found = directives(result.stdout)
    assert (found["nodes"], found["gpus-per-node"], found["account"], found["qos"]) == ("2", "4", "me", "high")
    assert found["chdir"] == os.getcwd()
    assert not (at_slurm / "script").exists()


def asked_memory(tmp_path, *flags, **workers):
    content = yaml.safe_load((ROOT / "configs/demo.yaml").read_text())
    content |= {"store": str(tmp_path / "store"), "workers": {"device": "auto", "threads": 2} | workers}
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(content))
    result = CliRunner().invoke(app, ["submit", str(config), *flags])
    assert result.exit_code == 0, result.output
    uses = {on_gpu: memory_uses(assemble(load_config(config)), accelerated=on_gpu)[0] for on_gpu in (False, True)}
    return directives(result.stdout), {on_gpu: use.host_bytes / 0.8 / 2**20 for on_gpu, use in uses.items()}


@pytest.mark.parametrize(
    ("flags", "count", "on_node", "on_gpu"),
    [
        (["--cpus-per-node", "8"], None, 4, False),
        (["--cpus-per-node", "8", "--nodes", "2"], 3, 2, False),
        (["--cpus-per-node", "64"], None, 4, False),  # there are 4 Cases
        (["--gpus-per-node", "3"], None, 3, True),
        (["--gpus-per-node", "4"], 2, 2, True),
    ],
)
def test_a_job_asks_for_the_memory_of_the_workers_of_a_node(tmp_path, flags, count, on_node, on_gpu):
    found, each = asked_memory(tmp_path, *flags, "--dry-run", **({"count": count} if count else {}))

    assert int(found["mem"].removesuffix("M")) == pytest.approx(on_node * each[on_gpu] + 2048, abs=1)


@pytest.mark.parametrize("flag", ["--mem-per-cpu=2000", "--exclusive"])
def test_memory_that_the_user_asks_for_is_left_as_it_is(tmp_path, flag):
    found, _ = asked_memory(tmp_path, "--dry-run", "--", flag)

    name, _, value = flag.removeprefix("--").partition("=")
    assert {key: text for key, text in found.items() if key.startswith(("mem", "excl"))} == {name: value}


@pytest.mark.parametrize(("device", "gpus"), [("gpu", 0), ("cpu", 2)])
def test_gpus_that_nobody_would_use_or_that_would_be_missed_are_told_of(at_slurm, tmp_path, device, gpus):
    config = tmp_path / "run.yaml"
    config.write_text((ROOT / "configs/demo.yaml").read_text().replace("device: auto", f"device: {device}"))
    result = CliRunner().invoke(app, ["submit", str(config), "--gpus-per-node", str(gpus), "--dry-run"])
    assert isinstance(result.exception, ConfigError)
    assert f"must go together, but are {device} and {gpus}" in str(result.exception)


def test_the_command_chains_the_evaluation(at_slurm, tmp_path):
    config = tmp_path / "run.yaml"
    text = (ROOT / "configs/demo.yaml").read_text().replace("runs/demo", str(tmp_path / "store"))
    config.write_text(text)
    result = CliRunner().invoke(app, ["submit", str(config), "--nodes", "3", "--partition", "gpu", "--evaluate-after"])
    assert result.exit_code == 0, result.output
    assert "job 4711: evaluates once 4711 has ended" in result.stdout
    found = directives((at_slurm / "script").read_text())
    assert (found["dependency"], found["nodes"], found["partition"]) == ("afterany:4711", "1", "gpu")
    assert " evaluate " in (at_slurm / "script").read_text()
