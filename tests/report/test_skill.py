import numpy as np
import pytest

from graphcast_batch.errors import EvaluationError
from graphcast_batch.report.skill import cell, lead_text, skill
from graphcast_batch.report.summary import open_store
from tests.evaluation.made import truth
from tests.evaluation.test_stored import score
from tests.report.made import better, run, worse


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two stores whose errors are 2 and 4 everywhere."""
    folder = tmp_path_factory.mktemp("skill")
    stores = run(folder / "good", better), run(folder / "bad", worse)
    for store in stores:
        score(store, truth())
    return tuple(open_store(store.path) for store in stores)


def test_half_the_error_of_another_store_is_fifty_percent_less(pair):
    found = skill(*pair, None)

    (card,) = found.cards
    assert (card.name, card.cases, card.columns) == ("bad", 4, ("6 h", "12 h", "18 h", "1 d"))
    texts = {label: {each.text for each in cells} for label, cells in (*card.headlines, *card.rest)}
    assert texts == {label: {"−50 %"} for label in texts}
    assert set(texts) >= {"Temperature at 850 hPa", "Temperature at 500 hPa", "10 metre U wind"}
    assert all(each.kind == "better" for _, cells in card.headlines for each in cells)


def test_errors_stand_in_the_units_that_people_know(pair):
    found = skill(pair[1], None, None)

    (line,) = (line for line in found.headlines if line.label == "Temperature at 850 hPa")
    assert line.units == "K"
    assert line.values == (("6 h", "4"), ("12 h", "4"), ("18 h", "4"), ("1 d", "4"))
    chart = next(each for each in found.charts if (each["metric"], each["label"]) == ("bias", line.label))
    np.testing.assert_allclose(chart["lines"][0]["values"], 4.0, rtol=1e-4)


def test_a_region_that_was_not_scored_is_refused_with_those_that_were(pair):
    with pytest.raises(EvaluationError, match="must have the region atlantis, but has global, tropics"):
        skill(pair[0], None, "atlantis")


def test_without_scores_there_is_no_skill_and_of_the_other_it_is_said(tmp_path, pair):
    bare = open_store(run(tmp_path / "bare", count=1).path)

    assert skill(bare, pair[0], None) is None
    assert skill(pair[0], bare, None).notes == ("Not compared with bare: it was not scored.",)


@pytest.mark.parametrize(
    ("relative", "text", "kind", "share"),
    [(-0.12, "−12 %", "better", 24), (0.7, "+70 %", "worse", 100), (0.0, "+0 %", "", 0), (np.nan, "", "", 0)],
)
def test_a_cell_is_colored_by_how_much_better_or_worse_it_is(relative, text, kind, share):
    found = cell(relative, significant=True)

    assert (found.text, found.kind, found.share) == (text, kind, share)
    assert found.is_significant == bool(text)


def test_lead_times_of_whole_days_are_told_in_days():
    assert [lead_text(hours) for hours in (6, 24, 30, 240)] == ["6 h", "1 d", "30 h", "10 d"]
