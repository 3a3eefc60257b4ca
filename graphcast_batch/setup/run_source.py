"""Open the inputs that the config of a run names, as its weights need them, and the members of its ensemble."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from graphcast_batch.config.perturbations_section import FilePerturbations
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.errors import GridError, InputError
from graphcast_batch.grid import Grid, same_points
from graphcast_batch.inputs.case_inputs import COMPUTABLE
from graphcast_batch.inputs.sources.archive import Archive
from graphcast_batch.inputs.sources.configured import open_source, reading_of, resolution_remedy
from graphcast_batch.inputs.sources.dataset_files import DatasetFiles
from graphcast_batch.inputs.sources.member_archives import MemberArchives, open_members
from graphcast_batch.inputs.sources.planet_archive import SyntheticArchive
from graphcast_batch.models.base import Weights

AnySource = Archive | DatasetFiles | SyntheticArchive

_KEY: Final = re.compile(r"(?<![\w./-])inputs\.([a-z]+)")
"""A key of the section ``inputs`` in a message, and no part of a path."""


def open_run_source(config: RunConfig, weights: Weights) -> AnySource:
    """Open the inputs that a config names, as the task of the weights needs them.

    Raises:
        InputError: the inputs cannot be read, or are on another grid than that of the weights.
    """
    resolution = weights.architecture.resolution
    needed = [name for name in weights.task.input_variables if name not in COMPUTABLE]
    source = open_source(config.inputs, weights.task.pressure_levels, resolution, needed)
    if not source.grid.fits(resolution):
        remedy = resolution_remedy(config.inputs, source.grid.resolution, resolution)
        raise InputError(
            f"{source.origin} must be on a grid of {resolution:g}°, which the weights were trained for, "
            f"but is on {source.grid}; {remedy}, or give weights for this one"
        )
    return source


def open_run_members(config: RunConfig, weights: Weights, grid: Grid) -> MemberArchives | None:
    """Open the analysis ensemble whose members forecasts start from; None if the config names none.

    Args:
        config: config of the run.
        weights: weights of the model.
        grid: grid of the inputs, which that of the members must be.

    Raises:
        InputError: the archive cannot be read, holds too few members, or is on another grid.
    """
    chosen = config.ensemble.perturbations if config.ensemble else None
    if not isinstance(chosen, FilePerturbations):
        return None
    resolution = weights.architecture.resolution or grid.resolution
    regrid = (chosen.regrid, resolution) if chosen.regrid else None
    with _naming_members():
        members = open_members(chosen.paths, chosen.members, reading_of(chosen), weights.task, regrid)
        found = members.members[0].grid
        if not same_points(found, grid):
            finer = found.resolution < grid.resolution
            remedy = "set inputs.regrid: subsample, conservative or linear" if finer else "give members on that grid"
            raise InputError(
                f"{members} must be on the grid of the inputs, {grid}, but {'are' if chosen.members > 1 else 'is'} on "
                f"{found}; {remedy}"
            )
    return members


@contextmanager
def _naming_members() -> Iterator[None]:
    """Name the keys of ``ensemble.perturbations`` in errors, in place of those of ``inputs`` of the same names."""
    try:
        yield
    except (InputError, GridError) as error:
        text = _KEY.sub(r"ensemble.perturbations.\1", str(error))
        raise type(error)(f"ensemble.perturbations: {text}") from error
