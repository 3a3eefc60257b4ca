import numpy as np
import pytest

from graphcast_batch.coastlines import land_share
from graphcast_batch.config.outputs_section import RegionConfig
from graphcast_batch.config.scores_section import ScoresConfig
from graphcast_batch.errors import EvaluationError
from graphcast_batch.evaluation import case_scoring as module
from graphcast_batch.evaluation.baselines import Persistence
from graphcast_batch.evaluation.case_scoring import score_case
from graphcast_batch.evaluation.scoring_setup import part_of
from graphcast_batch.evaluation.store_scoring import scoring_of
from graphcast_batch.inputs.sources.planet_archive import SyntheticArchive
from graphcast_batch.timing import Stopwatch
from tests.evaluation.made import AMPLITUDE, TURN_HOURS, WavePlanet, cases, stored, truth


def unchanged(name, hours, values):
    return values


def means_of(scoring, case):
    return {name: found.means for name, found in score_case(scoring, case, Stopwatch()).items()}


def test_an_error_that_grows_with_lead_time_is_found_at_each_lead_time_level_and_region(tmp_path):
    store = stored(tmp_path / "s", cases(1), lambda name, hours, values: values + hours)
    scoring = scoring_of(ScoresConfig(regions=("global", "tropics")), store, truth())

    found = means_of(scoring, cases(1)[0])

    assert found["temperature"].shape == (3, 4, 2, 2)
    hours = np.array([6.0, 12, 18, 24])[:, np.newaxis, np.newaxis]
    bias, square, absolute = found["temperature"]
    np.testing.assert_allclose(bias, np.broadcast_to(hours, bias.shape), rtol=1e-6)
    np.testing.assert_allclose(square, np.broadcast_to(hours**2, bias.shape), rtol=1e-6)
    np.testing.assert_allclose(absolute, np.broadcast_to(hours, bias.shape), rtol=1e-6)


def test_persistence_of_a_traveling_wave_has_the_error_that_it_must_have(tmp_path):
    """The mean over a circle of (cos(x - wt) - cos(x))² is 1 - cos(wt)."""
    store = stored(tmp_path / "s", cases(1), unchanged)
    source = truth()
    scoring = scoring_of(ScoresConfig(regions=("global", "arctic")), store, source)
    persistent = scoring_of(
        ScoresConfig(regions=("global", "arctic")), store, source, forecasts=Persistence(source, scoring.part)
    )

    _, square, _ = means_of(persistent, cases(1)[0])["10m_u_component_of_wind"]

    turned = 2 * np.pi * np.array([6, 12, 18, 24]) / TURN_HOURS
    expected = AMPLITUDE**2 * (1 - np.cos(turned))
    np.testing.assert_allclose(square, np.repeat(expected[:, np.newaxis], 2, axis=1), rtol=1e-5)


def test_the_pieces_in_which_a_case_is_read_do_not_change_its_scores(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    store = stored(tmp_path / "s", cases(1), lambda name, hours, values: values + random.normal(size=values.shape))
    scoring = scoring_of(ScoresConfig(), store, truth())
    at_once = means_of(scoring, cases(1)[0])

    for size in (1, 40_000):  # a variable at a lead time; some at two
        monkeypatch.setattr(module, "_PIECE_BYTES", size)
        for name, found in means_of(scoring, cases(1)[0]).items():
            np.testing.assert_allclose(found, at_once[name], rtol=1e-12)


def test_a_part_of_the_globe_across_the_meridian_is_scored_like_the_same_box_of_the_whole(tmp_path):
    box = RegionConfig(latitude=(20, 60), longitude=(-30, 40))
    source, wanted = truth(), ScoresConfig(regions=("global",), boxes={"here": box})
    part = stored(tmp_path / "part", cases(1), lambda name, hours, values: values * 1.5, region=box)
    complete = stored(tmp_path / "whole", cases(1), lambda name, hours, values: values * 1.5)

    of_part, of_whole = scoring_of(wanted, part, source), scoring_of(wanted, complete, source)
    here, there = means_of(of_part, cases(1)[0]), means_of(of_whole, cases(1)[0])

    assert of_part.weighed().names == ("stored", "here")
    for name in here:
        np.testing.assert_allclose(here[name][..., 0], there[name][..., 1], rtol=1e-12)
        np.testing.assert_allclose(here[name][..., 1], there[name][..., 1], rtol=1e-12)


def test_land_is_weighted_with_its_share_of_each_cell(tmp_path):
    def change(name, hours, values):
        east = np.arange(values.shape[-1]) < values.shape[-1] // 2
        return values + np.where(east, 1.0, 3.0)

    store = stored(tmp_path / "s", cases(1), change)
    found = means_of(scoring_of(ScoresConfig(regions=("land", "sea")), store, truth()), cases(1)[0])

    bias = found["10m_u_component_of_wind"][0]
    np.testing.assert_allclose(bias[:, 0], 1, rtol=1e-6)
    np.testing.assert_allclose(bias[:, 1], (0.5 * 1 + 18 * 3) / 18.5, rtol=1e-6)


def test_a_gap_in_a_forecast_is_refused_with_its_place(tmp_path):
    def change(name, hours, values):
        values = values.copy()
        if name == "temperature" and hours == 12:
            values[1, 3, 4] = np.nan
        return values

    scoring = scoring_of(ScoresConfig(), stored(tmp_path / "s", cases(1), change), truth())
    with pytest.raises(
        EvaluationError,
        match=r"2020-01-01T00: the forecast must be finite everywhere, but temperature at 850 hPa is nan after 12 h at "
        r"latitude -60, longitude 40 \(1 values in all\)",
    ):
        score_case(scoring, cases(1)[0], Stopwatch())


def test_a_gap_in_the_truth_is_refused_with_its_place(tmp_path):
    class Gappy(type(truth())):
        def fields(self, names, times, levels):
            found = super().fields(names, times, levels)
            found["10m_v_component_of_wind"].values[2, 0, 1] = np.inf
            return found

    source = truth()
    gappy = Gappy(source._planet, 10.0, source.levels)
    scoring = scoring_of(ScoresConfig(), stored(tmp_path / "s", cases(1), unchanged), gappy)
    with pytest.raises(
        EvaluationError,
        match="the truth must be finite everywhere, but 10m_v_component_of_wind is inf after 18 h at latitude -90, "
        "longitude 10",
    ):
        score_case(scoring, cases(1)[0], Stopwatch())


@pytest.mark.parametrize(("resolution", "points"), [(15.0, "13 x 24"), (5.0, "37 x 72")])
def test_a_truth_on_another_grid_is_refused_even_if_it_has_the_points(tmp_path, resolution, points):
    store = stored(tmp_path / "s", cases(1), unchanged)

    with pytest.raises(
        EvaluationError,
        match=rf"must be on the grid of the forecasts, 19 x 36 from .*, but has {points} .*; set regrid",
    ):
        scoring_of(ScoresConfig(), store, truth(resolution))


def test_points_are_found_in_any_order_and_across_the_meridian():
    latitude, longitude = np.array([90.0, 0, -90]), np.array([-90.0, 0, 90, 180])

    found = part_of("truth", (latitude, longitude), (np.float32([-90, 0]), np.float32([180, 270, 360])), "")

    assert (found.rows.tolist(), found.columns.tolist(), found.complete) == ([2, 1], [3, 0, 1], False)


class BlankPlanet(WavePlanet):
    """One variable is 0 all over the globe at 12 h."""

    name = "10m_u_component_of_wind"

    def fields(self, names, times, grid, levels):
        found = super().fields(names, times, grid, levels)
        blank = found["time"] == np.datetime64("2020-01-01T12", "ns")
        return found.assign({name: found[name].where(~blank, 0) for name in {self.name} & set(names)})


def test_truth_that_is_0_all_over_the_globe_is_none_and_says_what_to_leave_out(tmp_path):
    store = stored(tmp_path / "s", cases(1), lambda name, hours, values: values)
    blank = SyntheticArchive(BlankPlanet(), 10.0, (500, 850))

    with pytest.raises(
        EvaluationError,
        match=r"cannot be scored against: 10m_u_component_of_wind must not be 0 everywhere, but 1 of . fields "
        r"are 0 all over the globe, the first at time 2020-01-01T12:00.* leave the variable out of scores\.variables",
    ):
        means_of(scoring_of(ScoresConfig(), store, blank), cases(1)[0])

    without = ScoresConfig(variables=("10m_v_component_of_wind", "temperature"))
    assert means_of(scoring_of(without, store, blank), cases(1)[0]).keys() == set(without.variables)


class SeaPlanet(WavePlanet):
    """Its mask is that of the sea of the Earth."""

    def fields(self, names, times, grid, levels):
        found = super().fields(names, times, grid, levels)
        sea = 1 - land_share(grid).astype(np.float32)
        return found.assign(dict.fromkeys({"land_sea_mask"} & set(names), (("latitude", "longitude"), sea)))


def test_a_mask_of_the_sea_is_not_taken_for_land(tmp_path):
    store = stored(tmp_path / "s", cases(1), lambda name, hours, values: values)

    with pytest.raises(EvaluationError, match=r"must be the share of land, but that of .* is the share of sea"):
        scoring_of(ScoresConfig(regions=("land",)), store, SyntheticArchive(SeaPlanet(), 10.0, (500, 850)))
