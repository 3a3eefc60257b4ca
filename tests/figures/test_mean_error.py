import numpy as np
import pytest
from PIL import Image

from graphcast_batch.config.figures_section import FiguresConfig
from graphcast_batch.errors import FigureError
from graphcast_batch.figures.mean_error import ErrorSums, MeanErrors, draw_mean_errors, errors_of, wanted_errors
from tests.evaluation.made import cases, stored, truth

WHICH = MeanErrors("temperature", 850, (12, 24))


def test_bias_and_rmse_over_cases_are_drawn(tmp_path):
    """Forecasts that are off by 1 K and by 3 K: on average by 2 K, and by the root of 5 in the square."""
    offs = iter([1.0] * 12 + [3.0] * 12)
    planned = cases(2)
    store = stored(tmp_path / "store", planned, lambda name, hours, values: values + next(offs))
    sums = ErrorSums.none((2, 19, 36))

    for case in planned:
        sums.add(errors_of(store.path, case, WHICH, truth()))
    drawn = draw_mean_errors(store.path, WHICH, sums, "png")

    assert [path.name for path in drawn] == ["temperature_at_850_hPa_012h.png", "temperature_at_850_hPa_024h.png"]
    with Image.open(drawn[1]) as image:
        text = image.text
    assert text["Title"] == "Errors of temperature at 850 hPa"
    assert "1 d ahead, 2 initial times. Bias: over the globe 2.00 K" in text["Description"]
    assert "RMSE: over the globe 2.2" in text["Description"]


def test_what_is_not_known_is_left_out_of_the_mean():
    sums = ErrorSums.none((1, 1, 2))

    sums.add(np.array([[[1.0, np.nan]]], np.float32))
    sums.add(np.array([[[3.0, 4.0]]], np.float32))

    assert (sums.errors.ravel() / sums.counts.ravel()).tolist() == [2.0, 4.0]
    assert sums.squares.ravel().tolist() == [10.0, 16.0]


def test_many_lead_times_are_taken_a_few_at_a_time(tmp_path):
    kept = stored(tmp_path / "store", cases(1, steps=10), lambda name, hours, values: values).kept

    found = list(wanted_errors(FiguresConfig(variables=("temperature",), levels=(500, 850)), kept))

    assert [(each.level, len(each.hours)) for each in found] == [(500, 8), (500, 2), (850, 8), (850, 2)]


def test_without_any_truth_it_is_refused(tmp_path):
    with pytest.raises(FigureError, match="temperature needs truth at one of the lead times, but there is none"):
        draw_mean_errors(tmp_path, WHICH, ErrorSums.none((2, 19, 36)), "png")
