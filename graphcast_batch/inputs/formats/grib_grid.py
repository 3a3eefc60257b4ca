"""Say where on the globe each value of a GRIB message lies.

The rows and columns are those of the points themselves, as ecCodes gives them value by value. Its keys
``distinctLatitudes`` and ``distinctLongitudes`` are sorted, so they do not fit data whose first column is elsewhere
than at the least longitude.
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
"""Of cdo, that makes the points of a ``gridType`` regular."""
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
        order: for each row and each column that is wanted, where it lies; None for the message's own order.
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
        """The values of a message, one after the other, as rows and columns."""
        table = _table(values, self.shape, by_columns=self.by_columns, alternating=self.alternating)
        return table if self.order is None else table[np.ix_(*self.order)]

    def like(self, other: "GribGrid") -> "GribGrid | None":
        """This grid with its values in the order of another of the same points; None if the points differ."""
        rows, columns = _matching(self.latitude, other.latitude), _matching(self.longitude, other.longitude)
        if rows is None or columns is None:
            return None
        order = rows, columns
        return GribGrid(other.latitude, other.longitude, self.by_columns, self.alternating, order)


def grib_grid(message: Mapping[str, Any], kind: str, origin: str) -> GribGrid:
    """The grid of a message.

    Args:
        message: by ecCodes' keys.
        kind: its ``gridType``.
        origin: path of its file.

    Raises:
        InputError: it is no grid of latitudes and longitudes; names what makes one of it.
    """
    if kind not in _REGULAR:
        raise _other_grid(kind, origin)
    shape = int(message["Nj"]), int(message["Ni"])
    by_columns = bool(message["jPointsAreConsecutive"])
    # ecCodes' coordinates take no notice of rows that go back: they are those of a plain scan.
    latitude, longitude = (
        _table(np.asarray(message[name], np.float64), shape, by_columns=by_columns, alternating=False)
        for name in ("latitudes", "longitudes")
    )
    if np.ptp(latitude, axis=1).max() > SAME_PLACE_DEGREES or np.ptp(longitude, axis=0).max() > SAME_PLACE_DEGREES:
        raise _other_grid(kind, origin)
    return GribGrid(latitude[:, 0], longitude[0], by_columns, bool(message["alternativeRowScanning"]))


def _other_grid(kind: str, origin: str) -> InputError:
    """What to say of a grid that is not of latitudes times longitudes."""
    operator = _OPERATORS.get(kind)
    remedy = _REGULAR_GRID.format(operator=operator, origin=origin) if operator else _REGIONAL
    return InputError(
        f"the input {origin} must have a grid of latitudes times longitudes ({', '.join(_REGULAR)}), but has "
        f"{kind}{f' ({_WORDS[kind]})' if kind in _WORDS else ''}; {remedy}"
    )


def _table(values: NDArray[Any], shape: tuple[int, int], *, by_columns: bool, alternating: bool) -> NDArray[Any]:
    """Values (row, column) of those that follow one another in a message."""
    runs = values.reshape(shape[::-1] if by_columns else shape)
    if alternating:
        runs = runs.copy()
        runs[1::2] = runs[1::2, ::-1]
    return runs.T if by_columns else runs


def _matching(values: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.intp] | None:
    """Where each wanted value, in degrees, lies among others; None if they are not the same."""
    if values.size != wanted.size:
        return None
    found, sought = np.round(values, 3) % 360, np.round(wanted, 3) % 360
    places = np.empty(wanted.size, np.intp)
    places[np.argsort(sought)] = np.argsort(found)
    return places if np.allclose(found[places], sought, rtol=0, atol=SAME_PLACE_DEGREES) else None
