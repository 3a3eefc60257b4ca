"""Predict the memory that a worker needs on its host, from the sizes of a call, of the inputs and of what is kept.

Counted are, at the time when they are there together: the process itself; on a CPU what the device needs, which is
host memory as well; the inputs of the next Cases, with the chunks of the variable that is being read; the frames of
calls that are on their way from the device to the disk; and the encoded fields of the variables that are being written.
tests/test_host_memory.py compares the sum with the peak of real runs.

Not counted are the truth and the sums of scores that are computed online.
"""

from dataclasses import dataclass
from typing import Final

from graphcast_batch.models.base import CallSize

_PROCESS_BYTES: Final = 600_000_000
"""A worker with its libraries and compiled programs, as measured at 10° on a CPU."""
_DRIVER_BYTES: Final = 1_500_000_000
"""What the libraries and buffers of an accelerator add to a process; an estimate, not measured."""
_GRAPH_BYTES: Final = 120
"""Bytes of the graphs on the host, for each grid point: some five edges of 21 bytes and three features."""
_AT_ONCE: Final = 4
"""Variables of a Case that are encoded at once."""
_READ_TWICE: Final = 1.7
"""Bytes of chunks, compressed and decoded, for each byte read from a compressed archive of weather."""
_SMALL_BYTES: Final = 2**26
"""Variables that are smaller are read together, up to these bytes."""


@dataclass(frozen=True)
class HostLoad:
    """The sizes of what a worker reads and writes.

    Attributes:
        read_factor: bytes of the chunks that are read, for each byte of the inputs that is needed.
        kept_bytes: size of what the store keeps of one frame; 0 where these are parts of the frame as it is.
        rounded: whether values are rounded before they are written.
        waiting_bytes: largest frames of a call that wait while those of another are written.
        kept_states: initial states that are kept for further members of an ensemble.
        weights_bytes: size of the checkpoints that are kept beside the one on the device.
        members_bytes: size of the fields of all members of an ensemble that are in memory while it is combined.
    """

    read_factor: float = 1.0
    kept_bytes: int = 0
    rounded: bool = False
    waiting_bytes: int = 2**28
    kept_states: int = 0
    weights_bytes: int = 0
    members_bytes: int = 0


def host_bytes(call: CallSize, device_bytes: int, load: HostLoad) -> int:
    """Return the number of bytes that a worker needs on its host, on a CPU with those of its device.

    Args:
        call: sizes of one call of the model.
        device_bytes: what the device needs for the call.
        load: sizes of what is read and written.
    """
    channels, field = call.channels, 4 * call.grid.size
    inputs = field * (channels.frames * channels.width(channels.carried) + channels.width(channels.static))
    variable = field * max(channels.width([name]) for name in channels.targets)
    chunks = _READ_TWICE * load.read_factor * min(inputs, max(channels.frames * variable, _SMALL_BYTES))
    frames = call.steps * field * channels.outputs
    writing = load.kept_bytes * call.steps + _AT_ONCE * variable * (2 if load.rounded else 1)
    process = _PROCESS_BYTES + _GRAPH_BYTES * call.grid.size + load.weights_bytes + load.kept_states * inputs
    process += load.members_bytes
    # The next Cases wait while others are computed; those of a group are kept in case each must be tried alone.
    groups = 1 if call.cases == 1 else 2
    if not call.accelerated:
        # While a call is computed, the one before it is checked and the one before that may still be written.
        return int(process + device_bytes + groups * call.cases * inputs + chunks + call.cases * (2 * frames + writing))
    # Two calls are copied from the device, one is checked and one is written; a small one waits between them.
    calls = 4 + (call.cases * frames <= load.waiting_bytes)
    starting = call.cases * inputs  # the arrays of a state, on their way to the device
    return int(
        process
        + _DRIVER_BYTES
        + groups * call.cases * inputs
        + chunks
        + starting
        + call.cases * (calls * frames + writing)
    )
