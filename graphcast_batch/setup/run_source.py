"""Open the inputs that the config of a run names, as its weights need them."""

from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.errors import InputError
from graphcast_batch.inputs.case_inputs import COMPUTABLE
from graphcast_batch.inputs.sources.archive import Archive
from graphcast_batch.inputs.sources.configured import open_source, resolution_remedy
from graphcast_batch.inputs.sources.dataset_files import DatasetFiles
from graphcast_batch.inputs.sources.planet_archive import SyntheticArchive
from graphcast_batch.models.base import Weights

AnySource = Archive | DatasetFiles | SyntheticArchive


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
