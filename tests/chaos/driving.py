"""``graphcast-batch run`` on a planet where reading takes a while and goes wrong once where it is told to.

Leases, heartbeats and rests are shortened, so that a test can outlive them.
"""

import errno
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import ray

from graphcast_batch import cli
from graphcast_batch.cluster import held_leases, worker_watch
from graphcast_batch.files import staging
from graphcast_batch.inputs.sources.planet_archive import SyntheticArchive
from graphcast_batch.setup import run_setup

HANG_SECONDS = 3600


@dataclass(frozen=True)
class Trouble:
    """What a run has to live with.

    Attributes:
        folder: gets a line in ``tries`` for every read, and a file for every read that went wrong.
        read_seconds: that each read takes.
        lease_seconds: of a claim.
        beat_seconds: between its heartbeats.
        wrong: by the key of a Case how its first read goes wrong: ``error``, ``hang`` or ``death``; with ``late`` it
            goes well, but the second file of the Case is given its place only when there is a file ``land``.
    """

    folder: str
    read_seconds: float
    lease_seconds: float
    beat_seconds: float
    wrong: dict[str, str]

    def write(self, path):
        path.write_text(json.dumps(asdict(self)))

    @property
    def tries(self):
        """Keys of the Cases in the order in which they were read."""
        path = Path(self.folder, "tries")
        return path.read_text().split() if path.exists() else []

    def fired(self, kind):
        """How many reads went wrong in this way."""
        return sum(how == kind and self._mark(key).exists() for key, how in self.wrong.items())

    def meet(self, key):
        """What a read does before it reads."""
        with Path(self.folder, "tries").open("a") as tries:
            tries.write(f"{key}\n")
        kind = self.wrong.get(key)
        if kind and self._first(key):
            if kind == "error":
                raise OSError(errno.EIO, "the disk has lost a sector")
            if kind == "death":
                os._exit(9)
            if kind == "late":
                self._delay(key)
                return
            time.sleep(HANG_SECONDS)
        time.sleep(self.read_seconds)

    def _delay(self, key):
        """Has the server of the store not answer this process, once, when it is about to publish."""
        place, published = staging.place, []

        def late(source, target):
            if f"{key}-" in str(source):
                published.append(target)
                if len(published) == 2:
                    Path(self.folder, "hung").touch()
                    while not Path(self.folder, "land").exists():
                        time.sleep(0.1)
            place(source, target)

        staging.place = late

    def _mark(self, key):
        return Path(self.folder, f"{key}.wrong")

    def _first(self, key):
        try:
            self._mark(key).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


class Troubled(SyntheticArchive):
    """A planet that is read with trouble."""

    trouble: Trouble

    def read(self, case, task):
        self.trouble.meet(case.key)
        return super().read(case, task)


def main(trouble, arguments):
    """The command, on a planet in trouble."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[Trouble.__module__])
    held_leases._LEASE_SECONDS, held_leases._RENEW_SECONDS = trouble.lease_seconds, trouble.beat_seconds
    worker_watch._LONGEST_PAUSE_SECONDS = trouble.beat_seconds
    assemble = run_setup.assemble

    def troubled(config):
        assembled = assemble(config)
        assembled.source.__class__ = Troubled
        assembled.source.trouble = trouble
        return assembled

    run_setup.assemble = troubled
    cli.main(arguments)


if __name__ == "__main__":
    main(Trouble(**json.loads(Path(sys.argv[1]).read_text())), sys.argv[2:])
