"""Find the constant fields of an archive, and refuse files that contradict each other."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import InputError
from graphcast_batch.inputs.quality.geography import find_misplaced
from graphcast_batch.inputs.sources.volumes import Volume
from graphcast_batch.variables import VARIABLES

_PLACE: Final = {"latitude", "longitude"}
_PACKED: Final = 1e-3
"""Largest difference of two copies of a field, as a fraction of its range: float16 rounds by half of it."""


def fixed_fields(statics: Volume) -> Mapping[str, tuple[str, ...]]:
    """Return the dimensions of the constant fields in a file of statics.

    Raises:
        InputError: the file has no constant fields, or a static variable at several times.
    """
    dims = statics.contents.dims
    fixed = {name: found for name, found in dims.items() if set(found) >= _PLACE and "time" not in found}
    moving = [name for name, found in dims.items() if "time" in found and _is_static(name)]
    if fixed and not moving:
        return fixed
    found = f"{', '.join(moving)} at {statics.contents.times.size} times" if moving else "none"
    raise InputError(
        f"inputs.statics must name a file that holds fields without time, or with one time, but {statics.origin} holds "
        f"{found}, of {', '.join(dims) or 'nothing'}; select one time, or name another file"
    )


def check_same(volumes: Sequence[Volume], names: Collection[str]) -> None:
    """Check that a variable that has no time in one file is equal in all files.

    Args:
        volumes: files of the archive.
        names: names of the variables to compare.

    Raises:
        InputError: two files differ; the error names the variable and both files.
    """
    for name in sorted(names):
        holders = [volume for volume in volumes if name in volume.contents.dims]
        if len(holders) < 2 or all("time" in volume.contents.dims[name] for volume in holders):
            continue
        first = _first_field(holders[0], name)
        for volume in holders[1:]:
            other = _first_field(volume, name)
            if first is not None and other is not None and not _alike(first.values, other.values):
                raise InputError(
                    f"{name} must be the same in all files, as it has no time, but {holders[0].origin}"
                    f"{_remark(first)} and {volume.origin}{_remark(other)} hold it differently; leave one of them out "
                    "of inputs.path, or name the file to take it from in inputs.statics"
                )


def _is_static(name: str) -> bool:
    return name in VARIABLES and VARIABLES[name].kind == "static"


def _first_field(volume: Volume, name: str) -> xr.DataArray | None:
    """Return a variable at the first time of a file, if it has times; None if it cannot be read."""
    times = volume.times_of(name)[:1]
    with suppress(InputError):  # the error is raised again when the field is needed
        field = volume.fields([name], times, volume.contents.levels)[name]
        return field.isel(time=0, drop=True) if "time" in field.dims else field
    return None


def _alike(one: NDArray[np.floating], other: NDArray[np.floating]) -> bool:
    """Return whether two fields are equal, apart from the rounding of packed data."""
    away = _PACKED * float(np.nanmax(one) - np.nanmin(one)) if np.isfinite(one).any() else 0.0
    return one.shape == other.shape and np.allclose(one, other, rtol=0, atol=away, equal_nan=True)


def _remark(field: xr.DataArray) -> str:
    """Return a remark on a field that does not match the geography of the Earth; empty for others."""
    wrong = find_misplaced(field.to_dataset(), xr.Dataset())
    return f" ({wrong[0].found})" if wrong else ""
