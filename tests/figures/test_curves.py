import numpy as np
import pytest
from PIL import Image

from graphcast_batch.errors import FigureError
from graphcast_batch.evaluation.score_curves import ScoreCurve
from graphcast_batch.figures.lead_time_curves import draw_curves

HOURS = np.arange(6, 97, 6)


def curve(
    name="forecast",
    variable="geopotential",
    level=500,
    units="m**2 s**-2",
    metric="rmse",
    values=9.80665 * HOURS,
    spread=np.nan,
):
    return ScoreCurve(
        name, metric, variable, level, units, HOURS, values, values * (1 - spread), values * (1 + spread), 30
    )


def drawn(curves, path):
    draw_curves(path, curves, "tropics")
    with Image.open(path) as image:
        return image.text, np.asarray(image.convert("RGB")).astype(int)


def test_its_text_tells_the_last_scores_in_units_that_people_know(tmp_path):
    """A metre of height is 9.80665 m² s⁻² of geopotential."""
    persistence = curve("persistence", values=2 * 9.80665 * HOURS)
    warm = curve(variable="2m_temperature", level=None, units="K", values=HOURS / 32)

    text, _ = drawn([curve(), persistence, warm], tmp_path / "new" / "curves.png")

    assert text["Title"] == "RMSE, tropics"
    assert text["Description"] == (
        "Curves of RMSE by lead time, tropics. Geopotential height at 500 hPa (dam) at 96 h: forecast 9.6, persistence "
        "19.2; 2 metre temperature (K) at 96 h: forecast 3."
    )


def test_bands_show(tmp_path):
    _, without = drawn([curve()], tmp_path / "without.png")
    _, banded = drawn([curve(spread=0.2)], tmp_path / "banded.png")

    assert pale(banded) > 20 * (1 + pale(without))


def pale(pixels):
    """Pixels of the first color, thinned to a fifth over white."""
    return int((np.abs(pixels - (204, 227, 240)).max(axis=-1) <= 2).sum())


def test_what_begins_with_an_underscore_is_in_the_legend_too(tmp_path):
    plain = drawn([curve("run")], tmp_path / "plain.png")[1]
    marked = drawn([curve("_run")], tmp_path / "marked.png")[1]

    assert (marked < 100).all(axis=-1).sum() >= (plain < 100).all(axis=-1).sum()


def test_a_score_that_is_not_known_is_told(tmp_path):
    text, _ = drawn([curve(values=np.where(HOURS < 96, 1.0, np.nan))], tmp_path / "curves.png")

    assert text["Description"].endswith("at 96 h: forecast unknown.")


def test_two_metrics_are_not_drawn_into_one_picture(tmp_path):
    with pytest.raises(FigureError, match="must be of one metric to be drawn, but are of acc, rmse"):
        draw_curves(tmp_path / "curves.png", [curve(), curve(metric="acc")], "global")
