"""Figures of all members of an initial time together say in their text what they show."""

import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from graphcast_batch.config.figures_section import FiguresConfig
from graphcast_batch.config.outputs_section import OutputsConfig
from graphcast_batch.errors import FigureError
from graphcast_batch.figures.ensemble_figures import draw_ensemble, expected_ensemble_figures
from graphcast_batch.figures.ensemble_maps import control_of
from graphcast_batch.members import NO_SEED, UNPERTURBED, Member
from graphcast_batch.stores.layout import Layout, Plan
from graphcast_batch.stores.store_kinds import create_or_extend
from tests.evaluation.made import LEVELS, VARIABLES, cases, fill, truth

OFFSETS = (0.0, 2.0, -2.0)
WANTED = FiguresConfig(variables=("temperature",), levels=(850,), lead_hours=(12,), ensemble=True, points=("Oslo",))


def of_three(path, complete=3, offsets=OFFSETS):
    """A store of a control and two members, whose forecasts are the truth with an offset in K."""
    (start,) = cases(1)
    members = [Member(0, "m", "0" * 64, UNPERTURBED, NO_SEED)]
    members += [Member(number, "m", "0" * 64, f"gaussian {number - 1}", 7) for number in (1, 2)]
    planned = tuple(replace(start, member=member.number) for member in members)
    layout = Layout(truth().grid, LEVELS, VARIABLES, start.steps, 6, OutputsConfig())
    plan = Plan(planned, layout, members=tuple(members))
    store = create_or_extend(path, plan, identity={}, provenance={}, config_text="a: 1\n")
    for case in planned[:complete]:
        fill(store, case, lambda name, hours, values, case=case: values + offsets[case.member], truth())
    return store, start


def text_of(path):
    with Image.open(path) as image:
        return image.text


def test_mean_and_spread_are_those_of_the_members(tmp_path):
    store, start = of_three(tmp_path / "store")

    assert draw_ensemble(store, start, WANTED, truth(), tmp_path) == 2

    text = text_of(tmp_path / "temperature_at_850_hPa_mean_and_spread_012h.png")
    assert text["Title"] == "Temperature at 850 hPa (°C), mean and standard deviation of 3 members"
    over_globe = r"Mean − target: RMSE over the globe 0\.0+ K; Spread: RMS over the globe 2\.0+ K"
    assert re.search(over_globe, text["Description"])
    assert "Lead time +12 h" in text["Description"]


def test_a_plume_shows_the_members_at_a_point(tmp_path):
    store, start = of_three(tmp_path / "store")
    draw_ensemble(store, start, WANTED, truth(), tmp_path)

    text = text_of(tmp_path / "temperature_at_850_hPa_plume_in_Oslo.png")["Description"]
    low, high, median = (float(part.split()[-1]) for part in text.rstrip(".").replace(", median", " to").split(" to "))
    assert high - low == pytest.approx(4.0, abs=0.02)
    assert median == pytest.approx((low + high) / 2, abs=0.02)


def test_plumes_of_several_points_and_levels_have_their_own_values(tmp_path):
    store, start = of_three(tmp_path / "store")
    wanted = WANTED.model_copy(update={"levels": (850, 500), "points": ("Oslo", "-33, 151")})

    assert draw_ensemble(store, start, wanted, truth(levels=(850,)), tmp_path) == 6

    last = store.forecasts()["temperature"].isel(time=0, prediction_timedelta=-1)
    for level in (500, 850):
        for name, latitude, longitude in (("Oslo", 60, 10), ("33S_151E", -30, 150)):
            text = text_of(tmp_path / f"temperature_at_{level}_hPa_plume_in_{name}.png")["Description"]
            values = last.sel(level=level, latitude=latitude, longitude=longitude).values - 273.15
            expected = f"{values.min():.4g} to {values.max():.4g}, median {np.median(values):.4g}"
            assert text.endswith(f"at the last lead time {expected}."), text


def test_the_heading_of_a_polar_map_is_not_cut_off(tmp_path):
    store, start = of_three(tmp_path / "store")
    update = {"spaghetti": {"temperature": 10.5}, "projection": "north_polar", "points": (), "ensemble": False}

    draw_ensemble(store, start, WANTED.model_copy(update=update), truth(), tmp_path)

    with Image.open(tmp_path / "temperature_at_850_hPa_contour_10.5_012h.png") as image:
        pixels = np.asarray(image.convert("L"))
    edges = pixels[: pixels.shape[0] // 8, [0, 1, 2, -3, -2, -1]]
    assert (edges == pixels[0, 0]).all()


def test_without_truth_mean_and_spread_are_drawn_alone(tmp_path):
    store, start = of_three(tmp_path / "store")

    draw_ensemble(store, start, WANTED, truth(levels=(500,)), tmp_path)

    text = text_of(tmp_path / "temperature_at_850_hPa_mean_and_spread_012h.png")["Description"]
    assert "Lead time +12 h. Spread: RMS over the globe 2.0" in text


def test_contour_lines_are_drawn_of_every_member_that_has_the_value(tmp_path):
    store, start = of_three(tmp_path / "store", offsets=(0.0, 1.0, 500.0))
    of_control = store.forecasts()["temperature"].sel(number=0, level=850).isel(time=0, prediction_timedelta=1)
    value = round(float(of_control.median()) - 273.15, 1)
    wanted = FiguresConfig(
        variables=("temperature",), levels=(850,), lead_hours=(12,), spaghetti={"temperature": value}
    )

    assert draw_ensemble(store, start, wanted, truth(), tmp_path) == 1

    text = text_of(tmp_path / f"temperature_at_850_hPa_contour_{value:g}_012h.png")
    assert text["Title"] == f"Temperature at 850 hPa, {value:g} °C in 3 members"
    assert text["Description"].endswith("1 member does not reach it")


def test_an_incomplete_ensemble_is_drawn_with_the_members_there_are(tmp_path):
    store, start = of_three(tmp_path / "store", complete=2)
    draw_ensemble(store, start, WANTED, truth(), tmp_path)

    title = text_of(tmp_path / "temperature_at_850_hPa_mean_and_spread_012h.png")["Title"]
    assert title.endswith("standard deviation of 2 of 3 members")


def test_one_member_is_no_ensemble(tmp_path):
    store, start = of_three(tmp_path / "store", complete=1)
    with pytest.raises(FigureError, match="two members at least must be complete to draw an ensemble"):
        draw_ensemble(store, start, WANTED, truth(), tmp_path)


def test_files_are_those_that_are_expected(tmp_path):
    store, start = of_three(tmp_path / "store")
    wanted = WANTED.model_copy(update={"spaghetti": {"temperature": 10.5}, "lead_hours": None, "format": "svg"})
    folder = tmp_path / "figures"

    count = draw_ensemble(store, start, wanted, truth(), folder)

    expected = expected_ensemble_figures(wanted, dict(store.kept.on_levels), store.kept.lead_hours)
    assert {path.name for path in folder.iterdir()} == set(expected)
    assert count == len(expected) == 2 * len(store.kept.lead_hours) + 1


def test_a_contour_line_is_of_a_variable_that_is_drawn():
    wanted = FiguresConfig(variables=("temperature",), levels=(850,), spaghetti={"geopotential": 552.0})
    with pytest.raises(FigureError, match=r"figures\.spaghetti: geopotential must be among figures\.variables"):
        expected_ensemble_figures(wanted, dict(VARIABLES), (6,))


def test_the_control_is_the_only_member_from_the_state_as_it_is():
    assert control_of(["none", "gaussian 0"], "none") == 0
    assert control_of(["none", "none"], "none") is None
    assert control_of(["gaussian 0", "gaussian 1"], "none") is None
