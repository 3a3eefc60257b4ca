"""Open the source that the section inputs of a configuration describes."""

from collections.abc import Sequence

from graphcast_batch.config.inputs_section import ArchiveInputs, DatasetInputs, SyntheticInputs
from graphcast_batch.credentials import secrets_of
from graphcast_batch.errors import ConfigError
from graphcast_batch.inputs.formats.remote import Access
from graphcast_batch.inputs.sources.archive import Archive
from graphcast_batch.inputs.sources.dataset_files import DatasetFiles
from graphcast_batch.inputs.sources.planet_archive import SyntheticArchive
from graphcast_batch.inputs.sources.synthetic import SyntheticPlanet
from graphcast_batch.inputs.sources.volumes import Reading


def open_source(
    inputs: SyntheticInputs | DatasetInputs | ArchiveInputs,
    levels: Sequence[int],
    resolution: float = 0.0,
    needed: Sequence[str] = (),
) -> Archive | DatasetFiles | SyntheticArchive:
    """Opens what a run reads from.

    Args:
        inputs: section ``inputs`` of the configuration.
        levels: pressure levels, hPa, that a synthetic planet is made on, and that must be held at a time of an archive
            for it to be of use, as far as any of its times has them.
        resolution: that the weights were trained for, degrees; 0 for any. Files of others are set aside, archives
            regridded if the configuration says how.
        needed: variables without which a time of an archive is of no use; none for all that it holds.

    Raises:
        ConfigError: data are to be regridded, but no resolution is known.
        InputNotFoundError: the path names nothing.
        InputError: an archive cannot be read.
        GridError: the points are not a global grid.
        ConfigError: the environment lacks a secret that the configuration refers to.
    """
    match inputs:
        case SyntheticInputs():
            return SyntheticArchive(SyntheticPlanet(inputs.seed), inputs.resolution, levels)
        case DatasetInputs():
            return DatasetFiles(inputs.path, resolution, inputs.per_file, inputs.names, inputs.units)
        case ArchiveInputs():
            if inputs.regrid and not resolution:
                raise ConfigError(
                    f"inputs.regrid: {inputs.regrid} needs a resolution to regrid to, but the weights say none, as for "
                    "any grid; set resolution in the architecture of random weights, or leave inputs.regrid out and "
                    "give data on the grid that is wanted"
                )
            return Archive(
                inputs.paths,
                _reading(inputs),
                needed,
                (inputs.regrid, resolution) if inputs.regrid else None,
                inputs.statics,
                levels,
            )


def resolution_remedy(inputs: SyntheticInputs | DatasetInputs | ArchiveInputs, found: float, resolution: float) -> str:
    """What to do about inputs on another grid than that of the weights, as far as their section has a key for it."""
    if isinstance(inputs, SyntheticInputs):
        return f"set inputs.resolution: {resolution:g}"
    if isinstance(inputs, ArchiveInputs) and found < resolution:
        return "set inputs.regrid: subsample, conservative or linear"
    return "give inputs of that resolution"


def _reading(inputs: ArchiveInputs) -> Reading:
    addresses = [path for path in (*inputs.paths, inputs.statics or "") if "://" in path]
    secrets = secrets_of([*addresses, *inputs.storage.values()])
    access = Access(inputs.anonymous, tuple(inputs.storage.items()), tuple(secrets.items()))
    return Reading(inputs.dialect, inputs.names, inputs.units, inputs.precipitation, access)
