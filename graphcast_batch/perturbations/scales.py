"""Choose which variables and levels are perturbed, and the standard deviation of each perturbation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.config.perturbations_section import AddedPerturbations
from graphcast_batch.errors import ConfigError
from graphcast_batch.inputs.statistics import Statistics
from graphcast_batch.spec import Task

PRECIPITATION: Final = "total_precipitation_6hr"
"""Perturbed only if it is named: noise that is cut off at 0 would rain a little wherever it is dry."""


@dataclass(frozen=True, eq=False)
class Scale:
    """How strongly one variable is perturbed.

    Attributes:
        name: name of the variable.
        levels: perturbed levels in hPa, ascending; (None,) for a variable that is not on levels.
        stddev: (level,) standard deviation of the perturbation at these levels, in the unit of the variable.
    """

    name: str
    levels: tuple[int | None, ...]
    stddev: NDArray[np.float64]


def scales(chosen: AddedPerturbations, statistics: Statistics, task: Task) -> tuple[Scale, ...]:
    """Return the scale of every perturbed variable, by name.

    Raises:
        ConfigError: a variable is not fed back by the model or has no statistics, the task lacks a level, or levels are
            chosen but no variable on levels is perturbed.
    """
    amplitudes = _amplitudes(chosen.amplitude, task)
    levels = _levels(chosen.levels, task)
    found = tuple(_scale(name, amplitudes[name], levels, statistics.diffs_stddev) for name in sorted(amplitudes))
    if chosen.levels is not None and all(None in scale.levels for scale in found):
        raise ConfigError(
            "ensemble.perturbations.levels must be left out where no variable on levels is perturbed, but is "
            f"{list(levels)}, and ensemble.perturbations.amplitude perturbs {', '.join(amplitudes)}; leave levels "
            "out, or perturb a variable on levels"
        )
    return found


def _amplitudes(amplitude: float | Mapping[str, float], task: Task) -> Mapping[str, float]:
    """Return the amplitude of each perturbed variable."""
    fed_back = [name for name in task.target_variables if name in task.input_variables]
    if not isinstance(amplitude, Mapping):
        names = [name for name in fed_back if name != PRECIPITATION]
        if not names:
            raise ConfigError(
                "ensemble.perturbations.amplitude must name the variables to perturb where the model feeds back none "
                f"but precipitation, but is {amplitude:g}; give a mapping, or a model that feeds back its state"
            )
        return dict.fromkeys(names, amplitude)
    for name in amplitude:
        if name not in fed_back:
            raise ConfigError(
                f"ensemble.perturbations.amplitude must name variables that the model feeds back, but names {name}, "
                f"which {_role(name, task)}; name some of {', '.join(fed_back)}"
            )
    return amplitude


def _role(name: str, task: Task) -> str:
    """Return why a variable is not fed back, as text to follow "which"."""
    if name in task.forcing_variables:
        return "is a forcing"
    if name in task.target_variables:
        return "it predicts but does not take as an input"
    return "never changes" if name in task.input_variables else "its task does not have"


def _levels(chosen: Sequence[int] | None, task: Task) -> tuple[int, ...]:
    if chosen is None:
        return task.pressure_levels
    absent = sorted(set(chosen) - set(task.pressure_levels))
    if absent:
        raise ConfigError(
            f"ensemble.perturbations.levels must be levels of the model, {list(task.pressure_levels)} hPa, but has "
            f"{absent}; leave them out"
        )
    return tuple(sorted(chosen))


def _scale(name: str, amplitude: float, levels: tuple[int, ...], diffs_stddev: xr.Dataset) -> Scale:
    if name not in diffs_stddev:
        raise _unusable(name, "they lack it")
    changes = diffs_stddev[name]
    if "level" in changes.dims:
        lacking = sorted(set(levels) - {int(level) for level in changes["level"].values})
        if lacking:
            raise _unusable(name, f"they lack its levels {lacking} hPa")
        changes = changes.sel(level=list(levels))
    stddev = np.atleast_1d(changes.values.astype(np.float64))
    if not np.all(np.isfinite(stddev) & (stddev > 0)):
        raise _unusable(name, f"they have {stddev.tolist()}")
    return Scale(name, levels if "level" in changes.dims else (None,), amplitude * stddev)


def _unusable(name: str, found: str) -> ConfigError:
    return ConfigError(
        f"perturbing {name} needs the standard deviation of its change over a model step, a number above 0 in the "
        f"statistics diffs_stddev, but {found}; correct the statistics, or name other variables in "
        "ensemble.perturbations.amplitude"
    )
