"""What a single forecast is asked for is held against the dataset and the task before anything is computed."""

from pathlib import Path

import pytest
import xarray as xr

from graphcast_batch.app import single_forecast
from graphcast_batch.errors import ConfigError, FigureError, InputError, InputNotFoundError, StoreError
from graphcast_batch.models.model_kinds import DEFAULT_MODEL, MODELS

REFERENCE = Path(__file__).parent / "reference" / "small_13"


@pytest.fixture
def infer(monkeypatch):
    """Asks for a forecast from random weights, changed as a test wants; it never comes to computing one."""
    monkeypatch.setattr(type(MODELS[DEFAULT_MODEL]), "load", lambda *_, **__: pytest.fail("the network was built"))
    (dataset,) = REFERENCE.glob("source-*.nc")
    usual = {
        "steps": 1,
        "statistics": REFERENCE,
        "precision": "float32",
        "with_loss": False,
        "variable": "temperature",
        "level": 500,
        "save": None,
    }

    def call(dataset=dataset, **changes):
        return single_forecast.infer(dataset, "Random", None, **usual | changes)

    return call


def test_a_variable_or_level_that_is_not_predicted_is_refused_at_once(infer):
    with pytest.raises(FigureError, match="the variable wind is not predicted; take one of 10m_u_component"):
        infer(variable="wind")
    with pytest.raises(FigureError, match="the variable land_sea_mask is not predicted"):
        infer(variable="land_sea_mask")
    with pytest.raises(FigureError, match=r"temperature is not predicted at 333 hPa; take one of \[50, 100"):
        infer(level=333)


def test_a_place_where_nothing_can_be_saved_is_refused_at_once(infer, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"all\.nc must be in .* folder, but .*nowhere is not"):
        infer(save=tmp_path / "nowhere" / "all.nc")
    with pytest.raises(StoreError, match=r"all\.nc must be in .* folder, but .*file is not"):
        infer(save=tmp_path / "file" / "all.nc")
    with pytest.raises(StoreError, match="must be the path of a file, but is a folder"):
        infer(save=tmp_path)


def test_a_loss_without_truth_is_refused_at_once(infer, tmp_path):
    (dataset,) = REFERENCE.glob("source-*.nc")
    with xr.open_dataset(dataset, decode_timedelta=False) as complete:
        complete.isel(time=slice(2)).to_netcdf(tmp_path / "short.nc", engine="netcdf4")
    with pytest.raises(InputError, match="the loss needs the truth, but the dataset lacks any target frame"):
        infer(tmp_path / "short.nc", with_loss=True)


@pytest.mark.parametrize("name", ["", "[missing].nc"])
def test_what_is_no_dataset_file_is_told_by_its_path_alone(infer, tmp_path, name):
    with pytest.raises(InputNotFoundError) as caught:
        infer(tmp_path / name)
    assert str(caught.value).startswith(f"the dataset {tmp_path / name} is not a file; ")
    assert "inputs.path" not in str(caught.value)


def test_a_dataset_that_cannot_be_read_is_named_with_the_reason(infer, tmp_path):
    (tmp_path / "a[1].nc").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"a\[1\]\.nc must be a complete netCDF file, but cannot be read"):
        infer(tmp_path / "a[1].nc")


def test_a_machine_with_too_little_memory_is_refused_before_the_network_is_built(infer, monkeypatch):
    monkeypatch.setattr(single_forecast, "usable_bytes", lambda: 10**6)
    with pytest.raises(ConfigError, match=r"needs at least .* GB in float32, but the machine has 0\.001 GB"):
        infer()
