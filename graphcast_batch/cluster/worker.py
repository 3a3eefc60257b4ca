"""One process with one device becomes a worker: it makes the Cases it is handed, a few at a time."""

import os
import socket
from typing import Literal

from graphcast_batch.assembly import AnySource, worker_bench
from graphcast_batch.config import RunConfig
from graphcast_batch.errors import ClusterError
from graphcast_batch.outputs.claims import Claim
from graphcast_batch.outputs.ledger import Record
from graphcast_batch.pipeline import Bench
from graphcast_batch.plan import Case


class Worker:
    """Makes Cases on one device."""

    def __init__(self) -> None:
        self._bench: Bench | None = None

    def prepare(self, config: RunConfig, source: AnySource, precision: Literal["float32", "bfloat16"]) -> str:
        """Loads weights and graphs onto the device.

        Returns:
            Kind of the device.

        Raises:
            GraphcastBatchError: a part of the run is missing or does not fit.
        """
        name = f"{socket.gethostname()}:{os.getpid()}"
        self._bench = worker_bench(config, source, precision, name)
        return self._bench.forecasts.device

    def run_case(self, case: Case, claim: Claim, attempts: int) -> Record:
        """Makes one forecast; see `Bench.run_case`.

        Raises:
            ClusterError: the worker was not prepared.
        """
        if self._bench is None:
            raise ClusterError("a worker must be prepared before it is handed a Case; call prepare first")
        return self._bench.run_case(case, claim, attempts)
