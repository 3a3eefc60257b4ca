"""Open the source that the section inputs of a configuration describes."""

from collections.abc import Sequence

from graphcast_batch.config.inputs_section import ArchiveInputs, ArchiveKeys, DatasetInputs, SyntheticInputs
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
    """Open the source of a section ``inputs``.

    Args:
        inputs: section ``inputs`` of the configuration.
        levels: pressure levels in hPa. A synthetic planet has these levels; a time of an archive counts if it has
            them, as far as the archive holds them at any time.
        resolution: spacing of the grid that the weights were trained for, in degrees; 0 for any. Dataset files with
            another one are skipped; archives are regridded if the configuration names a method.
        needed: variables that a time of an archive must have to count; empty for all that the archive holds.

    Raises:
        ConfigError: data are to be regridded, but no resolution is known; or the environment lacks a secret that the
            configuration refers to.
        InputNotFoundError: there are no data at the path.
        InputError: an archive cannot be read.
        GridError: the points do not form a global grid.
    """
    match inputs:
        case SyntheticInputs():
            return SyntheticArchive(SyntheticPlanet(inputs.seed), inputs.resolution, levels)
        case DatasetInputs():
            return DatasetFiles(inputs.path, resolution, inputs.per_file, inputs.names, inputs.units)
        case ArchiveInputs():
            if inputs.regrid and not resolution:
                raise ConfigError(
                    f"inputs.regrid: {inputs.regrid} needs a resolution to regrid to, but the weights have none, since "
                    "they are for any grid; set resolution in the architecture of random weights, or leave "
                    "inputs.regrid out and give data on the grid of the forecasts"
                )
            return Archive(
                inputs.paths,
                reading_of(inputs, inputs.statics),
                needed,
                (inputs.regrid, resolution) if inputs.regrid else None,
                inputs.statics,
                levels,
            )


def resolution_remedy(inputs: SyntheticInputs | DatasetInputs | ArchiveInputs, found: float, resolution: float) -> str:
    """Return what a user can do about inputs on another grid than that of the weights, as text."""
    if isinstance(inputs, SyntheticInputs):
        return f"set inputs.resolution: {resolution:g}"
    if isinstance(inputs, ArchiveInputs) and found < resolution:
        return "set inputs.regrid: subsample, conservative or linear"
    return "give inputs of that resolution"


def reading_of(inputs: ArchiveKeys, statics: str | None = None) -> Reading:
    """Return the options for reading the files of an archive.

    Args:
        inputs: section of the configuration that names the archive.
        statics: path of the file of its fields without time, if it is apart.

    Raises:
        ConfigError: the environment lacks a secret that the configuration refers to.
    """
    addresses = [path for path in (*inputs.paths, statics or "") if "://" in path]
    secrets = secrets_of([*addresses, *inputs.storage.values()])
    access = Access(inputs.anonymous, tuple(inputs.storage.items()), tuple(secrets.items()))
    return Reading(inputs.dialect, inputs.names, inputs.units, inputs.precipitation, access)
