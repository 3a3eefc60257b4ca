import pytest

from graphcast_batch.app.score_drawing import draw_scores
from graphcast_batch.errors import FigureError, StoreError
from tests.evaluation.made import cases, stored
from tests.evaluation.test_comparison import of_errors


def test_a_store_is_drawn_alone_and_against_another(tmp_path):
    one, _ = of_errors(tmp_path / "one", [1, 2])
    other, _ = of_errors(tmp_path / "other", [2, 2])

    drawn = draw_scores(one, [other], "tropics", "svg")

    folder = one / "figures" / "scores"
    names = ["curves_rmse_tropics.svg", "curves_bias_tropics.svg", "scorecard_against_other_tropics.svg"]
    assert drawn == [folder / name for name in names]
    assert all(path.exists() for path in drawn)


def test_a_store_without_scores_says_what_to_do(tmp_path):
    store = stored(tmp_path / "store", cases(1), lambda name, hours, values: values)

    with pytest.raises(StoreError, match="run graphcast-batch evaluate first"):
        draw_scores(store.path, [], "global", "png")


def test_stores_of_one_name_cannot_be_told_apart(tmp_path):
    one, _ = of_errors(tmp_path / "a" / "run", [1])

    with pytest.raises(FigureError, match="different folder names, but two are called run"):
        draw_scores(one, [tmp_path / "b" / "run"], "global", "png")
