"""Read weights that were stored as a Python pickle, and check them against an architecture and a task.

NOAA publishes the weights of its GraphCast ensemble so: a mapping of Haiku modules to names to arrays, for
``GraphCast_operational``. Its training program writes such a mapping as ``params``, beside its own state. Sources:
``oper/run_graphcast_ens.py`` of github.com/NOAA-EMC/MLGEFS, ``train.py`` of github.com/NOAA-EMC/graphcast.
"""

import hashlib
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.errors import CheckpointError
from graphcast_batch.models.base import Parameters
from graphcast_batch.models.graphcast.parameters import check_parameters, parameter_shapes
from graphcast_batch.models.graphcast.pickle_reader import PickledArray, RefusedPickleError, read_pickle
from graphcast_batch.spec import Architecture
from graphcast_batch.text import brief

_WEIGHTS: Final = "params"
"""Key of the weights in a file that also holds the state of a training."""
_MOST_BYTES_A_PARAMETER: Final = 32
"""Largest size of a file: weights and the two moments of an optimizer, in float64, need 24."""
_OTHER_BYTES: Final = 2**22
"""Room for names and everything else."""
_FLOATS: Final = re.compile(r"f[248]")


@dataclass(frozen=True, eq=False)
class PickledParameters:
    """Weights that were read from a pickle.

    Attributes:
        parameters: float32 arrays by Haiku module, then by name.
        left_out: other keys of the file, whose values were not taken.
        sha256: checksum of the file.
    """

    parameters: Parameters
    left_out: tuple[str, ...]
    sha256: str


def read_pickled_parameters(path: Path, architecture: Architecture, inputs: int, outputs: int) -> PickledParameters:
    """Read weights from a pickle. Nothing in the file is executed.

    Args:
        path: the file.
        architecture: sizes of the network.
        inputs: number of values at a grid point that go in, without the structural features.
        outputs: number of values at a grid point that come out.

    Raises:
        CheckpointError: the file is missing, damaged or too large, holds anything but arrays and containers, or its
            weights do not fit the architecture or cannot be float32.
    """
    where = f"the pickle {path}"
    shapes = parameter_shapes(architecture, inputs, outputs)
    count = sum(math.prod(shape) for named in shapes.values() for shape in named.values())
    content = _content(path, count)
    try:
        held = read_pickle(content)
    except RefusedPickleError as error:
        raise CheckpointError(f"{where} {error}") from error
    found, left_out = _weights(held, where)
    check_parameters(found, architecture, inputs, outputs, where)
    parameters = {
        module: {name: _float32(array, f"{where}: the parameter {module}:{name}") for name, array in named.items()}
        for module, named in found.items()
    }
    return PickledParameters(parameters, left_out, hashlib.sha256(content).hexdigest())


def _content(path: Path, count: int) -> bytes:
    """Return the bytes of a file that can hold the weights.

    Args:
        path: the file.
        count: number of parameters.
    """
    if not path.is_file():
        raise CheckpointError(f"the pickle {path} is not a file; give the path of a file with pickled weights")
    most = _MOST_BYTES_A_PARAMETER * count + _OTHER_BYTES
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise CheckpointError(f"the pickle {path} cannot be read: {error}") from error
    if content.startswith(b"PK"):
        raise CheckpointError(
            f"{path} must be a pickle, but is an archive, as .npz files are; a checkpoint in the published format "
            "needs no conversion"
        )
    if content.startswith(b"\x1f\x8b"):
        raise CheckpointError(f"{path} must be a pickle, but is compressed by gzip; unpack it first")
    if len(content) > most:
        raise CheckpointError(
            f"the pickle {path} must have at most {most} bytes for the {count} parameters of its architecture, but has "
            f"{path.stat().st_size}; give the file of the weights alone"
        )
    return content


def _weights(held: Any, where: str) -> tuple[dict[str, dict[str, PickledArray]], tuple[str, ...]]:  # noqa: ANN401 - unchecked
    """Return the arrays by module and name, and the keys beside them."""
    if not isinstance(held, dict):
        raise CheckpointError(
            f"{where} must hold a dict of modules, but holds a value of type {type(held).__name__}; {_GIVE}"
        )
    left_out = tuple(key for key in held if key != _WEIGHTS) if _WEIGHTS in held else ()
    modules = held.get(_WEIGHTS, held)
    if not isinstance(modules, dict):
        raise CheckpointError(f"{where} must hold a dict of modules as {_WEIGHTS}, but has another value; {_GIVE}")
    for module, named in modules.items():
        if not isinstance(named, dict):
            raise CheckpointError(f"{where}: the module {brief(module)} must be a dict of arrays, but is none; {_GIVE}")
        for name, array in named.items():
            if not isinstance(array, PickledArray):
                raise CheckpointError(f"{where}: {brief(module)}:{brief(name)} must be an array, but is none; {_GIVE}")
    return modules, left_out


def _float32(array: PickledArray, where: str) -> NDArray[np.float32]:
    """Return the values of an array, if they are finite and float32 holds them exactly; its shape has been checked."""
    code = array.dtype.code
    if not _FLOATS.fullmatch(code):
        raise CheckpointError(f"{where} must be float16, float32 or float64, but is {brief(code)}; {_GIVE}")
    dtype = np.dtype(f"{array.dtype.byte_order}{code}")
    needed = math.prod(array.shape) * dtype.itemsize
    if len(array.content) != needed:
        raise CheckpointError(
            f"{where} must have {needed} bytes for its shape {array.shape}, but has {len(array.content)}; copy the "
            "file again"
        )
    values = np.frombuffer(array.content, dtype).reshape(array.shape, order="F" if array.order == "F" else "C")
    if not np.isfinite(values).all():
        raise CheckpointError(f"{where} must be finite, but is not; take another checkpoint of the training")
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(values, np.float32)
    if not np.array_equal(single, values):
        raise CheckpointError(f"{where} is {dtype.name} and has values that float32 cannot hold; round them first")
    return single


_GIVE: Final = "give a pickle of weights by Haiku module and name"
