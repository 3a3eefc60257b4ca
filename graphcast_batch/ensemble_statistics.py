"""Name and compute the statistics of the members of an ensemble: mean, standard deviation and quantiles."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.config.outputs_section import MEAN, STANDARD_DEVIATION, Statistic
from graphcast_batch.variables import attributes

_RUN: Final = 2**16
"""Points whose statistics are computed at once, in float64: all members of all points would take twice their memory."""


def statistic_name(name: str, statistic: Statistic) -> str:
    """Return the name of a statistic of a variable, such as ``geopotential_mean`` or ``geopotential_quantile_0.9``."""
    return f"{name}_{_label(statistic)}"


def statistic_attributes(name: str, statistic: Statistic) -> dict[str, str]:
    """Return the CF attributes of a statistic of a variable, in the units of the variable."""
    found = attributes(name)
    found["long_name"] = f"{found['long_name']}, {_label(statistic).replace('_', ' ')} of the ensemble"
    if isinstance(statistic, str):  # CF has no method for quantiles
        method = f"number: {statistic}"
        found["cell_methods"] = f"{found['cell_methods']} {method}" if "cell_methods" in found else method
    return found


def statistics_of(values: NDArray[np.float32], wanted: Sequence[Statistic]) -> Mapping[Statistic, NDArray[np.float32]]:
    """Compute statistics over the members of an ensemble, in float64.

    Args:
        values: float32 (member, ...), two members at least for a standard deviation.
        wanted: which statistics.

    Returns:
        For each statistic float32 (...). The standard deviation is that of a sample, with the number of members less
        one as divisor. Quantiles are interpolated linearly between members (type 7 of Hyndman and Fan 1996,
        https://doi.org/10.1080/00031305.1996.10473566).
    """
    members = values.reshape(len(values), -1)
    found = {statistic: np.empty(members.shape[1], np.float32) for statistic in wanted}
    quantiles = [statistic for statistic in wanted if not isinstance(statistic, str)]
    for start in range(0, members.shape[1], _RUN):
        run = slice(start, start + _RUN)
        here = members[:, run].astype(np.float64)
        if MEAN in found:
            found[MEAN][run] = here.mean(axis=0)
        if STANDARD_DEVIATION in found:
            found[STANDARD_DEVIATION][run] = here.std(axis=0, ddof=1)
        if quantiles:
            for quantile, row in zip(quantiles, np.quantile(here, quantiles, axis=0), strict=True):
                found[quantile][run] = row
    return {statistic: row.reshape(values.shape[1:]) for statistic, row in found.items()}


def _label(statistic: Statistic) -> str:
    return statistic if isinstance(statistic, str) else f"quantile_{statistic:g}"
