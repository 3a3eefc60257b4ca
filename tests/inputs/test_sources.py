"""The configuration picks the source."""

import pytest

from graphcast_batch.config.inputs_section import ArchiveInputs, DatasetInputs, SyntheticInputs
from graphcast_batch.errors import ConfigError
from graphcast_batch.inputs.sources.archive import Archive
from graphcast_batch.inputs.sources.configured import open_source
from graphcast_batch.inputs.sources.dataset_files import DatasetFiles
from graphcast_batch.inputs.sources.planet_archive import SyntheticArchive


def test_each_kind_of_inputs_has_its_source(tmp_path, made, as_dataset):
    made().to_netcdf(tmp_path / "archive.nc", engine="netcdf4")
    as_dataset(made()).to_netcdf(tmp_path / "dataset.nc", engine="netcdf4")
    archive = open_source(ArchiveInputs(kind="archive", path=str(tmp_path / "archive.nc")), (300,))
    files = open_source(DatasetInputs(kind="datasets", path=str(tmp_path / "data*.nc")), (300,))
    planet = open_source(SyntheticInputs(kind="synthetic", resolution=30), (300, 850))
    assert isinstance(archive, Archive)
    assert isinstance(files, DatasetFiles)
    assert isinstance(planet, SyntheticArchive)
    assert archive.grid == files.grid == planet.grid
    assert planet.levels == (300, 850)


def test_regridding_to_no_known_resolution_is_refused():
    inputs = ArchiveInputs(kind="archive", path="era5.nc", regrid="linear")

    with pytest.raises(ConfigError, match="needs a resolution to regrid to, but the weights have none"):
        open_source(inputs, (500,))
