import numpy as np
import pytest
from PIL import Image

from graphcast_batch.errors import FigureError
from graphcast_batch.figures.training_curves import draw_training


def lines(updates=2000):
    made = [
        {"update": n, "loss": 1.4 / n**0.1, "rate": 1e-3 * (1 - n / updates), "rollout": 1 if n < 1500 else 3}
        for n in range(1, updates + 1)
    ]
    checks = [{"update": n, "validation": 1.5 / n**0.1, "persistence": 1.0} for n in range(500, updates + 1, 500)]
    return sorted(made + checks, key=lambda line: line["update"])


def drawn(made, path):
    draw_training(made, path)
    with Image.open(path) as image:
        return image.text, np.asarray(image.convert("RGB")).reshape(-1, 3)


def test_the_picture_tells_how_the_loss_fell(tmp_path):
    text, pixels = drawn(lines(), tmp_path / "new" / "curves.png")

    assert text["Title"] == "Training over 2000 updates"
    assert text["Description"] == (
        "The training loss goes from 1.4 to 0.655, the validation loss is 0.701 where persistence has 1."
    )
    assert len(np.unique(pixels, axis=0)) > 50


def test_a_training_that_has_only_begun_can_be_drawn(tmp_path):
    text, _ = drawn(lines()[:1], tmp_path / "curves.png")

    assert text["Description"] == "The training loss is 1.4."


def test_without_an_update_there_is_nothing_to_draw(tmp_path):
    with pytest.raises(FigureError, match="must hold an update to be drawn, but holds none"):
        draw_training([{"update": 3, "validation": 1.0, "persistence": 2.0}], tmp_path / "curves.png")
