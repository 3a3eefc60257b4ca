"""Reports on ensembles show the statistics of members that the store keeps, beside its members."""

import re

import numpy as np
import pytest

from graphcast_batch.report.field_pictures import browsable
from graphcast_batch.report.page import write_page
from graphcast_batch.report.summary import facts, open_store, standing
from graphcast_batch.report.views import views_of
from tests.report.made import ensemble, weather
from tests.report.test_fields import unpacked
from tests.report.test_page import data_of

FIRST = "2020-01-01T00"
KEYS = ["_mean", "_standard_deviation", "_quantile_0.25", "-m000", "-m001", "-m002"]


def shown(opened):
    return browsable(opened, views_of(opened), 10**7)


def pictures(content, variable="temperature", level=850):
    """Values and differences of a field, by the key of the view; None where there is no difference."""
    field = next(each for each in content["fields"] if (each["variable"], each["level"]) == (variable, level))
    stacks = [[picture and unpacked(picture) for picture in stacks] for stacks in field["stacks"]]
    return dict(zip([view["key"] for view in content["views"]], stacks, strict=True))


def test_mean_spread_and_quantiles_can_be_chosen_beside_the_members(tmp_path):
    store = ensemble(tmp_path / "s", archive=weather(tmp_path / "truth.zarr"))
    opened = open_store(store.path)

    content = shown(opened).content

    assert [view["key"] for view in content["views"]] == [
        f"{time}{end}" for time in (FIRST, "2020-01-01T12") for end in KEYS
    ]
    found = pictures(content)
    control = store.forecasts()["temperature"].sel(number=0, level=850).isel(time=0).values - 273.15
    for end, offset in (("_mean", 3), ("_quantile_0.25", 1), ("-m000", 0), ("-m002", 7)):
        values, difference = found[f"{FIRST}{end}"]
        np.testing.assert_allclose(values, control + offset, atol=0.5 * 6 / 254 + 1e-3, err_msg=end)
        np.testing.assert_allclose(difference, offset, atol=1e-3, err_msg=end)


def test_a_spread_has_a_scale_of_its_own_and_no_truth(tmp_path):
    opened = open_store(ensemble(tmp_path / "s", archive=weather(tmp_path / "truth.zarr")).path)

    content = shown(opened).content

    spread, difference = pictures(content)[f"{FIRST}_standard_deviation"]
    np.testing.assert_allclose(spread, np.std([0, 2, 7], ddof=1), atol=1e-3)
    assert difference is None
    field = next(each for each in content["fields"] if each["level"] == 850)
    assert field["spread"]["limits"] == pytest.approx([np.sqrt(13)] * 2, rel=0.02)
    assert field["limits"][0] > 3000  # in °C, as high as the wave planet is at this level
    texts = {view["key"]: view["text"] for view in content["views"] if view["isSpread"]}
    assert texts[f"{FIRST}_standard_deviation"] == "2020-01-01 00 UTC, standard deviation of members (spread)"


@pytest.mark.parametrize(
    ("kept", "left", "note"),
    [
        ("none", KEYS[:3], r"The values of 3 of 3 forecasts were removed once .* complete \(outputs\.members: none\)"),
        ([1], [*KEYS[:3], "-m001"], r"The values of 2 of 3 forecasts were removed .* \(outputs\.members: \[1\]\)"),
    ],
)
def test_where_members_were_removed_what_is_left_is_shown_and_the_page_says_so(tmp_path, kept, left, note):
    store = ensemble(tmp_path / "s", count=1, combined=1, kept=kept)
    opened = open_store(store.path)

    found = shown(opened)

    assert [view["key"] for view in found.content["views"]] == [f"{FIRST}{end}" for end in left]
    for values, _ in pictures(found.content).values():
        assert np.isfinite(values).all()
    write_page(store.path, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert re.match(note, found.notes[0])
    assert found.notes[0] in text
    assert data_of(text)["sides"][0]["views"][0]["text"] == "2020-01-01 00 UTC, mean of members"


def test_members_that_are_not_combined_yet_are_shown_alone_and_awaited(tmp_path):
    opened = open_store(ensemble(tmp_path / "s", combined=1).path)

    keys = [view["key"] for view in shown(opened).content["views"]]

    assert keys == [f"{FIRST}{end}" for end in KEYS] + [f"2020-01-01T12{end}" for end in KEYS[3:]]
    assert (standing(opened).to_combine, standing(opened).is_over) == (1, False)
    assert not write_page(opened.store.path, tmp_path / "r.html")
    assert "the members of 1 initial time are still to be combined" in (tmp_path / "r.html").read_text()


def test_a_page_is_over_once_all_members_are_combined(tmp_path):
    assert write_page(ensemble(tmp_path / "s").path, tmp_path / "r.html")


def test_the_content_of_a_store_names_the_statistics(tmp_path):
    rows = dict(facts(open_store(ensemble(tmp_path / "s").path)))

    assert rows["Statistics of members"] == "mean, standard deviation, quantile 0.25"
