"""Find the members of an ensemble in an open dataset, and select one of them.

Members are along a dimension; or a file holds one member, whose number is a scalar coordinate. Of the parameters named
``names``, each key is a name in the dataset and each value the model's name for it.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import xarray as xr

from graphcast_batch.errors import InputError
from graphcast_batch.inputs.formats.grib import MEMBERS

MEMBER: Final = "number"
"""Name of the coordinate of members, to which a configuration maps one of another name."""
MEMBER_NAMES: Final = (MEMBER, "member", "realization", "ensemble", "ensemble_member")
"""Names of coordinates of members that are known; they are compared without regard to case."""


def member_numbers(dataset: xr.Dataset, names: Mapping[str, str], origin: str) -> tuple[int, ...]:
    """Return the numbers of the members, in the order of the dataset; empty if it does not state any.

    Members along a dimension without a coordinate are numbered from 0.

    Args:
        dataset: the dataset, with its own names; of a GRIB file, with any of its members.
        names: names that the configuration gives.
        origin: path or address of the dataset, for messages.

    Raises:
        InputError: the coordinate does not hold a whole number for each member, or repeats one.
    """
    if MEMBERS in dataset.encoding:
        return tuple(dataset.encoding[MEMBERS])
    axis = _axis(dataset, names)
    if axis is None:
        return ()
    if axis not in dataset.variables:
        return tuple(range(dataset.sizes[axis]))
    values = np.atleast_1d(dataset[axis].values)
    numeric = values.ndim == 1 and np.issubdtype(values.dtype, np.number) and np.isfinite(values).all()
    if not numeric or np.any(values != np.round(values)) or np.unique(values).size < values.size:
        raise InputError(
            f"the coordinate {axis} of {origin} must hold another whole number for each member, but holds "
            f"{', '.join(map(str, values.ravel()[:4].tolist()))}{' ...' if values.size > 4 else ''}; number the members"
        )
    return tuple(int(value) for value in values)


def member_place(dataset: xr.Dataset, names: Mapping[str, str], number: int, origin: str) -> dict[str, int]:
    """Return the dimension of members and the index along it of one of them; empty if there is no such dimension.

    Args:
        dataset: the dataset, with its own names.
        names: names that the configuration gives.
        number: number of the member.
        origin: path or address of the dataset, for messages.

    Raises:
        InputError: the dataset does not hold the member.
    """
    numbers = member_numbers(dataset, names, origin)
    if number not in numbers:
        raise InputError(f"{origin} must hold the member {number}, but holds {list(numbers)}; add it")
    axis = _axis(dataset, names)
    return {} if axis is None or axis not in dataset.dims else {axis: numbers.index(number)}


def of_member(dataset: xr.Dataset, place: Mapping[str, int]) -> xr.Dataset:
    """Return the variables of one member, without those that all members share.

    Args:
        dataset: the dataset, with its own names.
        place: place of the member, from `member_place`.
    """
    shared = [name for name, array in dataset.data_vars.items() if not set(place) <= set(array.dims)]
    return dataset.drop_vars(shared).isel(place, drop=True)


def member_dims(dims: Sequence[str]) -> list[str]:
    """Return those of some dimensions, in the model's names, that are members of an ensemble."""
    return [dim for dim in dims if dim.lower() in MEMBER_NAMES]


def _axis(dataset: xr.Dataset, names: Mapping[str, str]) -> str | None:
    """Return the name of the dimension of members, else that of the scalar coordinate; None if there is neither."""
    dims = list(map(str, dataset.dims))
    scalars = [str(name) for name, array in dataset.coords.items() if not array.dims]
    every = [name for name in (*dims, *scalars) if names.get(name, name).lower() in MEMBER_NAMES]
    return every[0] if every else None
