import re

import pytest
from matplotlib.figure import Figure
from PIL import Image

from graphcast_batch.errors import FigureError
from graphcast_batch.figures.saving import package_style, save


def saved(path):
    with package_style():
        figure = Figure(figsize=(2, 2))
        figure.subplots().plot([1, 2], label="a line")
        figure.suptitle("Temperature (°C)\nof today")
        save(figure, path, "It rises from 1 to 2 °C.")
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_equal_figures_give_equal_bytes(tmp_path, kind):
    assert saved(tmp_path / f"a.{kind}") == saved(tmp_path / "new" / f"b.{kind}")
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == [f"a.{kind}", f"b.{kind}"]


def test_what_is_seen_is_told_in_words(tmp_path):
    saved(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert (image.text["Title"], image.text["Description"]) == ("Temperature (°C)", "It rises from 1 to 2 °C.")
    assert b"<dc:description>It rises from 1 to 2 \xc2\xb0C.</dc:description>" in saved(tmp_path / "a.svg")
    subject = re.search(rb"/Subject \((.*?)\) ", saved(tmp_path / "a.pdf"), re.DOTALL)
    assert subject[1].decode("utf-16") == "It rises from 1 to 2 °C."


def test_another_kind_of_file_is_refused(tmp_path):
    with pytest.raises(FigureError, match=r"written as \.png, \.svg, \.pdf, but .*a\.jpg ends otherwise"):
        saved(tmp_path / "a.jpg")
