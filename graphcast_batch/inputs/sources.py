"""The inputs that a configuration names become a source of Cases."""

from collections.abc import Sequence

from graphcast_batch.config import ArchiveInputs, DatasetInputs, SyntheticInputs
from graphcast_batch.inputs.archive import Archive, SyntheticArchive
from graphcast_batch.inputs.datasets import DatasetFiles
from graphcast_batch.inputs.synthetic import SyntheticPlanet


def open_source(
    inputs: SyntheticInputs | DatasetInputs | ArchiveInputs, levels: Sequence[int], resolution: float = 0.0
) -> Archive | DatasetFiles | SyntheticArchive:
    """Opens what a run reads from.

    Args:
        inputs: section ``inputs`` of the configuration.
        levels: pressure levels that a synthetic planet is made on, hPa.
        resolution: that the weights were trained for, degrees; 0 for any. Files of others are set aside.

    Raises:
        InputNotFoundError: the path names nothing.
        InputError: an archive cannot be read.
        GridError: the points are not a global grid.
    """
    match inputs:
        case SyntheticInputs():
            return SyntheticArchive(SyntheticPlanet(inputs.seed), inputs.resolution, levels)
        case DatasetInputs():
            return DatasetFiles(inputs.path, resolution)
        case ArchiveInputs():
            return Archive(inputs.path)
