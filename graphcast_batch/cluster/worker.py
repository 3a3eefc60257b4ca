"""One process with one device becomes a worker: it makes the Cases it is handed, a few at a time."""

import os
import socket
from typing import Literal

from graphcast_batch.assembly import AnySource, Precision, worker_bench
from graphcast_batch.config import RunConfig
from graphcast_batch.errors import ClusterError
from graphcast_batch.model.forecaster import backend
from graphcast_batch.outputs.claims import Claim
from graphcast_batch.outputs.ledger import Record
from graphcast_batch.pipeline import Bench
from graphcast_batch.plan import Case


class Worker:
    """Makes Cases on one device."""

    def __init__(self) -> None:
        self._bench: Bench | None = None

    def prepare(self, arguments: tuple[RunConfig, AnySource, Precision, Literal["cpu", "gpu"]]) -> None:
        """Loads weights and graphs onto the device.

        Args:
            arguments: the run's configuration, the source of states, the precision of the network, and the device
                that the worker was given.

        Raises:
            GraphcastBatchError: a part of the run is missing or does not fit.
        """
        config, source, precision, device = arguments
        if device == "gpu" and backend() == "cpu":
            raise ClusterError(
                f"Ray gave a worker on {socket.gethostname()} a GPU, but JAX sees only the CPU there; install "
                "graphcast-batch[cuda13] or [cuda12] to fit the driver, or set workers.device: cpu"
            )
        self._bench = worker_bench(config, source, precision, f"{socket.gethostname()}:{os.getpid()}")

    def run_case(self, case: Case, claim: Claim, attempts: int) -> Record:
        """Makes one forecast; see `Bench.run_case`.

        Raises:
            ClusterError: the worker was not prepared.
        """
        if self._bench is None:
            raise ClusterError("a worker must be prepared before it is handed a Case; call prepare first")
        return self._bench.run_case(case, claim, attempts)
