"""Keep programs that XLA compiled in a cache, so that of many workers only the first waits for the compiler.

JAX can keep compiled programs in a folder, but it writes them in place and never repairs one that was truncated.
Therefore JAX gets a private folder while it compiles, and the content of this folder is one entry of the cache. In the
folder JAX finds programs by a key of its own, made from the program itself, so that a coarse key of the entry can never
lead to a wrong program. The key of the entry has what JAX's key lacks: the machine that a program was compiled for, and
the source code, so that one worker compiles changed code first.
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

from graphcast_batch.models.base import Frames, Model, Parameters, Start
from graphcast_batch.models.disk_cache import Cache, digest_of_source, entry_name
from graphcast_batch.spec import Task

Calls = TypeVar("Calls")

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
    """A model whose programs are compiled by one worker and read from the cache by the others; see `Model`."""

    def __init__(self, model: Model, cache: Cache | None, *key: object) -> None:
        """Compile nothing yet.

        Args:
            model: the model that makes the forecasts.
            cache: where compiled programs are kept; None to keep none.
            key: what the programs are made of, beside the numbers of starts and steps.
        """
        self._model = model
        self._cache = cache
        self._key = key
        self._ready: set[tuple[int, int]] = set()

    @property
    def device(self) -> str:
        """Kind of the device, as JAX names it."""
        return self._model.device

    @property
    def task(self) -> Task:
        """What the model takes and predicts."""
        return self._model.task

    def replace_weights(self, parameters: Parameters) -> None:
        """Take other weights; see `Model.replace_weights`."""
        self._model.replace_weights(parameters)

    def forecast(self, inputs: xr.Dataset, forcings: xr.Dataset, steps: int) -> Iterator[Frames]:
        """Yield the frames of one forecast; see `Model.forecast`."""
        return self._once(self._model.forecast(inputs, forcings, steps), 1, steps)

    def forecast_many(self, starts: Sequence[Start], steps: int) -> Iterator[Sequence[Frames]]:
        """Yield the frames of several forecasts; see `Model.forecast_many`."""
        return self._once(self._model.forecast_many(starts, steps), len(starts), steps)

    def loss(
        self, parameters: Parameters, inputs: xr.Dataset, forcings: xr.Dataset, truth: xr.Dataset
    ) -> dict[str, object]:
        """Return the training loss; see `Model.loss`. Its program is not kept."""
        return self._model.loss(parameters, inputs, forcings, truth)

    def _once(self, calls: Iterator[Calls], starts: int, steps: int) -> Iterator[Calls]:
        if (starts, steps) not in self._ready:
            with compiled_once(self._cache, *self._key, starts, steps):
                first = next(calls)
            self._ready.add((starts, steps))
            yield first
        yield from calls


@contextmanager
def compiled_once(cache: Cache | None, *key: object) -> Iterator[None]:
    """Take what JAX compiles within the context from the cache; one process compiles and keeps what is not there.

    Args:
        cache: where compiled programs are kept; None for nowhere.
        key: what the programs are made of; parts that differ must differ in their repr.
    """
    if cache is None:
        yield
        return
    code = digest_of_source(*sorted(Path(__file__).parent.rglob("*.py")))  # of all models, and of what they share
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
    """Give a new folder of this process on its own host; None if none can be made."""
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
    """Let JAX keep what it compiles within the context in a folder, and look there first."""
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
    """Unpack an entry into a folder, which is left empty if the entry cannot be unpacked."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            archive.extractall(folder)
    except OSError as error:  # of the folder
        _LOG.warning("compiled programs cannot be unpacked into %s: %s", folder, error)
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
        _LOG.warning("compiled programs cannot be written to %s, so none is kept: %s", folder, error)
    else:
        cache.put(name, packed.getvalue())


def _machine() -> list[object]:
    """Return what a compiled program depends on, but JAX's key leaves out or may leave out."""
    device = jax.devices()[0]
    versions = [version("jax"), version("jaxlib"), device.client.platform_version, os.environ.get("XLA_FLAGS")]
    if device.platform != "cpu":
        return [device.platform, device.device_kind, *versions]
    # XLA compiles for the instructions of this processor, and for as many threads as it has cores for.
    cores = [os.cpu_count(), len(os.sched_getaffinity(0)), os.environ.get("NPROC")]
    return [device.platform, platform.machine(), _instructions(), cores, *versions]


def _instructions() -> str:
    """Return the extensions of this processor's instruction set, as Linux names them."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
