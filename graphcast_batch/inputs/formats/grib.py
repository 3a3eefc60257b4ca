"""Open GRIB files as datasets whose fields are decoded when they are read."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from graphcast_batch.errors import InputError
from graphcast_batch.inputs.formats.extras import extra_module
from graphcast_batch.inputs.formats.grib_grid import GribGrid, grib_grid
from graphcast_batch.inputs.provenance import GRIB_KEYS
from graphcast_batch.inputs.window_names import PERIODS, WINDOW, WINDOW_BOUNDS

_HEADERS: Final = (
    "paramId",
    "typeOfLevel",
    "level:float",
    "number",
    "time",
    "valid_time",
    "stepType",
    "stepUnits:int",
    "startStep:int",
    "endStep:int",
    "gridType",
    "md5GridSection",
)
_NAMES: Final = ("cfVarName", "shortName", "name", "units")
"""Headers that follow from paramId: read once for each paramId, since they take most of the time of reading headers."""
_PRESSURE: Final = "isobaricInhPa"
_SELECT: Final = "select its fields with: grib_copy -w KEY=VALUE IN OUT, by keys that grib_ls -P stepRange,number shows"
LEFT_OUT: Final = "left_out"
"""Key of a dataset's encoding: the variables that are left out, each with the reason."""
MEMBERS: Final = "members"
"""Key of a dataset's encoding: the numbers of all members of an ensemble that the file holds, ascending."""
Member = int | Literal["first"] | None
"""The member of an ensemble that is read: its number, or the first of a file; None where there must be only one."""
LEAD_HOURS: Final = "lead_hours"
"""Key of a variable's encoding: lead time of each field in hours, (time, [level]), NaN where there is no field."""
_PRECIPITATION: Final = "tp"
_CONSTANT: Final = ("lsm", "z_surface")
"""Parameters 172 and 129 of ECMWF's database, which some files repeat unchanged at every time."""
_ONE_PLACE: Final = ("t2m", "msl", "u10", "v10", "tp", "tisr", "lsm", "orog")
"""Variables whose name implies their height; the level is ignored, since editions of GRIB encode it differently."""
_ON_LEVELS: Final = ("t", "z", "gh", "u", "v", "w", "q")
"""Variables that are on pressure levels under their plain name; on another type of level its name is appended."""

_MEANING: Final = ("stepType", "startStep:int", "endStep:int", "time", "md5GridSection")
"""Headers in which two fields of one variable, time and level must agree to count as repeats of each other."""

_Header = dict[str, Any]
_Stream = Mapping[object, Mapping[str, Any]]


def read_headers(path: Path, modified_ns: int, size: int, origin: str, member: Member = None) -> xr.Dataset:
    """Read the headers of a GRIB file into a dataset whose fields are read when they are needed.

    The result is cached: reading all headers takes long, and a file is opened for every Case.

    Args:
        path: path of the file.
        modified_ns: time of the last change of the file in ns, part of the key of the cache.
        size: size of the file in bytes, part of the key of the cache.
        origin: name of the file in messages.
        member: member whose fields are read.

    Raises:
        InputError: the file holds several members and none is chosen, or not the one that is; another grid, or no
            variable with unambiguous fields.
    """
    return (_of_one if member is None else _of_several)(path, modified_ns, size, origin, member)


def read_headers_once(path: Path, origin: str, member: Member = None) -> xr.Dataset:
    """Return what `read_headers` does, without a cache."""
    cfgrib = extra_module("cfgrib", "grib")
    stream = cfgrib.FileStream(str(path), errors="raise")
    index = cfgrib.FieldsetIndex.from_fieldset(stream, _HEADERS, cfgrib.COMPUTED_KEYS)
    headers: list[_Header] = [
        dict(zip(_HEADERS, values, strict=True), id=place) for values, places in index.iter_index() for place in places
    ]
    samples = {header["paramId"]: header["id"] for header in headers}
    names = {number: {key: stream[place].get(key, "unknown") for key in _NAMES} for number, place in samples.items()}
    headers = [header | names[header["paramId"]] for header in headers]
    members = _members(headers)
    headers = _of_member(headers, members, member, origin)
    grids = _grids(stream, headers, origin)
    grouped = {
        name: found if name == _PRECIPITATION else _each_once(stream, name, found)
        for name, found in _by_variable(headers).items()
    }
    reasons = {name: reason for name, found in grouped.items() if (reason := _unclear(name, found))}
    variables = {name: found for name, found in grouped.items() if name not in reasons}
    if not variables:
        first, reason = next(iter(reasons.items()))
        raise InputError(
            f"the input {origin} must hold a variable whose fields are each there once, but holds none: {first} "
            f"{reason}; {_SELECT}"
        )
    dataset = _grib_dataset(stream, variables, grids)
    dataset.encoding[LEFT_OUT] = {
        name: f"{name} of {origin} {reason} and is left out; {_SELECT}" for name, reason in reasons.items()
    }
    dataset.encoding[MEMBERS] = members
    return dataset


@functools.lru_cache(maxsize=8)
def _of_one(path: Path, modified_ns: int, size: int, origin: str, member: Member) -> xr.Dataset:
    return read_headers_once(path, origin, member)


@functools.lru_cache(maxsize=64)
def _of_several(path: Path, modified_ns: int, size: int, origin: str, member: Member) -> xr.Dataset:
    """Cache more datasets, each of which holds one member of a file only."""
    return read_headers_once(path, origin, member)


def _grib_dataset(
    stream: _Stream, variables: Mapping[str, Sequence[_Header]], grids: Mapping[str, GribGrid]
) -> xr.Dataset:
    dims = {name: _header_dims(name, headers) for name, headers in variables.items()}
    coords = {
        dim: np.unique([header[key] for name, headers in variables.items() if dim in dims[name] for header in headers])
        for dim, key in sorted({pair for found in dims.values() for pair in found.items()})
    }
    first = stream[next(iter(variables.values()))[0]["id"]]
    grid = next(iter(grids.values()))
    points = {"latitude": grid.latitude, "longitude": grid.longitude}
    arrays = {}
    for name, headers in variables.items():
        fields = _GribFields(stream, _placed(headers, dims[name], coords, lambda header: header["id"]), grids)
        arrays[name] = xr.Variable((*dims[name], *points), indexing.LazilyIndexedArray(fields), _attributes(headers))
        if dims[name].get("valid_time"):
            arrays[name].encoding[LEAD_HOURS] = _placed(headers, dims[name], coords, _lead_hours).astype(np.float64)
    if "valid_time" in coords:
        coords["valid_time"] = _dates(coords["valid_time"])
    bounds = _window_bounds(variables[_PRECIPITATION]) if _PRECIPITATION in variables else {}
    attributes = {"GRIB_edition": int(first["edition"]), **_provenance(first)}
    return xr.Dataset(arrays, {**coords, **points, **bounds}, attributes)


def _dates(seconds: NDArray[Any]) -> NDArray[np.datetime64]:
    return np.asarray(seconds).astype("datetime64[s]").astype("datetime64[ns]")


def _window_bounds(headers: Sequence[_Header]) -> dict[str, xr.Variable]:
    """Return the begin and end of the sum of each message, and the initial time of its forecast."""
    ends = _dates(np.asarray([header["valid_time"] for header in headers]))
    lengths = np.asarray([_hours(header) for header in headers]) * 3600e9
    is_sum = np.asarray([header["stepType"] == "accum" for header in headers])
    starts = np.where(is_sum, ends - np.round(lengths).astype("timedelta64[ns]"), np.datetime64("NaT", "ns"))
    init_times = _dates(np.asarray([header["time"] for header in headers]))
    bounds = zip(WINDOW_BOUNDS, (starts, ends, init_times), strict=True)
    return {name: xr.Variable(WINDOW, dates) for name, dates in bounds}


def _provenance(message: Mapping[str, Any]) -> dict[str, str]:
    """Return the keys of a message that identify its center, as far as it has them; only some have ECMWF's class."""
    return {f"GRIB_{key}": str(message[key]) for key in GRIB_KEYS if message.get(key) is not None}


def _attributes(headers: Sequence[_Header]) -> dict[str, Any]:
    kind = headers[0]["stepType"]
    hours = {} if kind == "instant" else {PERIODS: sorted({_hours(header) for header in headers})}
    return {"long_name": headers[0]["name"], "units": headers[0]["units"], "GRIB_stepType": kind} | hours


def _header_dims(name: str, headers: Sequence[_Header]) -> dict[str, str]:
    """Return the dimensions of a variable besides latitude and longitude, each with the header of its coordinate."""
    if name == _PRECIPITATION:
        return {WINDOW: WINDOW}
    kind = headers[0]["typeOfLevel"]
    has_levels = kind == _PRESSURE or len({_place(name, header)[1] for header in headers}) > 1
    time = {} if name in _CONSTANT else {"valid_time": "valid_time"}
    return time | ({kind: "level:float"} if has_levels else {})


def _by_variable(headers: Sequence[_Header]) -> dict[str, list[_Header]]:
    """Group headers by the name of their variable in the dataset."""
    kinds: dict[str, set[str]] = {}
    for header in headers:
        kinds.setdefault(_short_name(header), set()).add(header["typeOfLevel"])
    grouped: dict[str, list[_Header]] = {}
    for header in headers:
        name, kind = _short_name(header), header["typeOfLevel"]
        is_alone = len(kinds[name]) == 1 and name not in _ON_LEVELS
        is_plain = kind == _PRESSURE or name in _ONE_PLACE or is_alone
        grouped.setdefault(name if is_plain else f"{name}_{kind}", []).append(header)
    for place, header in enumerate(grouped.get(_PRECIPITATION, ())):
        header[WINDOW] = place
    return grouped


def _each_once(stream: _Stream, name: str, headers: Sequence[_Header]) -> list[_Header]:
    """Drop repeats: of one time and level keep the forecast that started last, and one of several equal fields."""
    places: dict[object, list[_Header]] = {}
    for header in headers:
        places.setdefault(_place(name, header), []).append(header)
    return [header for found in places.values() for header in (_apart(stream, found) if found[1:] else found)]


def _place(name: str, header: _Header) -> tuple[object, ...]:
    """Return the time and level of a field, which identify it among the fields of its variable."""
    return header["valid_time"], None if name in _ONE_PLACE else header["level:float"]


def _apart(stream: _Stream, headers: Sequence[_Header]) -> list[_Header]:
    """Return the fields of one time and level without those that are equal to another one."""
    if all(header["stepType"] == "instant" for header in headers):
        last = max(header["time"] for header in headers)
        headers = [header for header in headers if header["time"] == last]
    different: list[_Header] = []
    for header in headers:
        same = (one for one in different if all(one[key] == header[key] for key in _MEANING))
        if not any(np.array_equal(stream[one["id"]]["values"], stream[header["id"]]["values"]) for one in same):
            different.append(header)
    return different


def _short_name(header: _Header) -> str:
    """Return the name that cfgrib gives to a variable."""
    name = header["cfVarName"]
    return str(header["shortName"] if name in ("undef", "unknown") else name)


def _unclear(name: str, headers: Sequence[_Header]) -> str:
    """Return the reason why fields do not form one variable; empty if each is there once and all are of one kind.

    Precipitation is never ambiguous: each field has its own window. Other sums and averages are not checked here; the
    reader of archives checks the lengths of their windows.
    """
    places = {_place(name, header) for header in headers}
    kinds = sorted({header["stepType"] for header in headers})
    if name == _PRECIPITATION:
        return ""
    if len(places) < len(headers) and name not in _CONSTANT:
        return "is there twice for the same time and level"
    return f"is {' and '.join(kinds)}" if len(kinds) > 1 else ""


def _hours(header: _Header) -> float:
    """Return the length of the time window of a message in hours."""
    hours = extra_module("cfgrib.cfmessage", "grib").from_grib_step
    return float(hours(header, "endStep:int") - hours(header, "startStep:int"))


def _placed(
    headers: Sequence[_Header],
    dims: Mapping[str, str],
    coords: Mapping[str, NDArray[Any]],
    value_of: Callable[[_Header], object],
) -> NDArray[np.object_]:
    """Return an array over time and level of a value of each header; None where there is no field."""
    found = np.full([coords[dim].size for dim in dims], None, np.object_)
    for header in headers:
        found[tuple(np.searchsorted(coords[dim], header[key]) for dim, key in dims.items())] = value_of(header)
    return found


def _lead_hours(header: _Header) -> float:
    """Return the hours since the start of the forecast; -1 for sums and means, which depend on the length."""
    return (header["valid_time"] - header["time"]) / 3600 if header["stepType"] == "instant" else -1.0


def _members(headers: Sequence[_Header]) -> tuple[int, ...]:
    return tuple(sorted({header["number"] for header in headers} - {"undef"}))


def _of_member(headers: Sequence[_Header], members: Sequence[int], member: Member, origin: str) -> list[_Header]:
    """Return the headers of one member; of a file without numbers of members all."""
    if member is None and len(members) > 1:
        raise InputError(
            f"the input {origin} must hold one member of an ensemble, but holds {len(members)}, "
            f"{', '.join(map(str, members[:4]))}{' ...' if members[4:] else ''}; give the file in "
            "ensemble.perturbations, kind: file, to start a forecast from each, or run: "
            f"grib_copy -w number={members[0]} {origin} OUT.grib, for each member, and give OUT.grib"
        )
    if member is None or not members:
        return list(headers)
    chosen = members[0] if member == "first" else member
    if chosen not in members:
        raise InputError(f"the input {origin} must hold the member {chosen}, but holds {list(members)}; add it")
    return [header for header in headers if header["number"] == chosen]


def _grids(stream: _Stream, headers: Sequence[_Header], origin: str) -> dict[str, GribGrid]:
    """Return the grid of each message, by ``md5GridSection``; all have the same points, in different orders perhaps."""
    samples = {header["md5GridSection"]: header for header in headers}
    grids = {key: grib_grid(stream[header["id"]], header["gridType"], origin) for key, header in samples.items()}
    first = next(iter(grids.values()))
    alike = {key: grid if grid is first else grid.like(first) for key, grid in grids.items()}
    found = {key: grid for key, grid in alike.items() if grid}
    if len(found) < len(grids):
        shapes = ", ".join(f"{grid.shape[0]} x {grid.shape[1]}" for grid in grids.values())
        raise InputError(
            f"the input {origin} must have one grid, but has {len(grids)} ({shapes} points); run: "
            f"grib_copy {origin} 'OUT_[md5GridSection].grib', and give the file of the grid that is wanted"
        )
    return found


class _GribFields(BackendArray):
    """The fields of a variable in a file, each read when it is needed."""

    def __init__(self, stream: _Stream, ids: NDArray[np.object_], grids: Mapping[str, GribGrid]) -> None:
        self._stream, self._ids, self._grids = stream, ids, grids
        self._shape = next(iter(grids.values())).shape
        self.shape = (*ids.shape, *self._shape)
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> NDArray[np.float32]:
        found: NDArray[np.float32] = indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )
        return found

    def _read(self, key: tuple[Any, ...]) -> NDArray[np.float32]:
        *where, rows, columns = key
        ids = self._ids
        for axis, part in reversed(list(enumerate(where))):
            ids = ids[(slice(None),) * axis + (part,)]
        ids = np.asarray(ids, np.object_)
        fields = np.empty((*ids.shape, *self._shape), np.float32)
        for place in np.ndindex(ids.shape):
            fields[place] = self._field(ids[place])
        return fields[..., rows, :][..., columns]

    def _field(self, place: object) -> NDArray[np.float32] | float:
        if place is None:
            return np.nan
        message = self._stream[place]
        values = np.asarray(message["values"], np.float64)
        if message["bitmapPresent"]:
            values[values == message["missingValue"]] = np.nan
        return self._grids[message["md5GridSection"]].field(values.astype(np.float32))
