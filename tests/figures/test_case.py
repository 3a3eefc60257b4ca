import numpy as np
import pytest
import xarray as xr
from PIL import Image

from graphcast_batch.config.figures_section import FiguresConfig
from graphcast_batch.errors import FigureError
from graphcast_batch.figures.case_figures import draw_case, expected_figures, figure_stem, names_wanted

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
    wanted = FiguresConfig(variables=("temperature", "2m_temperature"), levels=(850, 500), lead_hours=(18, 6))
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
    wanted = FiguresConfig(variables=("temperature",), levels=(850,), lead_hours=(12,))
    (path,) = draw_case(forecast, forecast + 1, wanted, tmp_path)
    text = described(path)
    assert text.startswith("Maps of Temperature at 850 hPa (°C), Initial time 2020-01-01 00:00 UTC")
    assert "Lead time +12 h" in text
    assert "Target: min 589.85, max 589.85 °C, Prediction: min 588.85, max 588.85 °C" in text


def test_without_lead_hours_every_lead_time_is_drawn():
    names = expected_figures(FiguresConfig(variables=("2m_temperature",)), HELD, LEVELS, (6, 12, 240))
    assert names == ["2m_temperature_006h.png", "2m_temperature_012h.png", "2m_temperature_240h.png"]


def test_where_the_truth_is_not_known_the_prediction_stands_alone(forecast, tmp_path):
    wanted = FiguresConfig(variables=("2m_temperature", "temperature"), levels=LEVELS, lead_hours=(6, 12))
    truth = forecast[["temperature"]].sel(level=[500]).isel(prediction_timedelta=[0])
    paths = draw_case(forecast, truth, wanted, tmp_path)
    assert [path.name for path in paths if "Target" in described(path)] == ["temperature_at_500_hPa_006h.png"]


CHANGES = (
    {"projection": "robinson"},
    {"projection": "orthographic", "center": (45, 10)},
    {"projection": "orthographic", "center": (45, -10)},
    {"projection": "north_polar"},
    {"projection": "south_polar"},
    {"contours": {"variable": "temperature", "level": 500}},
    {"contours": {"variable": "temperature", "level": 850}},
    {"contours": {"variable": "2m_temperature"}},
    {"wind": "barbs"},
    {"wind": "streamlines"},
    {"format": "svg"},
    {"format": "pdf"},
    {"strip": True},
    {"strip": True, "lead_hours": (6, 18)},
)


def test_no_file_is_taken_for_one_that_the_configuration_wants_otherwise():
    held = HELD | dict.fromkeys(("u_component_of_wind", "v_component_of_wind"), True)
    drawn = [
        expected_figures(FiguresConfig(variables=("temperature",), levels=LEVELS, **change), held, LEVELS, LEAD_HOURS)
        for change in ({}, *CHANGES)
    ]
    names = [name for group in drawn for name in group]
    assert len(set(names)) == len(names)


def test_a_name_tells_what_its_file_shows():
    wanted = FiguresConfig(
        variables=("2m_temperature",),
        projection="orthographic",
        center=(45.5, -10),
        contours={"variable": "temperature", "level": 500},
        wind="barbs",
        strip=True,
        animation="gif",
    )
    held = HELD | dict.fromkeys(("10m_u_component_of_wind", "10m_v_component_of_wind"), False)
    look = "2m_temperature_with_temperature_at_500_hPa_barbs_orthographic_45.5_-10"
    assert expected_figures(wanted, held, LEVELS, LEAD_HOURS) == [
        f"{look}_006h_012h_018h.png",
        f"{look}_006h-018h_3_frames.gif",
    ]
    assert names_wanted(wanted, held) == (
        ["2m_temperature", "10m_u_component_of_wind", "10m_v_component_of_wind", "temperature"],
        [500],
    )


def test_strips_films_contours_and_wind_are_drawn_as_far_as_the_truth_is_known(forecast, tmp_path):
    ones = forecast["temperature"] * 0 + 1
    held = forecast.assign(u_component_of_wind=ones, v_component_of_wind=ones)
    wanted = FiguresConfig(
        variables=("temperature",),
        levels=(500,),
        contours={"variable": "2m_temperature"},
        wind="barbs",
        strip=True,
        animation="gif",
    )
    truth = forecast.isel(prediction_timedelta=[0, 1])
    strip, film = draw_case(held, truth, wanted, tmp_path, credit="GraphCast, float32")
    assert "Contours: 2 metre temperature (°C), Wind barbs" in described(strip)
    assert described(strip).count("no data") == 2
    with Image.open(film) as image:
        assert image.n_frames == 3


def test_other_files_in_the_folder_are_kept(forecast, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    draw_case(forecast, None, FiguresConfig(variables=("2m_temperature",), lead_hours=(6,)), tmp_path)
    assert sorted(found.name for found in tmp_path.iterdir()) == ["2m_temperature_006h.png", "notes.txt"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            FiguresConfig(variables=("humidity",)),
            "humidity is not in the forecast, which has 2m_temperature, temp",
        ),
        (
            FiguresConfig(variables=("temperature",)),
            "temperature is on levels, but no level is given; choose some of 500",
        ),
        (
            FiguresConfig(variables=("temperature",), levels=(700,)),
            "temperature has no level 700 hPa, but 500, 850 hPa",
        ),
        (
            FiguresConfig(variables=("2m_temperature",), contours={"variable": "humidity"}),
            r"figures\.contours\.variable: humidity is not in the forecast",
        ),
        (
            FiguresConfig(variables=("2m_temperature",), contours={"variable": "temperature"}),
            r"figures\.contours\.level: temperature has the levels 500, 850 hPa, but none is given",
        ),
        (
            FiguresConfig(variables=("2m_temperature",), contours={"variable": "2m_temperature", "level": 500}),
            r"figures\.contours\.level: 2m_temperature is not on levels, but 500 hPa is given",
        ),
        (
            FiguresConfig(variables=("2m_temperature",), wind="barbs"),
            r"figures\.wind: 10m_u_component_of_wind and 10m_v_component_of_wind must be in the forecast",
        ),
        (
            FiguresConfig(variables=("2m_temperature",), lead_hours=(24,)),
            "no lead time of 24 h, but 6, 12, 18 h; choose",
        ),
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
