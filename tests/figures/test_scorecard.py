from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from graphcast_batch.errors import FigureError
from graphcast_batch.figures.scorecard import draw_scorecard

ROWS = (("2m_temperature", None), ("temperature", 500), ("temperature", 850))


@dataclass(frozen=True)
class Card:
    rows: tuple
    hours: tuple
    relative: np.ndarray
    significant: np.ndarray
    tested: np.ndarray
    cases: int = 40


def card(relative, significant=None, hours=None):
    relative = np.asarray(relative, float)
    marks = np.zeros(relative.shape, bool) if significant is None else np.asarray(significant)
    hours = hours or tuple(24 * (n + 1) for n in range(relative.shape[1]))
    return Card(ROWS[: len(relative)], hours, relative, marks, np.ones(relative.shape, bool))


def drawn(made, path, region="global"):
    draw_scorecard(path, made, ("ours", "theirs"), region)
    with Image.open(path) as image:
        return image.text, np.asarray(image.convert("RGB")).astype(int)


def share(pixels, of):
    """Of the pixels that are clearly of a color, in a hundred."""
    return 100 * of(pixels[..., 0], pixels[..., 2]).mean()


def blue(red, blue):
    return blue > red + 40


def red(red, blue):
    return red > blue + 40


def test_its_text_counts_what_is_better_and_what_is_sure(tmp_path):
    made = card([[-0.2, 0.1], [-0.1, np.nan], [0.05, 0.3]], [[True, False], [False, False], [False, True]])

    text, _ = drawn(made, tmp_path / "card.png")

    assert text["Title"] == "RMSE of ours against theirs, global"
    assert text["Description"] == (
        "Scorecard of the RMSE of ours against theirs, global: of 5 cells 2 are better, 1 of them significantly, and 3 "
        "worse, 1 of them significantly; from -20.0 % to +30.0 %."
    )


def test_better_is_blue_and_worse_is_red(tmp_path):
    """The color bar has as much of both."""
    _, better = drawn(card([[-0.2, -0.2], [-0.2, -0.2]]), tmp_path / "better.png")
    _, worse = drawn(card([[0.2, 0.2], [0.2, 0.2]]), tmp_path / "worse.png")

    assert share(better, blue) > 2 * share(better, red)
    assert share(worse, red) > 2 * share(worse, blue)


def test_only_what_is_significant_has_a_dot(tmp_path):
    """Two pictures differ in nothing but where the dot is."""
    _, first = drawn(card([[-0.1, -0.1]], [[True, False]]), tmp_path / "first.png")
    _, second = drawn(card([[-0.1, -0.1]], [[False, True]]), tmp_path / "second.png")

    _, columns = np.nonzero((first != second).any(axis=-1))

    gap = np.diff(np.unique(columns)).max()
    assert 0 < columns.size < 200
    assert gap > 20


def test_of_many_lead_times_the_days_are_shown(tmp_path):
    six_hourly = tuple(range(6, 241, 6))
    relative = np.where(np.array(six_hourly) % 24 == 0, -0.1, 0.1)[np.newaxis]

    text, _ = drawn(card(relative, hours=six_hourly), tmp_path / "days.png")

    assert "of 10 cells 10 are better" in text["Description"]


def test_a_scorecard_without_a_score_is_refused(tmp_path):
    with pytest.raises(FigureError, match="ours against theirs needs a score that both have, but there is none"):
        drawn(card([[np.nan]]), tmp_path / "none.png")
