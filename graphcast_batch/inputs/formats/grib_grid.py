"""Compute the latitude and longitude of each value of a GRIB message.

Rows and columns follow from the coordinates that ecCodes gives value by value. Its keys ``distinctLatitudes`` and
``distinctLongitudes`` are sorted, which is wrong for data whose first column is not at the least longitude.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.errors import InputError
from graphcast_batch.grid import SAME_PLACE_DEGREES

_REGULAR: Final = ("regular_ll", "regular_gg")
_REGULAR_GRID: Final = (
    "request it on a grid of latitudes and longitudes (grid: 0.25/0.25 in requests to MARS and the CDS), or run: "
    "cdo remapbil,r1440x720 {operator} {origin} OUT.grib, give OUT.grib, and set inputs.regrid: linear"
)
_OPERATORS: Final = {"reduced_gg": "-setgridtype,regular", "reduced_ll": "-setgridtype,regular", "sh": "-sp2gpl"}
"""Operators of cdo that make the points regular, by ``gridType``."""
_WORDS: Final = {"reduced_gg": "reduced Gaussian", "reduced_ll": "reduced", "sh": "spectral coefficients"}
_REGIONAL: Final = "give data of the whole globe on latitudes and longitudes: a regional model's cannot be used"


@dataclass(frozen=True, eq=False)
class GribGrid:
    """The points of a message, in any of GRIB's scanning modes.

    Attributes:
        latitude: (row,) float64 degrees, in the order of the message.
        longitude: (column,) float64 degrees, in the order of the message's first row.
        by_columns: whether the values run along a meridian first.
        alternating: whether every second run of values goes back (WMO code table 3.4, bit 4).
        order: indices of the rows and of the columns in the wanted order; None for the order of the message.
    """

    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    by_columns: bool
    alternating: bool
    order: tuple[NDArray[np.intp], NDArray[np.intp]] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.latitude.size, self.longitude.size

    def field(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return values in the order of the message as a (row, column) table."""
        table = _table(values, self.shape, by_columns=self.by_columns, alternating=self.alternating)
        return table if self.order is None else table[np.ix_(*self.order)]

    def like(self, other: "GribGrid") -> "GribGrid | None":
        """Return this grid with the order of another grid of the same points; None if the points differ."""
        rows, columns = _matching(self.latitude, other.latitude), _matching(self.longitude, other.longitude)
        if rows is None or columns is None:
            return None
        order = rows, columns
        return GribGrid(other.latitude, other.longitude, self.by_columns, self.alternating, order)


def grib_grid(message: Mapping[str, Any], kind: str, origin: str) -> GribGrid:
    """Return the grid of a message.

    Args:
        message: values of the message by the keys of ecCodes.
        kind: ``gridType`` of the message.
        origin: path of the file, for messages.

    Raises:
        InputError: the grid does not consist of latitudes times longitudes; the error names a command that regrids it.
    """
    if kind not in _REGULAR:
        raise _other_grid(kind, origin)
    shape = int(message["Nj"]), int(message["Ni"])
    by_columns = bool(message["jPointsAreConsecutive"])
    # The coordinates of ecCodes ignore alternating rows: they are those of rows that all have one direction.
    latitude, longitude = (
        _table(np.asarray(message[name], np.float64), shape, by_columns=by_columns, alternating=False)
        for name in ("latitudes", "longitudes")
    )
    if np.ptp(latitude, axis=1).max() > SAME_PLACE_DEGREES or np.ptp(longitude, axis=0).max() > SAME_PLACE_DEGREES:
        raise _other_grid(kind, origin)
    return GribGrid(latitude[:, 0], longitude[0], by_columns, bool(message["alternativeRowScanning"]))


def _other_grid(kind: str, origin: str) -> InputError:
    """Return the error for a grid that does not consist of latitudes times longitudes."""
    operator = _OPERATORS.get(kind)
    remedy = _REGULAR_GRID.format(operator=operator, origin=origin) if operator else _REGIONAL
    return InputError(
        f"the input {origin} must have a grid of latitudes times longitudes ({', '.join(_REGULAR)}), but has "
        f"{kind}{f' ({_WORDS[kind]})' if kind in _WORDS else ''}; {remedy}"
    )


def _table(values: NDArray[Any], shape: tuple[int, int], *, by_columns: bool, alternating: bool) -> NDArray[Any]:
    """Return values in the order of a message as a (row, column) table."""
    runs = values.reshape(shape[::-1] if by_columns else shape)
    if alternating:
        runs = runs.copy()
        runs[1::2] = runs[1::2, ::-1]
    return runs.T if by_columns else runs


def _matching(values: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.intp] | None:
    """Return the index of each wanted angle, in degrees, among others; None if the angles are not equal."""
    if values.size != wanted.size:
        return None
    found, sought = np.round(values, 3) % 360, np.round(wanted, 3) % 360
    indices = np.empty(wanted.size, np.intp)
    indices[np.argsort(sought)] = np.argsort(found)
    return indices if np.allclose(found[indices], sought, rtol=0, atol=SAME_PLACE_DEGREES) else None
