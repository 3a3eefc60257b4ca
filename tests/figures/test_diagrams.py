import numpy as np
import pytest
import xarray as xr
from PIL import Image

from graphcast_batch.figures.diagrams import draw_hovmoller, draw_section, draw_series
from graphcast_batch.figures.map_points import NamedPoint

LEADS = np.arange(6, 49, 6) * np.timedelta64(1, "h").astype("timedelta64[ns]")
LONGITUDE = np.arange(0.0, 360.0, 10.0)
START = {"time": np.datetime64("2020-01-01T00", "ns")}


def along_circle(values):
    coords = {"prediction_timedelta": LEADS, "longitude": LONGITUDE, **START}
    return xr.DataArray(
        np.broadcast_to(values, (LEADS.size, LONGITUDE.size)), coords, dims=("prediction_timedelta", "longitude")
    ).rename("temperature")


def opened(path):
    with Image.open(path) as image:
        return image.text, np.asarray(image.convert("RGB")).astype(int)


def test_a_hovmoller_diagram_has_greenwich_in_the_middle_and_no_gap_at_the_date_line(tmp_path):
    """Warm at 180° alone, which is at both sides of the prediction; its colors end in yellow."""
    warm = along_circle(np.where(LONGITUDE == 180, 280.0, 270.0))

    draw_hovmoller(tmp_path / "new" / "hovmoller.png", warm, warm * np.nan, (35.0, 60.0))

    text, pixels = opened(tmp_path / "new" / "hovmoller.png")
    yellow = (pixels[..., 0] > 220) & (pixels[..., 1] > 220) & (pixels[..., 2] < 100)
    columns = np.flatnonzero(yellow[: pixels.shape[0] // 2].sum(axis=0) > 50)
    assert np.ptp(columns) > 0.8 * pixels.shape[1]
    assert not yellow[: pixels.shape[0] // 2, int(columns.mean()) - 20 : int(columns.mean()) + 20].any()
    assert text["Title"] == "Temperature (°C), Hovmöller diagram, mean of 35°N to 60°N"
    assert text["Description"] == (
        f"{text['Title']}. Initial time 2020-01-01 00:00 UTC. Prediction: min −3.1, max 6.9 °C."
    )


def test_a_section_tells_target_prediction_and_difference(tmp_path):
    latitude, level = np.linspace(-90, 90, 19), np.array([50, 100, 300, 500, 850, 1000])
    coords = {"level": level, "latitude": latitude, "prediction_timedelta": LEADS[3], **START}
    values = 300 * np.cos(np.deg2rad(latitude)) * np.ones((6, 1))
    target = xr.DataArray(values, coords, dims=("level", "latitude"), name="temperature")

    draw_section(tmp_path / "section.png", target + 2 * np.sin(np.deg2rad(latitude)), target)

    text, _ = opened(tmp_path / "section.png")
    assert text["Title"] == "Temperature (°C), zonal mean"
    assert "Lead time +24 h." in text["Description"]
    assert text["Description"].endswith("Prediction − target: min −2.00, max 2.00 K.")


@pytest.mark.parametrize("known", [True, False])
def test_a_series_tells_its_grid_point_and_what_the_forecast_goes_through(tmp_path, known):
    coords = {"prediction_timedelta": LEADS, "latitude": 54.0, "longitude": 12.0, **START}
    made = xr.DataArray(273.15 + np.arange(8.0), coords, dims="prediction_timedelta", name="2m_temperature")

    draw_series(tmp_path / "series.png", NamedPoint("Berlin", 52.52, 13.40), made, made if known else made * np.nan)

    text, pixels = opened(tmp_path / "series.png")
    assert text["Description"] == (
        "2 metre temperature (°C), Berlin (grid point 54°N 12°E, 189 km away): prediction from 0 to 7, between 0 and 7."
    )
    assert (pixels < 40).all(axis=-1).any()
