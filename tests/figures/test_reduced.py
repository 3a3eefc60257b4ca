import numpy as np
import pytest
from PIL import Image

from graphcast_batch.config.figures_section import FiguresConfig
from graphcast_batch.errors import FigureError
from graphcast_batch.figures.reduced import draw_diagrams, expected_diagrams, truth_at
from graphcast_batch.plan import Case
from tests.evaluation.made import START, cases, stored, truth, wave

CASE = Case(START, 4, 6)
HELD = ({"temperature": True, "10m_u_component_of_wind": False}, (500, 850), (6, 12, 18, 24))


def wanted(**more):
    return FiguresConfig(variables=("temperature",), levels=(850,), lead_hours=(24,), **more)


def test_names_tell_variable_level_band_place_and_lead_time():
    names = expected_diagrams(wanted(points=("Rio de Janeiro", "1,-2"), hovmoller=(-10, 10), sections=True), *HELD)

    assert names == [
        "temperature_at_850_hPa_hovmoller_-10_10.png",
        "temperature_at_850_hPa_in_Rio_de_Janeiro.png",
        "temperature_at_850_hPa_in_1N_2W.png",
        "temperature_section_024h.png",
    ]


def test_nothing_is_drawn_that_nobody_wants():
    assert expected_diagrams(wanted(), *HELD) == []


def test_a_section_of_what_has_no_levels_is_refused():
    surface = FiguresConfig(variables=("10m_u_component_of_wind",), sections=True)

    with pytest.raises(FigureError, match="a section needs a variable with several levels"):
        expected_diagrams(surface, *HELD)


def test_a_single_frame_of_the_truth_is_read():
    found = truth_at(truth(), CASE, "temperature", (850,), 18)

    assert found.shape == (1, 19, 36)
    assert found.values[0, 0] == pytest.approx(wave(18, np.arange(0.0, 360, 10)) + 3500, abs=1e-3)


def test_diagrams_hold_what_the_planet_says(tmp_path):
    """The forecast is 1 K too warm; the mean over all longitudes of a wave is zero, the levels' shift remains."""
    store = stored(tmp_path / "store", cases(1), lambda name, hours, values: values + 1.0)
    forecast = store.forecasts().isel(time=0)

    drawn = draw_diagrams(
        forecast, CASE, truth(), wanted(points=("0,0",), hovmoller=(-20, 20), sections=True), tmp_path
    )

    texts = {path.name: Image.open(path).text["Description"] for path in drawn}
    assert texts["temperature_section_024h.png"].endswith("Prediction − target: min 1.00, max 1.00 K.")
    assert "Target: min 3223.85, max 3229.85 °C" in texts["temperature_at_850_hPa_hovmoller_-20_20.png"]
    at_6h = 3500 + float(wave(6, np.zeros(1))[0]) + 1 - 273.15
    assert f"prediction from {at_6h:.4g} to" in texts["temperature_at_850_hPa_in_0_0.png"]


def test_without_truth_the_prediction_is_drawn_alone(tmp_path):
    store = stored(tmp_path / "store", cases(1), lambda name, hours, values: values)

    class Nothing:
        def truth(self, case, names, levels=None):
            return None

    (path,) = draw_diagrams(store.forecasts().isel(time=0), CASE, Nothing(), wanted(hovmoller=(0, 20)), tmp_path)

    assert "Target" not in Image.open(path).text["Description"]
