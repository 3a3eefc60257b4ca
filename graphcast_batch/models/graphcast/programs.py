"""Programs that XLA compiled become entries of a cache, so that of many workers only the first waits for the compiler.

JAX keeps compiled programs in a folder, but writes them in place and never mends one that was torn. Here it is given a
private folder for as long as it compiles; what it holds is one entry. JAX's own key tells what is which in there, from
the program itself, so that no wrong program can come of a key of ours that is too coarse: ours tells apart what JAX's
does not, the machine that a program was made for, and a new code from an old one, so that one worker compiles it first.
"""

import io
import logging
import os
import platform
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, TypeVar

import jax
import xarray as xr
from jax.experimental.compilation_cache import compilation_cache

from graphcast_batch.models.disk_cache import Cache, digest_of_source, entry_name
from graphcast_batch.models.graphcast.forecaster import Forecaster

Frames = TypeVar("Frames")

_LOG: Final = logging.getLogger(__name__)
_KEEP_ALL: Final[Mapping[str, Any]] = {
    "jax_enable_compilation_cache": True,
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
    # Further caches of XLA's would bring the private folder's path into JAX's key.
    "jax_persistent_cache_enable_xla_caches": "none",
    "jax_compilation_cache_max_size": -1,
}


class CompiledOnce:
    """A Forecaster whose program is compiled by one worker and read by the others."""

    def __init__(self, forecaster: Forecaster, cache: Cache | None, *key: object) -> None:
        """Nothing is compiled yet.

        Args:
            forecaster: that makes the forecasts.
            cache: where compiled programs are kept; None for nowhere.
            key: what the program is made of, beside the numbers of starts and steps.
        """
        self._forecaster = forecaster
        self._cache = cache
        self._key = key
        self._ready: set[tuple[int, int]] = set()

    @property
    def device(self) -> str:
        """Kind of the device, as JAX names it."""
        return self._forecaster.device

    def forecast(self, inputs: xr.Dataset, forcings: xr.Dataset, steps: int) -> Iterator[Mapping[str, Any]]:
        """As `Forecaster.forecast`."""
        return self._once(self._forecaster.forecast(inputs, forcings, steps), 1, steps)

    def forecast_many(
        self, starts: Sequence[tuple[xr.Dataset, xr.Dataset]], steps: int
    ) -> Iterator[Sequence[Mapping[str, Any]]]:
        """As `Forecaster.forecast_many`."""
        return self._once(self._forecaster.forecast_many(starts, steps), len(starts), steps)

    def _once(self, frames: Iterator[Frames], starts: int, steps: int) -> Iterator[Frames]:
        if (starts, steps) not in self._ready:
            with compiled_once(self._cache, *self._key, starts, steps):
                first = next(frames)
            self._ready.add((starts, steps))
            yield first
        yield from frames


@contextmanager
def compiled_once(cache: Cache | None, *key: object) -> Iterator[None]:
    """Within, what JAX compiles is taken from the cache; what is not there yet is compiled by one process and kept.

    Args:
        cache: where compiled programs are kept; None for nowhere.
        key: what they are made of; parts that differ must differ in their repr.
    """
    if cache is None:
        yield
        return
    code = digest_of_source(*sorted(Path(__file__).parents[1].rglob("*.py")))  # all that models share is in it too
    name = entry_name("programs", *_machine(), code, *key)
    with _private_folder() as folder:
        if folder is None:
            yield
            return
        with cache.turn(name, partial(_unpack, folder)):
            known = set(folder.iterdir())
            with _keeping_in(folder):
                yield
            if set(folder.iterdir()) != known:
                _publish(cache, name, folder)


@contextmanager
def _private_folder() -> Iterator[Path | None]:
    """A folder of this process's own, on its own host, if one can be made."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="graphcast-batch-"))
    except OSError as error:
        _LOG.warning("no folder can be made for compiled programs, so none is kept or read: %s", error)
        yield None
        return
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _keeping_in(folder: Path) -> Iterator[None]:
    """Within, JAX keeps all that it compiles in a folder, and looks there first."""
    options = {**_KEEP_ALL, "jax_compilation_cache_dir": str(folder)}
    before = {option: getattr(jax.config, option) for option in options}
    try:
        _configure(options)
        yield
    finally:
        _configure(before)


def _configure(options: Mapping[str, Any]) -> None:
    for option, value in options.items():
        jax.config.update(option, value)  # type: ignore[no-untyped-call] # JAX leaves it without types
    compilation_cache.reset_cache()  # JAX looks once only whether there is a folder, and where


def _unpack(folder: Path, content: bytes) -> None:
    """Puts what an entry holds into a folder; what cannot be unpacked leaves nothing there."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            archive.extractall(folder)
    except OSError as error:  # of the folder
        _LOG.warning("%s took no compiled programs: %s", folder, error)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        raise


def _publish(cache: Cache, name: str, folder: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
    try:
        # JAX goes on with half a file when the disk is full; then there is no room for this either.
        (folder / "probe").write_bytes(packed.getvalue())
    except OSError as error:
        _LOG.warning("%s took no compiled programs, so none is kept: %s", folder, error)
    else:
        cache.put(name, packed.getvalue())


def _machine() -> list[object]:
    """What a compiled program depends on that JAX's key leaves out, or may."""
    device = jax.devices()[0]
    versions = [version("jax"), version("jaxlib"), device.client.platform_version, os.environ.get("XLA_FLAGS")]
    if device.platform != "cpu":
        return [device.platform, device.device_kind, *versions]
    # XLA compiles for the instructions of this processor, and for as many threads as it has cores for.
    cores = [os.cpu_count(), len(os.sched_getaffinity(0)), os.environ.get("NPROC")]
    return [device.platform, platform.machine(), _instructions(), cores, *versions]


def _instructions() -> str:
    """The extensions of the instruction set that this processor has, as Linux names them."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
