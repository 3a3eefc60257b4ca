"""A real Slurm for the session, a run that nobody disturbed, and a table of what came of those that were."""

import hashlib
import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import yaml

from graphcast_batch.stores.store_kinds import open_store
from tests.slurm.testbed import Testbed, cluster

ROOT = Path(__file__).parents[2]
_HOURS = 6
_TABLE = pytest.StashKey[list[tuple[str, ...]]]()


def pytest_configure(config):
    config.stash[_TABLE] = []


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash[_TABLE]
    if rows:
        head = ("scenario", "Cases", "on n1, n2", "starts", "in flight when killed", "made twice", "lost", "wall, s")
        terminalreporter.section("runs on Slurm")
        for row in (head, *rows):
            terminalreporter.line(" | ".join(row))


@dataclass
class Submitted:
    """A run that was handed to Slurm by the command."""

    bed: Testbed
    folder: Path
    cases: int
    heavy: bool
    members: int
    name: str
    jobs: list[str] = field(default_factory=list)
    in_flight: int = 0
    begun: float = field(default_factory=time.monotonic)

    @property
    def config(self):
        return self.folder / "run.yaml"

    @property
    def store(self):
        return self.folder / "store"

    def submit(self, *flags, config=None):
        told = self.bed.call("graphcast-batch", "submit", str(config or self.config), *flags)
        self.jobs += re.findall(r"^job (\d+):", told, re.MULTILINE)
        return told

    @property
    def job(self):
        return self.jobs[-1]

    @property
    def told(self):
        """What all jobs have printed."""
        return "".join(path.read_text() for path in sorted(self.store.glob("slurm/*.out")))[-9000:]

    def complete(self):
        return sorted(path.stem for path in self.store.glob("ledger/steps-*/*.json"))

    def leases(self):
        return sorted(path.stem for path in self.store.glob("ledger/*.claim"))

    def change(self, **sections):
        """Puts other sections into the config."""
        self.config.write_text(yaml.safe_dump(yaml.safe_load(self.config.read_text()) | sections))

    def until_made(self, count):
        """Waits until so many Cases are whole while others are under way."""
        self.bed.until(lambda: len(self.complete()) >= count or self._failed())
        assert len(self.complete()) < self.cases, "it was to be disturbed, but is done"

    def until_done(self, state="COMPLETED", seconds=240.0):
        self.bed.until_state(self.job, state, "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", seconds=seconds)
        assert self.bed.job(self.job)["JobState"] == state, self.told

    def finished(self):
        """Keys of Cases in the order in which drivers said that they became whole, which is twice for repeated work."""
        lines = [line for log in self.store.glob("log/*.jsonl") for line in log.read_text().splitlines()]
        return [line["case"] for line in map(json.loads, lines) if line["event"] == "finished"]

    def hosts(self):
        ledger = open_store(self.store).ledger
        hosts = [ledger.record(key).worker.split(":")[0] for key in self.complete()]
        return tuple(hosts.count(node) for node in self.bed.nodes)

    def _failed(self):
        if self.bed.job(self.job)["JobState"] in ("FAILED", "TIMEOUT", "COMPLETED"):
            raise AssertionError(f"it ended too early:\n{self.told}")


def digest(store):
    """Of every file that holds a forecast, statistics of members, their coordinates or metadata."""
    apart = ("ledger", "log", "slurm", "scores", "ensemble")
    found = [*store.glob("[!.]*/*"), *store.glob("ensemble/[!.]*/*")]
    files = [path for path in found if path.parent.name not in apart]
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()
    }


def write_config(folder, cases, heavy, members=0):
    """Of so many Cases, which are the members of fewer initial times if there are members."""
    config = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text())
    del config["figures"]
    last = str(np.datetime64("2020-01-01T00", "h") + (cases // (members or 1) - 1) * _HOURS)
    config |= {
        "store": str(folder / "store"),
        "times": {"first": "2020-01-01T00", "last": last, "every_hours": _HOURS},
        "steps": 24,
        "limits": "off",  # which random weights leave
        "model": {
            "weights": {
                "kind": "random",
                "architecture": {
                    "mesh_size": 3,
                    "latent_size": 128 if heavy else 32,
                    "gnn_msg_steps": 16 if heavy else 4,
                },
                "task": "GraphCast_small",
            },
            "statistics": str(ROOT / "stats" / "synthetic"),
            "steps_per_call": 4,
        },
        "workers": {"device": "cpu", "threads": 1},
        "cache": str(folder.parent / "cache"),
    }
    if members:
        config["ensemble"] = {"perturbations": {"kind": "gaussian", "members": members, "amplitude": 0.1}}
        config["outputs"] = {"ensemble": ["mean", "standard_deviation"]}
    folder.mkdir(exist_ok=True)
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    return folder / "run.yaml"


@pytest.fixture(scope="session")
def bed():
    with cluster(2) as bed:
        yield bed


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="session")
def undisturbed(bed, shared):
    """Digests of stores of so many Cases, made without Slurm."""
    made = {}

    def of(*sizes):
        if sizes not in made:
            folder = shared / f"undisturbed{'-'.join(map(str, sizes))}"
            bed.call("graphcast-batch", "run", str(write_config(folder, *sizes)))
            made[sizes] = digest(folder / "store")
        return made[sizes]

    return of


@pytest.fixture
def begin(bed, shared, request):
    """Begins a run on Slurm; once the test has ended, no job is left."""

    def begin(cases, *flags, submit=True, beside=False, heavy=False, members=0):
        # A path with blanks, as some people like.
        folder = shared / (re.sub(r"[\W_]+", " ", request.node.name).strip() + " beside" * beside)
        write_config(folder, cases, heavy, members)
        run = Submitted(bed, folder, cases, heavy, members, request.node.name.removeprefix("test_").replace("_", " "))
        if submit:
            run.submit("--cpus-per-node", "2", "--time", "10", *flags, "--", "--mem=3000")
        return run

    yield begin
    bed.heal()
    bed.call("scancel", "--user=root")
    bed.until(lambda: not bed.call("squeue", "-h"))
    bed.until_idle()


@pytest.fixture
def is_as_undisturbed(undisturbed, request):
    """Asserts that a run has made all Cases, none twice, bit for bit, and puts it into the table."""

    def check(run):
        assert len(run.complete()) == run.cases
        finished = run.finished()
        assert len(set(finished)) == len(finished), "a Case was made twice"
        # A worker may have committed a Case that its driver was killed before noting.
        assert len(set(run.complete()) ^ set(finished)) <= run.in_flight
        assert digest(run.store) == undisturbed(run.cases, run.heavy, run.members)
        assert not run.leases()
        status = run.bed.call("graphcast-batch", "status", str(run.store))
        assert f"{run.cases} complete, 0 running, 0 failed, 0 missing" in status
        starts = sum(1 + int(run.bed.job(job).get("Restarts", 0)) for job in run.jobs)
        hosts = ", ".join(map(str, run.hosts()))
        twice, wall = len(finished) - len(set(finished)), time.monotonic() - run.begun
        counts = (run.cases, hosts, starts, run.in_flight, twice, run.cases - len(run.complete()), f"{wall:.0f}")
        request.config.stash[_TABLE].append((run.name, *map(str, counts)))
        print(status)

    return check
