import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphcast_batch.config.outputs_section import RegionConfig
from graphcast_batch.config.scores_section import ScoresConfig
from graphcast_batch.errors import EvaluationError
from graphcast_batch.evaluation.regions import weigh
from graphcast_batch.grid import regular_grid

GRID = regular_grid(2.5)


def no_land():
    raise AssertionError("nobody asked for land")


def areas(names, boxes=None, grid=GRID, land=no_land, part=None):
    found = weigh(names, boxes or {}, grid, land, part)
    return dict(zip(found.names, found.totals, strict=True))


def test_the_regions_of_the_configuration_have_the_areas_of_their_boxes_on_the_sphere():
    found = areas(ScoresConfig().regions)

    # A box has the area (sin n - sin s) x width; its cells reach half a step beyond its edges.
    def area(south, north, width):
        south, north = max(south - 1.25, -90), min(north + 1.25, 90)
        return (np.sin(np.deg2rad(north)) - np.sin(np.deg2rad(south))) / 2 * width / 144

    assert found["global"] == pytest.approx(1, rel=1e-12)
    assert found["tropics"] == pytest.approx(area(-20, 20, 144), rel=1e-9)
    assert found["northern-hemisphere"] == pytest.approx(area(20, 90, 144), rel=1e-9)
    assert found["extra-tropics"] == pytest.approx(2 * area(20, 90, 144), rel=1e-9)
    assert found["europe"] == pytest.approx(area(35, 75, 23), rel=1e-9)  # 12.5 W to 42.5 E
    assert found["north-pacific"] == pytest.approx(area(25, 60, 35), rel=1e-9)  # 145 E to 130 W
    assert found["antarctic"] == pytest.approx(area(-90, -60, 144), rel=1e-9)


@given(st.sampled_from([1.0, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0, 15.0, 30.0]))
def test_the_weights_of_the_globe_add_up_to_one_on_any_grid(resolution):
    assert areas(["global"], grid=regular_grid(resolution))["global"] == pytest.approx(1, rel=1e-12)


def test_land_and_sea_share_each_cell():
    land = np.random.default_rng(0).random(GRID.shape).astype(np.float32)

    found = areas(["global", "land", "sea"], land=lambda: land)

    assert found["land"] + found["sea"] == pytest.approx(found["global"], rel=1e-12)
    assert 0 < found["land"] < 1


def test_a_box_across_the_meridian_holds_as_many_columns_as_one_beside_it():
    boxes = {
        "across": RegionConfig(latitude=(0, 10), longitude=(-10, 10)),
        "beside": RegionConfig(latitude=(0, 10), longitude=(40, 60)),
        "behind": RegionConfig(latitude=(0, 10), longitude=(350, 10)),
        "all": RegionConfig(latitude=(0, 10), longitude=(-180, 180)),
    }

    found = areas([], boxes)

    assert found["across"] == pytest.approx(found["beside"], rel=1e-12)
    assert found["behind"] == pytest.approx(found["beside"], rel=1e-12)
    assert found["all"] == pytest.approx(found["beside"] * 144 / 9, rel=1e-12)


def test_sums_over_runs_of_points_are_those_over_all_points():
    regions = weigh(ScoresConfig().regions, {}, GRID, no_land)
    field = np.random.default_rng(0).normal(size=GRID.size)

    summed = np.zeros(len(regions.names))
    for run, here, weights in regions.blocks:
        summed[here] += field[run] @ weights

    assert len(regions.blocks) == 2
    np.testing.assert_allclose(summed, np.einsum("rp,p", regions.weights.reshape(len(summed), -1), field), rtol=1e-12)


def test_of_a_part_of_the_globe_there_are_the_regions_in_it_and_all_of_it():
    rows, columns = np.flatnonzero(GRID.latitude >= 15), np.arange(GRID.longitude.size)

    found = areas(ScoresConfig().regions, part=(rows, columns))

    assert list(found) == [
        *("stored", "northern-hemisphere", "europe", "north-america", "north-atlantic", "north-pacific"),
        *("east-asia", "arctic"),
    ]
    assert found["stored"] == pytest.approx((1 - np.sin(np.deg2rad(13.75))) / 2, rel=1e-9)


def test_a_misspelt_region_is_refused_with_the_nearest_name():
    with pytest.raises(EvaluationError, match=r"tropcs is not; did you mean tropics\?"):
        areas(["tropcs"])


def test_a_region_named_twice_is_refused():
    with pytest.raises(EvaluationError, match="each region once, but global is named twice"):
        areas(["global"], {"global": RegionConfig(latitude=(0, 10), longitude=(0, 10))})


def test_a_region_without_points_is_refused():
    with pytest.raises(EvaluationError, match=r"must hold a point of .*, but dot holds none"):
        areas(["global"], {"dot": RegionConfig(latitude=(1, 2), longitude=(1, 2))})
