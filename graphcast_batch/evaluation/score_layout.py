"""Lay out the zarr group of one kind of scores: its dimensions, arrays, coordinates and identity."""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr
from numpy.typing import NDArray
from pydantic import JsonValue
from zarr.codecs import BloscCodec
from zarr.errors import ZarrUserWarning

from graphcast_batch.stores.base import Store
from graphcast_batch.variables import VARIABLES

SPECTRUM: Final = "_spectrum"
"""Suffix of a variable's name for the array of its power by zonal wavenumber."""
PARTS: Final = ("forecast", "truth", "error")
"""Labels along the dimension ``part`` of a spectrum."""
OF_MEAN: Final = "mean"
"""Further label of the spectrum of an ensemble: power of the mean of its members. `forecast` is that of a member."""
ON_LEVELS: Final = " (on levels)"
"""Suffix of a variable's name in the identity of a group, if it is on levels."""
RECORDS: Final = "records"
"""Name of the folder in a group with one record for each scored Case."""
BOXES: Final = "boxes"
"""Key of an identity with the edges of the regions that a config defines."""
VECTORS: Final = "vectors"
"""Key of an identity with the components of each vector that is scored."""
IDENTITY: Final = "graphcast_batch_scores"
"""Name of the group's attribute that describes what makes its scores comparable."""
_LEADS_A_CHUNK: Final = 40
"""Lead times in a chunk. Fixed, so that longer forecasts keep the layout; lead times past the last take no space."""
_CODEC: Final = BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")


@dataclass(frozen=True, eq=False)
class ScoreLayout:
    """The dimensions of a group of scores, beside the initial and lead times of the store.

    Attributes:
        statistics: names of the statistics.
        on_levels: for each variable, whether it is on levels.
        levels: hPa, ascending.
        regions: names of the regions.
        areas: (region,) area of each region, as a share of the globe.
        identity: what makes scores comparable: truth, climatology, members, lags and the edges of boxes.
        spectra: variables that have spectra beside their statistics.
        bands: the regions for which spectra are computed; empty without spectra.
        parts: whose power the spectra are.
    """

    statistics: tuple[str, ...]
    on_levels: tuple[tuple[str, bool], ...]
    levels: tuple[int, ...]
    regions: tuple[str, ...]
    areas: NDArray[np.float64]
    identity: Mapping[str, JsonValue]
    spectra: tuple[str, ...] = ()
    bands: tuple[str, ...] = ()
    parts: tuple[str, ...] = PARTS

    @property
    def known(self) -> dict[str, JsonValue]:
        """Everything that must be equal for scores to be kept in one group."""
        known = {
            "statistics": self.statistics,
            "variables": [f"{name}{ON_LEVELS}" if levelled else name for name, levelled in self.on_levels],
            "levels": self.levels,
            "regions": dict(zip(self.regions, np.round(self.areas, 12).tolist(), strict=True)),
            **self.identity,
        }
        if self.spectra:  # a group without spectra has no such key
            known["spectra"] = self.spectra
        return dict(json.loads(json.dumps(known)))


def create(folder: Path, store: Store, layout: ScoreLayout) -> None:
    """Create a group with metadata and coordinates, without scores."""
    identity = json.dumps(layout.known, sort_keys=True)
    group = zarr.create_group(folder, attributes={"Conventions": "CF-1.11", IDENTITY: identity})
    (folder / RECORDS).mkdir()
    coordinates = _coordinates(store, layout)
    for dim, (values, of_axis) in coordinates.items():
        length = 4096 if dim in ("time", "prediction_timedelta") else values.size
        array = _array(group, dim, (dim,), values.shape, (length,), str if values.dtype.kind == "U" else values.dtype)
        array.update_attributes(dict(of_axis))
        array.with_config({"write_empty_chunks": True})[...] = values
    area = _array(group, "area", ("region",), layout.areas.shape, layout.areas.shape, np.dtype(np.float64))
    area.update_attributes({"long_name": "area of the region, in shares of the globe", "units": "1"})
    area[...] = layout.areas
    for name, levelled in layout.on_levels:
        between = ("time", "prediction_timedelta", *(("level",) if levelled else ()))
        sizes = {dim: values.size for dim, (values, _) in coordinates.items()}
        if layout.statistics:
            array = _values(group, name, ("statistic", *between, "region"), sizes)
            array.update_attributes(
                {"long_name": f"means of statistics of {name.replace('_', ' ')}", **_unit(name, layout)}
            )
        if name in layout.spectra:
            # Spectra are so much larger than statistics that reading one level should not read all.
            dims = ("part", *between, "band", "wavenumber")
            array = _values(group, name + SPECTRUM, dims, sizes, by_level=True)
            array.update_attributes(
                {"long_name": f"power by wavenumber of {name.replace('_', ' ')}", **_unit(name, layout)}
            )
    with warnings.catch_warnings():
        # zarr warns that the specification of version 3 does not yet have what xarray and zarr both read.
        warnings.simplefilter("ignore", ZarrUserWarning)
        zarr.consolidate_metadata(folder)


def _values(
    group: zarr.Group, name: str, dims: tuple[str, ...], sizes: Mapping[str, int], *, by_level: bool = False
) -> zarr.Array[Any]:
    """Create an array in which each Case is one file; its third dimension is the lead time."""
    shape = tuple(sizes[dim] for dim in dims)
    case = (shape[0], 1, _LEADS_A_CHUNK, *shape[3:])
    chunk = tuple(1 if by_level and dim == "level" else size for dim, size in zip(dims, case, strict=True))
    return _array(group, name, dims, shape, chunk, np.dtype(np.float64), case if by_level else None)


def _array(
    group: zarr.Group,
    name: str,
    dims: Sequence[str],
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dtype: Any,  # noqa: ANN401 - zarr takes the type str itself for text
    shards: tuple[int, ...] | None = None,
) -> zarr.Array[Any]:
    text = dtype is str
    return group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        shards=shards,
        dtype=dtype,
        compressors=None if text else _CODEC,
        fill_value=None if text else np.nan if dtype == np.float64 else 0,
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=tuple(dims),
    )


def _coordinates(store: Store, layout: ScoreLayout) -> dict[str, tuple[NDArray[Any], dict[str, str]]]:
    time_of = {"standard_name": "forecast_reference_time", "units": "hours since 1970-01-01"}
    time_of |= {"calendar": "proleptic_gregorian"}
    lead_of = {"standard_name": "forecast_period", "units": "hours", "dtype": "timedelta64[ns]"}
    level_of = {"standard_name": "air_pressure", "units": "hPa", "positive": "down"}
    statistic_of = {"long_name": "statistic of single points, of which these are means"}
    level = {"level": (np.array(layout.levels, np.int32), level_of)} if layout.levels else {}
    spectral: dict[str, tuple[NDArray[Any], dict[str, str]]] = {}
    if layout.spectra:
        wavenumbers = np.arange(store.kept.longitude.size // 2 + 1)
        spectral = {
            "part": (np.array(layout.parts), {"long_name": "whose power it is; error is (mean) forecast minus truth"}),
            "band": (np.array(layout.bands), {"long_name": "region of whole latitude circles"}),
            "wavenumber": (wavenumbers, {"long_name": "zonal wavenumber, waves in a latitude circle", "units": "1"}),
        }
    return {
        **({"statistic": (np.array(layout.statistics), statistic_of)} if layout.statistics else {}),
        "time": (store.init_times.astype(np.int64), time_of),
        "prediction_timedelta": (np.array(store.kept.lead_hours, np.int64), lead_of),
        **level,
        "region": (np.array(layout.regions), {"long_name": "region"}),
        **spectral,
    }


def _unit(name: str, layout: ScoreLayout) -> dict[str, str]:
    """Return the unit of a variable or vector as an attribute; squares and products have its square."""
    vectors = layout.identity.get(VECTORS)
    parts = vectors.get(name) if isinstance(vectors, dict) else None
    first = str(parts[0]) if isinstance(parts, list) and parts else name
    return {"variable_units": VARIABLES[first].units} if first in VARIABLES else {}
