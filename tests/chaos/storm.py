"""A seed becomes a schedule of faults, and a run from an empty store to a whole one on which they are let loose.

The schedule is the same for the same seed: what happens, after how many whole Cases, and to which of those that it
can happen to. How far each process is at that moment is not.
"""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml
from ray.cluster_utils import Cluster

from graphcast_batch.cluster.dispatch_rules import IN_FLIGHT
from graphcast_batch.integrity.repair import repair
from graphcast_batch.integrity.verify import verify
from graphcast_batch.stores.store_kinds import open_store
from tests.chaos.driving import Trouble
from tests.conftest import ROOT, SMALL

CASES, STEPS, WORKERS = 60, 2, 3
LEASE_SECONDS, BEAT_SECONDS, READ_SECONDS = 4.0, 0.5, 0.3
STUCK_SECONDS = 240
DISK_BYTES = 2**26
TINY = SMALL | {
    "inputs": {"kind": "synthetic", "resolution": 30},
    "steps": STEPS,
    "model": SMALL["model"]
    | {
        "weights": {
            "kind": "random",
            "architecture": {"mesh_size": 0, "latent_size": 4, "gnn_msg_steps": 1},
            "task": "GraphCast_small",
        }
    },
    "retries": 3,
}
FAULTS = (
    "worker killed",
    "workers killed",
    "worker paused",
    "worker frozen",
    "driver killed",
    "driver paused",
    "driver added",
    "driver told SIGTERM",
    "driver told SIGUSR1",
    "driver told SIGINT",
    "node lost",
    "disk full",
    "file torn",
    "file flipped",
    "file removed",
    "read error",
    "read hang",
    "read death",
)
OF_READS = {kind: kind.split()[1] for kind in FAULTS if kind.startswith("read ")}


@dataclass(frozen=True)
class Fault:
    """What goes wrong, after so many whole Cases."""

    after: int
    kind: str


def schedule(seed, count):
    """Faults of a round, in the order in which they strike; any few rounds in a row have all kinds."""
    draw = random.Random(seed)
    kinds = list(FAULTS)
    random.Random(seed // 2).shuffle(kinds)
    half = kinds[: len(kinds) // 2] if seed % 2 else kinds[len(kinds) // 2 :]
    chosen = [*half, *draw.choices(FAULTS, k=max(0, count - len(half)))][:count]
    draw.shuffle(chosen)
    moments = sorted(draw.choices(range(1, CASES - 8), k=count))
    return [Fault(after, kind) for after, kind in zip(moments, chosen, strict=True)]


@contextmanager
def nodes(cache):
    """A head without cores and two nodes, all of them on this machine.

    Args:
        cache: folder for compiled programs, so that a new worker is ready sooner.
    """
    os.environ |= {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False} | _SMALL_STORE)
    try:
        for _ in range(2):
            add_node(cluster)
        yield cluster
    finally:
        cluster.shutdown()


_SMALL_STORE = {"object_store_memory": 10**8}


def add_node(cluster):
    """One node more."""
    return cluster.add_node(num_cpus=2, **_SMALL_STORE)


def workers(cluster, node=None):
    """Process numbers of the live workers on the nodes of a cluster, or on one of them."""
    raylets = {str(_raylet(each)) for each in ([node] if node else cluster.list_all_nodes())}
    found = []
    for process in Path("/proc").iterdir():
        with suppress(OSError, IndexError):
            if process.name.isdecimal() and (process / "cmdline").read_bytes().startswith(b"ray::Actor"):
                state, parent = (process / "stat").read_text().rpartition(")")[2].split()[:2]
                if parent in raylets and state != "Z":
                    found.append(int(process.name))
    return sorted(found)


def _raylet(node):
    return node.all_processes["raylet"][0].process.pid


@contextmanager
def small_disk(folder):
    """A file system of its own that can be filled; where it cannot be mounted, a folder."""
    folder.mkdir()
    mounted = (
        shutil.which("mount")
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", folder], capture_output=True, check=False
        ).returncode
    )
    try:
        yield bool(mounted)
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", folder], check=True)


def begin(cluster, config, trouble, output):
    """A driver in a process of its own."""
    with output.open("a") as told:
        words = [sys.executable, "-m", "tests.chaos.driving", trouble, "run", config, "--address", cluster.address]
        return subprocess.Popen(words, stdout=told, stderr=told, cwd=ROOT)


def write_run(
    folder,
    name,
    store,
    read_seconds=READ_SECONDS,
    wrong=(),
    cases=CASES,
    count=WORKERS,
    read_limit=10.0,
    members=0,
    **changes,
):
    """Config and trouble of a run: their files, and the trouble itself."""
    last = np.datetime64("2020-01-01T00") + 6 * (cases // (members or 1) - 1)
    if members:
        states = {"kind": "gaussian", "members": members, "amplitude": 0.1}
        changes = {"ensemble": {"perturbations": states}, "outputs": {"ensemble": ["mean", 0.25]}} | changes
    times = {"first": "2020-01-01T00", "last": str(last), "every_hours": 6}
    config, kept = folder / f"{name}.yaml", folder / f"{name}.tries"
    kept.mkdir()
    pool = {"device": "cpu", "threads": 1} | ({"count": count} if count else {})
    limits = {"read": read_limit, "compute": 30.0, "write": 30.0}
    own = {"store": str(store), "times": times, "workers": pool, "time_limits": limits}
    config.write_text(yaml.safe_dump(TINY | own | changes))
    trouble = Trouble(str(kept), read_seconds, LEASE_SECONDS, BEAT_SECONDS, dict(wrong))
    trouble.write(folder / f"{name}.json")
    return config, folder / f"{name}.json", trouble


def contents(store):
    """Every file of the forecasts with its content, chunks and metadata; the latter name the path of the store."""
    apart = ("ledger", ".staging", "log", "run.yaml")
    paths = [path for path in store.rglob("*") if path.is_file() and not {*path.relative_to(store).parts} & {*apart}]
    return {str(path.relative_to(store)): path.read_bytes().replace(bytes(store), b"store") for path in paths}


def wait(seconds, until):
    """Waits until something holds, or so long."""
    deadline = time.monotonic() + seconds
    while not until() and time.monotonic() < deadline:
        time.sleep(0.05)


@dataclass
class Round:
    """What was done to a run, and what it cost.

    Attributes:
        seed: of the schedule.
        faults: that struck, by kind.
        cases: that the run has.
        reads: that it took, with those that were made to go wrong.
        again: Cases begun once more through no damage to what was whole.
        most: that this may be: all that was in flight wherever something was stopped.
        damaged: whole Cases that were spoilt, found and made again.
        exits: of drivers, by their code.
        stale: files that writers left which died half-way; removed after a day.
        losses: Cases not whole, recorded twice, or not bit-identical.
        seconds: that it took.
    """

    seed: int
    faults: Counter = field(default_factory=Counter)
    cases: int = CASES
    reads: int = 0
    again: int = 0
    most: int = 0
    damaged: int = 0
    exits: Counter = field(default_factory=Counter)
    stale: int = 0
    losses: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Storm:
    """One run from an empty store to a whole one, under faults.

    Args:
        cluster: from `nodes`; has as many nodes afterwards.
        folder: for what the run needs besides the store.
        store: where it is to be.
        mounted: whether the store has a file system of its own.
        seed: of the schedule.
        count: how many faults.
        members: of each initial time; 0 without an ensemble. There are as many Cases in any event.
    """

    def __init__(self, cluster, folder, store, mounted, seed, count, members=0):
        self._cluster, self._store, self._mounted = cluster, store, mounted
        self._draw = random.Random(seed)
        self._faults = schedule(seed, count)
        self.round = Round(seed)
        starts = [_key(index) for index in range(CASES // (members or 1))]
        self._keys = [f"{key}-m{number:03d}" for key in starts for number in range(members)] or starts
        in_reads = [fault for fault in self._faults if fault.kind in OF_READS]
        keys = self._draw.sample(starts, len(in_reads))  # what members start from is read for all of them
        wrong = {key: OF_READS[fault.kind] for key, fault in zip(keys, in_reads, strict=True)}
        name = f"round-{seed}"
        self._config, self._trouble_file, self._trouble = write_run(folder, name, store, wrong=wrong, members=members)
        self._output = folder / f"{name}.log"
        self._drivers, self._asked, self._frozen = [], [], []
        self._damaged, self._known, self._repaired = set(), {}, set()

    @property
    def told(self):
        """What the drivers printed."""
        return self._output.read_text()

    def blow(self):
        """Lets the faults loose; returns when all is whole."""
        started = time.monotonic()
        try:
            for fault in self._faults:
                if fault.kind not in OF_READS:
                    self._strike(fault)
            self._mend()
        finally:
            for process in self._drivers:
                process.kill()
                process.wait()
        self.round.seconds = round(time.monotonic() - started, 1)
        for kind, how in OF_READS.items():
            fired = self._trouble.fired(how)
            self.round.faults[kind] += fired
            self.round.most += fired * (1 if how == "error" else IN_FLIGHT)
        return self.round

    def check(self, undisturbed):
        """Compares what is there with what must be."""
        found, losses = self.round, self.round.losses
        stores = [self._store, *self._store.glob("ensemble")]
        left = [path for each in stores for path in (*each.glob("ledger/*.claim"), *(each / ".staging").iterdir())]
        stale = [path for path in self._store.rglob(".*") if path.suffix in (".tmp", ".aside", ".partial")]
        found.stale = len(stale)
        for path in stale:
            os.utime(path, (0, 0))
        for each in stores:
            open_store(each).sweep()
        losses += [f"left behind: {path}" for path in [*left, *(path for path in stale if path.exists())]]
        records = Counter(path.stem for path in self._store.glob("ledger/steps-*/*.json"))
        losses += [f"{key}: {records[key]} records" for key in self._keys if records[key] != 1]
        ours, theirs = contents(self._store), contents(undisturbed)
        losses += [f"differs: {name}" for name in sorted(ours.keys() | theirs) if ours.get(name) != theirs.get(name)]
        words = [sys.executable, "-m", "graphcast_batch", "status", self._store]
        status = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT).stdout.splitlines()[0]
        if status != f"{CASES} complete, 0 running, 0 failed, 0 missing":
            losses.append(status)
        combined = Counter(path.stem for path in self._store.glob("ensemble/ledger/steps-*/*.json"))
        starts = {key.partition("-m")[0] for key in self._keys if "-m" in key}
        losses += [f"{key}: {combined[key]} records of its ensemble" for key in starts if combined[key] != 1]
        found.reads = len(self._trouble.tries)
        found.damaged = len(self._damaged)
        found.again = found.reads - CASES - found.damaged
        return found

    def _strike(self, fault):
        self._until(fault.after)
        if not self._drivers or not (there := workers(self._cluster)):
            return  # all is whole: there is nothing to strike
        with self._output.open("a") as told:
            told.write(f"--- {time.strftime('%X')} {fault.kind} after {len(self._complete())}\n")
        subject, verb, *signals = fault.kind.split()
        most = getattr(self, f"_{subject}_{verb}")(there, *signals)
        self.round.most += IN_FLIGHT * most
        self.round.faults[fault.kind] += 1

    # Waiting

    def _complete(self):
        """Keys of the whole Cases; a record that was written anew is a loss."""
        records = {}
        for path in self._store.glob("ledger/steps-*/*.json"):
            with suppress(FileNotFoundError):
                entry = path.stat()
                records[path.stem] = (entry.st_ino, entry.st_mtime_ns)
        changed = [key for key in self._known.keys() - self._repaired if records.get(key) != self._known[key]]
        self.round.losses += [f"{key}: its record changed" for key in changed]
        self._known = records
        self._repaired -= records.keys()
        return records.keys()

    def _until(self, count):
        """Keeps a driver going until so many Cases are whole and one is under way."""
        deadline = time.monotonic() + STUCK_SECONDS
        while not self._ended(count):
            self._reap()
            if not self._drivers:
                self._drivers.append(begin(self._cluster, self._config, self._trouble_file, self._output))
            if time.monotonic() > deadline:
                raise AssertionError(f"stuck at {len(self._complete())} Cases:\n{self.told}")
            time.sleep(0.05)

    def _ended(self, count):
        complete = len(self._complete())
        return complete == CASES or (complete >= count and self._drivers and workers(self._cluster))

    def _reap(self):
        for process in [process for process in self._drivers if process.poll() is not None]:
            self._drivers.remove(process)
            self.round.exits[str(process.returncode)] += 1
            if process.returncode == 3:  # set aside: someone looks, and frees it
                self._command("retry-failed", self._store)

    def _command(self, *arguments):
        words = [sys.executable, "-m", "graphcast_batch", *map(str, arguments)]
        with self._output.open("a") as told:
            subprocess.run(words, stdout=told, stderr=told, cwd=ROOT, check=True)

    def _mend(self):
        """Makes all whole, has the store verified and repaired, and the damaged Cases made again."""
        while True:
            self._until(CASES)
            self._drain()
            found = verify(self._store, deep=True)
            keys = {flaw.key for flaw in found.flaws if not flaw.harmless}
            if not keys:
                break
            self.round.losses += [f"{key}: damaged by nobody" for key in keys - self._damaged]
            self._repaired |= keys
            kept = keys - set(repair(self._store, found.flaws).forgotten)
            self.round.losses += [f"{key}: not repaired" for key in kept]
        for pid in self._frozen:
            _send(pid, signal.SIGCONT)
        wait(60, lambda: not workers(self._cluster))
        self._drivers.append(begin(self._cluster, self._config, self._trouble_file, self._output))
        self._drain()  # of a run with nothing to do but to sweep

    def _drain(self):
        for process in self._drivers:
            process.wait(STUCK_SECONDS)
        self._reap()

    # Faults: each gets the workers that there are, and returns how many of them may lose what they have in flight.

    def _worker_killed(self, there):
        _send(self._draw.choice(there), signal.SIGKILL)
        return 1

    def _workers_killed(self, there):
        struck = self._draw.sample(there, min(self._draw.choice([2, 3]), len(there)))
        for pid in struck:
            _send(pid, signal.SIGKILL)
        return len(struck)

    def _worker_paused(self, there):
        pid = self._draw.choice(there)
        _send(pid, signal.SIGSTOP)
        time.sleep(LEASE_SECONDS + 2)
        _send(pid, signal.SIGCONT)
        return 1

    def _worker_frozen(self, there):
        """For good, if it is given up; else until all is whole."""
        self._frozen.append(self._draw.choice(there))
        _send(self._frozen[-1], signal.SIGSTOP)
        return 1

    def _driver_killed(self, there):
        self._drivers[0].kill()
        return len(there)

    def _driver_paused(self, there):
        """Until another driver, that is started now, has made a Case."""
        paused = self._drivers[0]
        paused.send_signal(signal.SIGSTOP)
        self._driver_added(there)
        other, before = self._drivers[-1], self._complete()
        wait(60, lambda: other.poll() is not None or len(self._complete()) > len(before) + WORKERS * IN_FLIGHT)
        paused.send_signal(signal.SIGCONT)
        return len(there)

    def _driver_added(self, _there):
        self._drivers.append(begin(self._cluster, self._config, self._trouble_file, self._output))
        return 0

    def _driver_told(self, there, name):
        self._drivers[0].send_signal(signal.Signals[name])
        first = self._drivers[0] not in self._asked
        self._asked.append(self._drivers[0])
        return 0 if first else len(there)  # the second signal interrupts

    def _node_lost(self, _there):
        node = self._draw.choice(sorted(self._cluster.worker_nodes, key=_raylet))
        struck = workers(self._cluster, node)
        self._cluster.remove_node(node, allow_graceful=False)
        add_node(self._cluster)
        return len(struck)

    def _disk_full(self, there):
        if self._mounted:
            filler = self._store.parent / "filler"
            with suppress(OSError), filler.open("wb", buffering=0) as file:
                while file.write(bytes(2**12)):
                    pass
            wait(20, lambda: self._drivers[0].poll() is not None)
            filler.unlink()
        else:
            for pid in there:
                with suppress(ProcessLookupError):
                    resource.prlimit(pid, resource.RLIMIT_FSIZE, (512, 512))
        return len(there)

    def _file_torn(self, _there):
        path = self._file()
        os.truncate(path, path.stat().st_size // 2)
        return 0

    def _file_flipped(self, _there):
        path = self._file()
        content = bytearray(path.read_bytes())
        content[self._draw.randrange(len(content))] ^= 1 << self._draw.randrange(8)
        path.write_bytes(content)
        return 0

    def _file_removed(self, _there):
        self._file().unlink()
        return 0

    def _file(self):
        """One of a whole Case."""
        key = self._draw.choice(sorted(self._complete() - self._damaged))
        self._damaged.add(key)
        return self._store / self._draw.choice(sorted(open_store(self._store).ledger.record(key).files))


def _key(index):
    return str(np.datetime64("2020-01-01T00") + 6 * index)


def _send(pid, number):
    with suppress(ProcessLookupError):
        os.kill(pid, number)
