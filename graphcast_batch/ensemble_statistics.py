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
    found["long_name"] = f"{found['long_name']}, {statistic_text(statistic)} of the ensemble"
    if isinstance(statistic, str):  # CF has no method for quantiles
        method = f"number: {statistic}"
        found["cell_methods"] = f"{found['cell_methods']} {method}" if "cell_methods" in found else method
    return found


def statistic_text(statistic: Statistic) -> str:
    """Return a statistic as text, such as ``standard deviation`` or ``quantile 0.9``."""
    return _label(statistic).replace("_", " ")


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


class RunningMoments:
    """Mean and standard deviation of fields that come one after another, of which none is kept.

    They are updated in float64 with each field (Welford 1962, https://doi.org/10.1080/00401706.1962.10490022), which is
    as exact as two passes over all fields.
    """

    def __init__(self) -> None:
        """Begin without a field."""
        self._count = 0
        self._mean: NDArray[np.float64] = np.zeros(())
        self._squares: NDArray[np.float64] = np.zeros(())

    def add(self, field: NDArray[np.float32]) -> None:
        """Add a field, of the shape of those before; where a value is NaN, the results are NaN."""
        self._count += 1
        off = field - self._mean
        self._mean = self._mean + off / self._count
        self._squares = self._squares + off * (field - self._mean)

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean of the fields, one at least."""
        return self._mean

    @property
    def standard_deviation(self) -> NDArray[np.float64]:
        """Standard deviation of the fields, two at least, with their number less one as divisor."""
        return np.asarray(np.sqrt(self._squares / (self._count - 1)))


def _label(statistic: Statistic) -> str:
    return statistic if isinstance(statistic, str) else f"quantile_{statistic:g}"
