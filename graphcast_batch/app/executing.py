"""Run the work of a command on a Ray cluster, stop it in an orderly way, and report its progress."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.app.progress import Progress
from graphcast_batch.cluster import driver
from graphcast_batch.cluster.drain import Drain
from graphcast_batch.cluster.slurm.allocation import allocation
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.times_section import TimesConfig
from graphcast_batch.plan import plan_times

Executor = Callable[[Callable[..., Any], Sequence[tuple[Any, ...]]], Iterable[Any]]
"""Calls a function with each of many lists of arguments, and gives the results, or exceptions, in their order."""


def cluster_address(given: str | None) -> str | None:
    """Return the address of the Ray cluster to use; None to start Ray on this machine.

    Args:
        given: address that the caller gave; without it the environment variable ``RAY_ADDRESS`` decides.
    """
    return given or os.environ.get("RAY_ADDRESS")


@contextmanager
def stoppable(drain: Drain | None, drain_file: Path | None = None) -> Iterator[Drain]:
    """Give what asks the work to stop: signals, a file, or the end of the Slurm job.

    Args:
        drain: one that listens already and is used as it is; without it a new one listens while the context lasts.
        drain_file: file whose appearance asks a new one to stop.
    """
    if drain is not None:
        yield drain
        return
    here = allocation(os.environ)
    with Drain(drain_file, here.start, here.end) as listening:
        yield listening


@contextmanager
def on_cluster(address: str | None, drain: Drain | None, progress: Progress) -> Iterator[Drain]:
    """Connect to a Ray cluster, or start Ray on this machine, for as long as the context lasts.

    Args:
        address: of the cluster; see `cluster_address`.
        drain: as for `stoppable`.
        progress: shows that Ray is starting.

    Raises:
        ClusterError: there is no cluster at the address, or Ray cannot be started.
    """
    with stoppable(drain) as stopping, ExitStack() as stack:
        with progress.waiting("Ray is starting"):
            stack.enter_context(driver.connected(cluster_address(address), stopping))
        yield stopping


def executor(drain: Drain, progress: Progress, what: str) -> Executor:
    """Return an executor that works on the connected cluster and counts the results.

    Args:
        drain: asks it to stop.
        progress: shows the count.
        what: the work in a word or two, such as "scoring".
    """

    def execute(function: Callable[..., Any], argument_lists: Sequence[tuple[Any, ...]]) -> Iterable[Any]:
        return progress.track(driver.each(function, argument_lists, drain), what, len(argument_lists))

    return execute


def chosen_times(first: str | None, last: str | None, every_hours: int | None) -> TimesConfig | None:
    """Return the times that a caller has chosen; None without any choice.

    Args:
        first: the first time, such as ``2020-01-01T00``, UTC.
        last: the last time.
        every_hours: hours between them.

    Raises:
        ConfigError: the values are not such times, or one of the three is missing.
    """
    span = {"first": first, "last": last, "every_hours": every_hours}
    if all(part is None for part in span.values()):
        return None
    return parse_config(span, TimesConfig, origin="of first, last and every_hours")


def times_array(times: TimesConfig) -> NDArray[np.datetime64]:
    """(time,) datetime64[h], ascending: the times of a section ``times``."""
    return np.array(plan_times(times))
