import numpy as np
import pytest
import xarray as xr
from PIL import Image

from graphcast_batch.errors import FigureError
from graphcast_batch.figures.spectrum_curves import draw_spectra


def power(leads=8, kept=0.25):
    """The forecast has all power at wavenumber 1, and a share of it at the last."""
    waves = np.arange(0, 31)
    truth = 1e4 / (1.0 + waves) ** 3
    share = np.interp(waves, (1, 30), (1.0, kept))
    parts = np.stack([truth * share, truth, truth * (1 - share)])
    return xr.DataArray(
        np.repeat(parts[:, np.newaxis], leads, axis=1),
        dims=("part", "prediction_timedelta", "wavenumber"),
        coords={
            "part": ["forecast", "truth", "error"],
            "prediction_timedelta": np.arange(1, leads + 1) * np.timedelta64(6, "h").astype("timedelta64[ns]"),
            "wavenumber": waves,
            "level": 500,
        },
        name="temperature",
    )


def text_of(made, path):
    draw_spectra(path, made, "global", 3)
    with Image.open(path) as image:
        return image.text


def test_its_text_tells_what_is_kept_of_the_longest_and_the_shortest_waves(tmp_path):
    text = text_of(power(), tmp_path / "spectra.png")

    assert text["Description"] == (
        "Spectra of Temperature at 500 hPa, global, of forecast and truth at 6 h, 18 h, 36 h, 2 d. At the last, the "
        "forecast has 1.00 of the truth's power at wavenumber 1 and 0.25 at wavenumber 30."
    )


def test_whole_days_are_drawn_where_there_are_enough(tmp_path):
    assert "at 1 d, 4 d, 7 d, 10 d." in text_of(power(leads=40), tmp_path / "spectra.png")["Description"]


def test_lead_times_without_scores_are_left_out(tmp_path):
    made = power().where(power()["prediction_timedelta"] <= np.timedelta64(12, "h"))

    assert "at 6 h, 12 h." in text_of(made, tmp_path / "spectra.png")["Description"]


def test_without_any_power_there_is_nothing_to_draw(tmp_path):
    with pytest.raises(FigureError, match="spectra of temperature need a lead time that was scored, but have none"):
        draw_spectra(tmp_path / "spectra.png", power() * np.nan, "global", 0)
