"""Debian's Slurm packages become a cluster on one machine: each node with its own network, name, processes and disk.

Needs root, and the packages slurm-wlm, munge and iproute2. Nothing outside one folder is touched, but for network
devices that are named after it.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "ip", "unshare", "setpriv")
GPUS = 2
"""Of each node; they are not there, but Slurm deals them out."""
_NET = "10.99.77"
_PREFIX = "gbs-"
_CONFIG = """
ClusterName=testbed
SlurmctldHost={host}({net}.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket
CryptoType=crypto/munge
SlurmctldPort=6817
SlurmdPort=6818
SrunPortRange=60001-60999
SlurmctldPidFile={root}/ctl.pid
SlurmdPidFile={root}/%n.pid
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldLogFile={root}/ctl.log
SlurmdLogFile={root}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TaskProlog={root}/task-prolog
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
SlurmdTimeout=6
KillWait=5
MinJobAge=3600
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
NodeName=n[1-{nodes}] NodeAddr={net}.[11-{last}] CPUs={cpus} RealMemory={memory} Gres=gpu:{gpus} State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE GraceTime=25
PartitionName=high Nodes=ALL MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
"""
_NODE = """
hostname {name}
ip link set lo up
mount --bind {root}/hosts /etc/hosts
mount -t tmpfs -o size=2g tmpfs /dev/shm
mount -t tmpfs -o size=2g tmpfs {root}/local
slurmd -N {name}
while :; do sleep 1000 & wait $!; done
"""


class Testbed:
    """A Slurm cluster under one folder, until `stop`."""

    __test__ = False

    def __init__(self, root: Path, nodes: int = 2, cpus: int = 2, memory: int = 8000) -> None:
        self.root = root
        self.nodes = tuple(f"n{index}" for index in range(1, nodes + 1))
        self._cpus, self._memory = cpus, memory
        self._shells: dict[str, subprocess.Popen[bytes]] = {}
        self._started = list[subprocess.Popen[bytes]]()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_", "RAY_"))},
            "SLURM_CONF": str(root / "slurm.conf"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin",
        }

    def start(self) -> None:
        """Brings it up, and waits until all nodes are idle."""
        missing = [program for program in PROGRAMS if not shutil.which(program, path=self.environment["PATH"])]
        if missing or os.getuid() != 0:
            raise RuntimeError(
                f"a Slurm for tests needs root and the programs {', '.join(PROGRAMS)}; missing: {missing}, user "
                f"{os.getuid()}; on Debian: apt-get install slurm-wlm munge iproute2"
            )
        _kill_left_over()
        self._remove_network()
        self._write()
        self._munge()
        self._bridge()
        self._started.append(self._spawn(["slurmctld", "-D"]))
        for name in self.nodes:
            self.revive(name)
        self.until_idle()

    def stop(self) -> None:
        """Ends all of its processes, and removes its network."""
        for name in list(self._shells):
            self.kill_node(name)
        for process in reversed(self._started):
            process.kill()
            process.wait()
        self._remove_network()

    def revive(self, name: str) -> None:
        """Starts a node that is not running."""
        shell = _NODE.format(name=name, root=self.root)
        command = ["ip", "netns", "exec", f"gb-{name}", "unshare", "--uts", "--mount", "--pid", "--ipc", "--fork"]
        command += ["--mount-proc", "--kill-child", "bash", "-c", shell]
        self._shells[name] = self._spawn(command)

    def kill_node(self, name: str) -> None:
        """A node goes down at once, with all that ran on it."""
        shell = self._shells.pop(name)
        os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()

    def kill_slurmd(self, name: str) -> None:
        """Only Slurm's daemon on a node dies; what it had started goes on."""
        for pid in _pids(rf"^slurmd -N {name}$"):
            os.kill(pid, signal.SIGKILL)

    def heal(self) -> None:
        """Starts those nodes again that are down, wholly or with Slurm's daemon alone."""
        for name in self.nodes:
            if not _pids(rf"^slurmd -N {name}$"):
                if name in self._shells:
                    self.kill_node(name)
                self.revive(name)

    def until_idle(self) -> None:
        """Waits until every node can take jobs."""
        self.until(lambda: self.call("sinfo", "-h", "-o", "%D %t").split() == [str(len(self.nodes)), "idle"])

    def call(self, *command: str, environment: Mapping[str, str] | None = None, **options: object) -> str:
        """What a command prints; an error tells all that it printed."""
        done = subprocess.run(
            command,
            env={**self.environment, **(environment or {})},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=300,
            **options,  # type: ignore[call-overload]
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stdout}")
        return str(done.stdout)

    def job(self, job: str) -> dict[str, str]:
        """What Slurm knows of a job."""
        text = self.call("scontrol", "--oneliner", "show", "job", job).splitlines()[0]
        return dict(re.findall(r"(\S+?)=(\S*)", text))

    def until(self, condition, seconds: float = 180.0) -> None:
        """Waits for something."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if condition():
                    return
                problem = ""
            except RuntimeError as error:
                problem = str(error)
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited for {seconds} s. {problem}\n{self.state()}")
            time.sleep(0.3)

    def until_state(self, job: str, *states: str, seconds: float = 180.0) -> None:
        """Waits until a job is in one of the states; one that Slurm holds back after a requeue is let go at once."""

        def reached() -> bool:
            found = self.job(job)
            if found["JobState"] == "PENDING" and found["Reason"] == "BeginTime" and "PENDING" not in states:
                time.sleep(3)  # sooner, and its credential counts as revoked
                self.call("scontrol", "update", f"jobid={job}", "StartTime=now")
            return found["JobState"] in states

        self.until(reached, seconds)

    def state(self) -> str:
        """All that Slurm knows, for a message."""
        return self.call("sinfo", "-N") + self.call("squeue", "-a", "-t", "all")

    def _write(self) -> None:
        for folder in ("state", "spool", "local", "munge"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        count = len(self.nodes)
        host = os.uname().nodename
        values = {"root": self.root, "net": _NET, "host": host, "nodes": count, "last": 10 + count, "gpus": GPUS}
        values |= {"cpus": self._cpus, "memory": self._memory}
        (self.root / "slurm.conf").write_text(_CONFIG.format(**values))
        for index in range(GPUS):
            os.mknod(self.root / f"gpu{index}", 0o666 | 0o020000, os.makedev(1, 3))
        (self.root / "gres.conf").write_text(f"Name=gpu File={self.root}/gpu[0-{GPUS - 1}]\n")
        (self.root / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        # As sites do that have a disk in each node.
        (self.root / "task-prolog").write_text(f"#!/bin/sh\necho export TMPDIR={self.root}/local\n")
        (self.root / "task-prolog").chmod(0o755)
        names = [f"{_NET}.{10 + index} n{index}" for index in range(1, count + 1)]
        (self.root / "hosts").write_text("\n".join(["127.0.0.1 localhost", f"{_NET}.1 {host}", *names, ""]))

    def _munge(self) -> None:
        """Slurm's authentication, whose daemon must not be root."""
        folder = self.root / "munge"
        (folder / "key").write_bytes(os.urandom(1024))
        (folder / "key").chmod(0o400)
        for path in (folder, folder / "key"):
            shutil.chown(path, "munge", "munge")
        folder.chmod(0o755)
        as_munge = ["setpriv", "--reuid", "munge", "--regid", "munge", "--clear-groups", "munged", "--foreground"]
        files = [f"--{kind}-file={folder}/{kind}" for kind in ("key", "pid", "log", "seed")]
        self._started.append(self._spawn([*as_munge, *files, f"--socket={folder}/socket"]))
        self.until(lambda: (folder / "socket").exists(), 20)

    def _bridge(self) -> None:
        self.call("ip", "link", "add", "gb-bridge", "type", "bridge")
        self.call("ip", "addr", "add", f"{_NET}.1/24", "dev", "gb-bridge")
        self.call("ip", "link", "set", "gb-bridge", "up")
        for index, name in enumerate(self.nodes, 1):
            space, wire = f"gb-{name}", f"gb-wire{index}"
            self.call("ip", "netns", "add", space)
            self.call("ip", "link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", space)
            self.call("ip", "link", "set", wire, "master", "gb-bridge", "up")
            self.call("ip", "-n", space, "addr", "add", f"{_NET}.{10 + index}/24", "dev", "eth0")
            self.call("ip", "-n", space, "link", "set", "eth0", "up")
            self.call("ip", "-n", space, "route", "add", "default", "via", f"{_NET}.1")

    def _remove_network(self) -> None:
        for index, name in enumerate(self.nodes, 1):
            _quietly("ip", "netns", "del", f"gb-{name}")
            _quietly("ip", "link", "del", f"gb-wire{index}")
        _quietly("ip", "link", "del", "gb-bridge")

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.root / "told").open("ab") as told:
            return subprocess.Popen(
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=told,
                stderr=told,
                start_new_session=True,
            )


@contextmanager
def cluster(nodes: int) -> Iterator[Testbed]:
    """A Slurm cluster for as long as the context lasts."""
    # The path must be short: Unix sockets in it, those of Ray among them, have room for 107 characters.
    root = Path(tempfile.mkdtemp(prefix=_PREFIX, dir="/tmp"))
    root.chmod(0o755)
    bed = Testbed(root, nodes)
    try:
        bed.start()
        yield bed
    finally:
        bed.stop()
        shutil.rmtree(root, ignore_errors=True)


def _kill_left_over() -> None:
    """Ends the daemons of a testbed whose process was killed."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("SLURM_CONF", "").startswith(f"/tmp/{_PREFIX}"):
                process.kill()


def _quietly(*command: str) -> None:
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def _pids(pattern: str) -> list[int]:
    found = subprocess.run(["pgrep", "-f", pattern], stdout=subprocess.PIPE, check=False, text=True).stdout
    return [int(pid) for pid in found.split()]
