"""Start a Ray on this machine that no other user can join, for as long as a context lasts."""

import atexit
import logging
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import ray
from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined] # it is compiled

from graphcast_batch.cluster.ray_folder import RayFolder
from graphcast_batch.cluster.reach import is_answering, within
from graphcast_batch.errors import ClusterError

QUIET: Final[dict[str, Any]] = {"log_to_driver": False, "logging_level": logging.ERROR}
"""Options of every connection to Ray, which keep it from printing."""
_OBJECT_STORE_BYTES: Final = 2**29
_LEAVE_SECONDS: Final = 30.0
_IGNORED: Final = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH")
"""Environment variables about other clusters, which Ray must not see while it starts."""


@contextmanager
def embedded(cores: int | None) -> Iterator[RayFolder]:
    """Start Ray on this machine, and end all of its processes with the context.

    Whoever knows the token of a Ray can run code in it. By default (ray 2.60) the token is in a file that everybody can
    read, and Ray listens on all interfaces. Here it is random, is only in the environment of Ray's own processes, and
    they listen on the loopback interface alone.

    Args:
        cores: number of cores that Ray may use; None for all cores of the machine.
    """
    with RayFolder() as folder:
        try:
            with _starting():
                ray.init(
                    "local",  # else Ray connects to, or fails at, what another run left behind
                    num_cpus=cores,
                    include_dashboard=False,
                    object_store_memory=_OBJECT_STORE_BYTES,
                    _temp_dir=folder.path,
                    _node_ip_address="127.0.0.1",
                    # It looks at the whole machine's memory, and would kill workers for what other programs take.
                    _system_config={"memory_monitor_refresh_ms": 0},
                    **QUIET,
                )
            yield folder
        finally:
            if ray.is_initialized() and not is_answering(ray.get_runtime_context().gcs_address):
                folder.clear()
            leave()
            _read_environment()


def leave() -> None:
    """Disconnect from Ray, without waiting for ever for a head that is stopped, as Ray itself would."""
    try:
        within(_LEAVE_SECONDS, "disconnect this process", ray.shutdown)
    except ClusterError:
        atexit.unregister(ray.shutdown)  # else the end of the process would wait for the head again


@contextmanager
def _starting() -> Iterator[None]:
    """Let Ray start with a new token and on the loopback interface.

    The environment is restored afterwards, so that other processes that are started from here do not get the token.
    """
    own = {"RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    several = ray_constants.ENABLE_RAY_CLUSTER
    with _environment({name: value for name, value in os.environ.items() if name not in _IGNORED} | own):
        _read_environment()
        # Else Ray replaces a loopback address by that of the default route (ray 2.60, services.get_node_ip_address).
        ray_constants.ENABLE_RAY_CLUSTER = False
        try:
            yield
        finally:
            ray_constants.ENABLE_RAY_CLUSTER = several


@contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(wanted)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _read_environment() -> None:
    """Make Ray read the environment again, which an earlier connection of this process has read."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()
