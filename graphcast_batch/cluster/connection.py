"""Connect this process to a Ray cluster, or to a Ray of its own on this machine, for as long as a context lasts."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import ray
from ray.exceptions import RayError

from graphcast_batch.cluster.drain import WORK_LEFT, Drain, overheard
from graphcast_batch.cluster.embedded import QUIET, embedded, leave
from graphcast_batch.cluster.nodes import alive_nodes
from graphcast_batch.cluster.ray_errors import explained
from graphcast_batch.cluster.reach import check_head
from graphcast_batch.cluster.slurm.allocation import allocation, unused_nodes
from graphcast_batch.errors import ClusterError

_LOG: Final = logging.getLogger(__name__)


@contextmanager
def connected(address: str | None, drain: Drain) -> Iterator[None]:
    """Connect to the Ray cluster at an address, or start Ray on this machine for as long as the context lasts.

    A process that is connected to Ray already, as a notebook may be, stays connected. A Ray that is started here uses
    the cores that the scheduler has given, or all cores of the machine without a scheduler.

    Args:
        address: HOST:PORT or ``auto``; None or ``local`` to start Ray on this machine.
        drain: listens again to the signals that Ray takes over.

    Raises:
        ClusterError: no cluster answers at the address, Ray cannot be started here, or Ray fails within the context.
    """
    address = None if address == "local" else address
    if address is None and ray.is_initialized():
        yield
        return
    _check_names()
    with _cluster(address, drain):
        try:
            yield
        except RayError as error:
            raise ClusterError(f"Ray failed: {explained(error)}") from error


def _check_names() -> None:
    """Refuse names that Ray cannot pass to its processes, which get the command line and its working directory."""
    with suppress(FileNotFoundError):  # the working directory was removed
        for name in (*sys.argv, os.getcwd()):
            if any("\ud800" <= letter <= "\udfff" for letter in name):
                raise ClusterError(
                    f"Ray needs every path and argument to be text, but {name!a} is none in the encoding of this "
                    f"locale, {sys.getfilesystemencoding()}; set PYTHONUTF8=1 or LC_ALL=C.UTF-8, or, if it is no UTF-8 "
                    "either, rename it"
                )


@contextmanager
def _cluster(address: str | None, drain: Drain) -> Iterator[None]:
    cluster = _joined(address) if address else embedded(allocation(os.environ).cpus)
    try:
        with overheard(drain.heard):
            cluster.__enter__()
            drain.listen()
    except ClusterError:
        raise
    except Exception as error:  # Ray raises exceptions of any class, Exception itself too
        where = f"a Ray cluster at {address}" if address else "Ray on this machine"
        raise ClusterError(f"{where} was to be used, but: {error}") from error
    except SystemExit as stop:  # how Ray itself answers a SIGTERM while it starts
        raise SystemExit(WORK_LEFT) from stop
    try:
        given = allocation(os.environ)
        if given.size > 1 and (idle := unused_nodes(given, len(alive_nodes()))):
            _LOG.warning("%s", idle)
        yield
    finally:
        cluster.__exit__(None, None, None)


@contextmanager
def _joined(address: str) -> Iterator[None]:
    check_head(_named(address))
    try:
        ray.init(address=address, **QUIET)
        yield
    finally:
        leave()


def _named(address: str) -> str:
    """Return an address as it is, or for ``auto`` that of the Ray that was started on this machine."""
    if address != "auto":
        return address
    from ray._private.services import canonicalize_bootstrap_address_or_die

    return str(canonicalize_bootstrap_address_or_die(address))
