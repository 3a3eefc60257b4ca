import numpy as np
import pytest
import xarray as xr
from PIL import Image

from graphcast_batch.config import Figures
from graphcast_batch.errors import FigureError
from graphcast_batch.figures.case import draw_case, expected_figures, figure_stem

HELD = {"2m_temperature": False, "temperature": True}
LEVELS, LEAD_HOURS = (500, 850), (6, 12, 18)


@pytest.fixture
def forecast():
    """Each value tells its lead time in hours, plus its level for a variable on levels."""
    latitude, longitude = np.arange(-90, 91, 15, dtype=np.float32), np.arange(0, 360, 15, dtype=np.float32)
    hours = xr.DataArray(np.array(LEAD_HOURS, np.float32), dims="prediction_timedelta")
    levels = xr.DataArray(np.array(LEVELS, np.float32), dims="level")
    ones = xr.DataArray(np.ones((latitude.size, longitude.size), np.float32), dims=("latitude", "longitude"))
    return xr.Dataset(
        {"2m_temperature": hours * ones, "temperature": (hours + levels) * ones},
        coords={
            "time": np.datetime64("2020-01-01", "ns"),
            "prediction_timedelta": np.array(LEAD_HOURS).astype("timedelta64[h]").astype("timedelta64[ns]"),
            "level": list(LEVELS),
            "latitude": latitude,
            "longitude": longitude,
        },
    )


def described(path):
    with Image.open(path) as image:
        return image.text["Description"]


def test_each_variable_level_and_lead_time_gives_one_file(forecast, tmp_path):
    wanted = Figures(variables=("temperature", "2m_temperature"), levels=(850, 500), lead_hours=(18, 6))
    paths = draw_case(forecast, None, wanted, tmp_path / "2020-01-01T00")
    names = [
        "temperature_at_850_hPa_006h.png",
        "temperature_at_500_hPa_006h.png",
        "temperature_at_850_hPa_018h.png",
        "temperature_at_500_hPa_018h.png",
        "2m_temperature_006h.png",
        "2m_temperature_018h.png",
    ]
    assert paths == [tmp_path / "2020-01-01T00" / name for name in names]
    assert sorted(found.name for found in (tmp_path / "2020-01-01T00").iterdir()) == sorted(names)
    assert expected_figures(wanted, HELD, LEVELS, LEAD_HOURS) == names


def test_a_file_shows_the_field_it_is_named_after(forecast, tmp_path):
    wanted = Figures(variables=("temperature",), levels=(850,), lead_hours=(12,))
    (path,) = draw_case(forecast, forecast + 1, wanted, tmp_path)
    text = described(path)
    assert text.startswith("Maps of Temperature at 850 hPa (K), Initial time 2020-01-01 00:00 UTC")
    assert "Lead time +12 h" in text
    assert "Target: min 863.00, max 863.00 K, Prediction: min 862.00, max 862.00 K" in text


def test_without_lead_hours_every_lead_time_is_drawn():
    names = expected_figures(Figures(variables=("2m_temperature",)), HELD, LEVELS, (6, 12, 240))
    assert names == ["2m_temperature_006h.png", "2m_temperature_012h.png", "2m_temperature_240h.png"]


def test_where_the_truth_is_not_known_the_prediction_stands_alone(forecast, tmp_path):
    wanted = Figures(variables=("2m_temperature", "temperature"), levels=LEVELS, lead_hours=(6, 12))
    truth = forecast[["temperature"]].sel(level=[500]).isel(prediction_timedelta=[0])
    paths = draw_case(forecast, truth, wanted, tmp_path)
    assert [path.name for path in paths if "Target" in described(path)] == ["temperature_at_500_hPa_006h.png"]


def test_other_files_in_the_folder_are_kept(forecast, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    draw_case(forecast, None, Figures(variables=("2m_temperature",), lead_hours=(6,)), tmp_path)
    assert sorted(found.name for found in tmp_path.iterdir()) == ["2m_temperature_006h.png", "notes.txt"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            Figures(variables=("humidity",)),
            "humidity is not in the forecast, which has 2m_temperature, temp",
        ),
        (
            Figures(variables=("temperature",)),
            "temperature is on levels, but no level is wanted; name some of 500",
        ),
        (
            Figures(variables=("temperature",), levels=(700,)),
            "temperature has no level 700 hPa, but 500, 850 hPa",
        ),
        (Figures(variables=("2m_temperature",), lead_hours=(24,)), "no lead time of 24 h, but 6, 12, 18 h; choose"),
    ],
)
def test_what_the_forecast_lacks_is_refused_before_anything_is_drawn(forecast, tmp_path, wanted, message):
    with pytest.raises(FigureError, match=message):
        expected_figures(wanted, HELD, LEVELS, LEAD_HOURS)
    with pytest.raises(FigureError, match=message):
        draw_case(forecast, None, wanted, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_stem_names_the_variable_and_its_level():
    assert figure_stem("2m_temperature") == "2m_temperature"
    assert figure_stem("temperature", 500) == "temperature_at_500_hPa"
