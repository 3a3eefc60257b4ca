"""Identify variables with unknown names by their CF standard name, unit and level."""

from collections import Counter
from typing import Final

import xarray as xr

_ON_LEVELS: Final = {
    "air_temperature": "temperature",
    "geopotential": "geopotential",
    "geopotential_height": "geopotential",
    "eastward_wind": "u_component_of_wind",
    "northward_wind": "v_component_of_wind",
    "lagrangian_tendency_of_air_pressure": "vertical_velocity",
    "specific_humidity": "specific_humidity",
}
_ON_THE_GROUND: Final = {
    "air_pressure_at_mean_sea_level": "mean_sea_level_pressure",
    "air_pressure_at_sea_level": "mean_sea_level_pressure",
    "land_area_fraction": "land_sea_mask",
    "land_binary_mask": "land_sea_mask",
    "surface_geopotential": "geopotential_at_surface",
    "surface_altitude": "geopotential_at_surface",
}
_AT_HEIGHT: Final = {
    ("air_temperature", 2.0): "2m_temperature",
    ("eastward_wind", 10.0): "10m_u_component_of_wind",
    ("northward_wind", 10.0): "10m_v_component_of_wind",
}
"""The model's names, by standard name and height above the ground in m."""
_PLACE: Final = {"time", "latitude", "longitude"}
_OVER_TIME: Final = ("mean", "maximum", "minimum", "sum", "standard_deviation", "variance", "range", "median")
"""Cell methods (CF conventions, appendix E) of variables that are not instantaneous."""


def by_standard_name(dataset: xr.Dataset, axes: dict[str, str]) -> dict[str, str]:
    """Return the model's names of variables that are identified by their standard names, by their own names.

    A variable is identified if it alone has that standard name, and states its unit. Precipitation is left out, since
    its standard names do not give the length of its time window.

    Args:
        dataset: the dataset, with its own names.
        axes: the model's names of its coordinates, by their own names.
    """
    found = {str(name): model_name for name, array in dataset.data_vars.items() if (model_name := _meant(array, axes))}
    counts = Counter(found.values())
    return {own_name: model_name for own_name, model_name in found.items() if counts[model_name] == 1}


def _meant(array: xr.DataArray, axes: dict[str, str]) -> str | None:
    standard = str(array.attrs.get("standard_name", ""))
    if not standard or not str(array.attrs.get("units", "")).strip() or _is_over_time(array):
        return None
    dims = {axes.get(str(dim), str(dim)) for dim in array.dims} - _PLACE
    if dims == {"level"}:
        return _ON_LEVELS.get(standard)
    if dims or "level" in {axes.get(str(name), str(name)) for name in array.coords}:
        return None
    return _ON_THE_GROUND.get(standard) or _AT_HEIGHT.get((standard, _height(array)))


def _is_over_time(array: xr.DataArray) -> bool:
    return any(method in str(array.attrs.get("cell_methods", "")) for method in _OVER_TIME)


def _height(array: xr.DataArray) -> float:
    """Return the height of a variable above the ground in m; NaN if it is not stated."""
    height = array.coords.get("height")
    if height is None or height.size != 1 or str(height.attrs.get("units", "m")) not in ("m", "meters", "metres"):
        return float("nan")
    return float(height.values.item())
