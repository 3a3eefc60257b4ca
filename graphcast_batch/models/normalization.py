"""Take the scale and offset of every value in the network's vectors from normalization statistics."""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import StatisticsError
from graphcast_batch.models.channels import Channels

_REMEDY: Final = "correct the statistics, or compute them from the inputs"


class Normalization(NamedTuple):
    """Means and standard deviations in the order of `Channels`; all float32.

    Attributes:
        carried: mean and standard deviation, (2, carried), of variables that are fed back, as inputs.
        forced: mean and standard deviation, (2, forced), of forcings.
        static: mean and standard deviation, (2, static), of fields that never change.
        change: (carried,) standard deviation of the change in one step.
        diagnosed: mean and standard deviation, (2, diagnosed), of outputs that are not fed back.
    """

    carried: NDArray[np.float32]
    forced: NDArray[np.float32]
    static: NDArray[np.float32]
    change: NDArray[np.float32]
    diagnosed: NDArray[np.float32]


def normalization(channels: Channels, statistics: Mapping[str, xr.Dataset]) -> Normalization:
    """Return the constants of every channel.

    Args:
        channels: the places of the variables.
        statistics: normalization statistics by kind: ``mean``, ``stddev`` and ``diffs_stddev``. Each variable is one
            number, or one at each ``level``.

    Raises:
        StatisticsError: a number is missing or not finite, or a standard deviation is not positive.
    """

    def both(names: Iterable[str]) -> NDArray[np.float32]:
        return np.stack([_vector(channels, statistics, kind, names) for kind in ("mean", "stddev")])

    return Normalization(
        carried=both(channels.carried),
        forced=both(channels.forced),
        static=both(channels.static),
        change=_vector(channels, statistics, "diffs_stddev", channels.carried),
        diagnosed=both(channels.diagnosed),
    )


def _vector(
    channels: Channels, statistics: Mapping[str, xr.Dataset], kind: str, names: Iterable[str]
) -> NDArray[np.float32]:
    parts = [_constant(channels, statistics[kind], kind, name) for name in names]
    return np.concatenate([np.empty(0, np.float32), *parts])


def _constant(channels: Channels, dataset: xr.Dataset, kind: str, name: str) -> NDArray[np.float32]:
    if name not in dataset:
        raise StatisticsError(f"the {kind} statistics lack {name}; {_REMEDY}")
    found = dataset[name]
    if name in channels.on_levels:
        if "level" not in found.dims:
            raise StatisticsError(f"the {kind} of {name} must be given by level, but is one number; {_REMEDY}")
        lacking = sorted(set(channels.levels) - {int(level) for level in found["level"].values})
        if lacking:
            raise StatisticsError(
                f"the {kind} of {name} lacks the levels {lacking} hPa of {list(channels.levels)}; {_REMEDY}"
            )
        found = found.sel(level=list(channels.levels))
    values = np.atleast_1d(found.values).astype(np.float32)
    if values.ndim != 1 or values.size != channels.width([name]):
        raise StatisticsError(
            f"the {kind} of {name} must be one number at each level, but has shape {found.shape}; {_REMEDY}"
        )
    if not np.isfinite(values).all() or (kind != "mean" and (values <= 0).any()):
        what = "finite" if kind == "mean" else "positive"
        raise StatisticsError(f"the {kind} of {name} must be {what}, but is {values.tolist()}; {_REMEDY}")
    return values
