"""A Ray that this process has joined."""

import pytest

from graphcast_batch.cluster.connection import connected
from graphcast_batch.cluster.drain import Drain
from graphcast_batch.cluster.embedded import _read_environment


@pytest.fixture(scope="module")
def cluster(on_ray):
    """The Ray that the tests share, joined by this process."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
            patch.setenv(name, on_ray[name])
        _read_environment()
        with connected(on_ray["RAY_ADDRESS"], Drain()):
            yield
    _read_environment()
