import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from graphcast_batch.coastlines import coastlines
from graphcast_batch.errors import FigureError
from graphcast_batch.figures.projections import (
    Orthographic,
    PlateCarree,
    Polar,
    Robinson,
    cells,
    lines,
    projection_called,
)
from graphcast_batch.grid import regular_grid

ALL = (
    PlateCarree(),
    Robinson(),
    Orthographic(45, 10),
    Orthographic(-20, 179),
    Orthographic(90, 0),
    Polar(1),
    Polar(-1),
)
ROUND = ALL[2:]
each = pytest.mark.parametrize("projection", ALL, ids=str)


def on_map(projection, longitude, latitude):
    x, y = projection.forward(np.array([float(longitude)]), np.array([float(latitude)]))
    return x[0], y[0]


@pytest.mark.parametrize(
    ("projection", "longitude", "latitude", "x", "y"),
    [
        (PlateCarree(), -120, 35, -120, 35),
        # Snyder and Voxland 1989: 0.8487 and 1.3523 times the table.
        (Robinson(), 180, 0, 0.8487 * np.pi, 0),
        (Robinson(), 0, 40, 0, 1.3523 * 0.4958),
        (Robinson(), -90, -75, -0.8487 * 0.6732 * np.pi / 2, -1.3523 * 0.8936),
        (Robinson(), 180, 90, 0.8487 * 0.5322 * np.pi, 1.3523),
        (Orthographic(40, -100), -100, 40, 0, 0),
        (Orthographic(40, -100), -100, 90, 0, np.cos(np.radians(40))),
        (Orthographic(0, 0), 30, 0, 0.5, 0),
        (Orthographic(0, 170), -170, 0, np.sin(np.radians(20)), 0),
        (Polar(1), 0, 90, 0, 0),
        (Polar(1), 0, 45, 0, -2 * np.tan(np.radians(22.5))),
        (Polar(1), 90, 45, 2 * np.tan(np.radians(22.5)), 0),
        (Polar(-1), 0, -45, 0, 2 * np.tan(np.radians(22.5))),
        (Polar(-1), 90, -45, 2 * np.tan(np.radians(22.5)), 0),
    ],
    ids=str,
)
def test_places_are_where_the_formulae_put_them(projection, longitude, latitude, x, y):
    assert on_map(projection, longitude, latitude) == pytest.approx((x, y), abs=1e-12)


@pytest.mark.parametrize(
    ("projection", "longitude", "latitude"), [(Orthographic(40, 10), -170, -40), (Polar(1), 0, -1), (Polar(-1), 0, 1)]
)
def test_what_is_behind_the_globe_is_not_on_the_map(projection, longitude, latitude):
    assert np.isnan(on_map(projection, longitude, latitude)).all()


@each
@given(longitude=st.floats(-179.9, 179.9), latitude=st.floats(-89.9, 89.9))
def test_the_way_back_leads_to_the_same_place(projection, longitude, latitude):
    there = projection.forward(np.array([longitude]), np.array([latitude]))
    back = projection.inverse(*there)
    # Near the horizon a step on the globe is hardly one on the map, and rounding leads behind it.
    apart = np.array(projection.forward(*back)) - np.array(there)
    assume(not np.isnan(apart).any())
    assert np.abs(apart).max() < 1e-9


@each
def test_every_cell_shows_where_its_middle_is(projection):
    grid, columns = regular_grid(5.0), 721
    shown = cells(projection, grid, columns)
    rows, over = np.meshgrid(np.arange(3, grid.shape[0] - 3), np.arange(grid.shape[1]), indexing="ij")
    longitude = (grid.longitude[over].astype(float) + 180) % 360 - 180
    at_x, at_y = projection.forward(longitude, grid.latitude[rows].astype(float))
    left, right, bottom, top = projection.extent
    with np.errstate(invalid="ignore"):
        # Cells that the edge of the map cuts are seen in part only, and those at the poles are narrower than a pixel.
        inside = np.hypot(at_x, at_y) < 0.95 * right if projection in ROUND else longitude > -180
    column = ((at_x[inside] - left) / (right - left) * columns).astype(int).clip(0, columns - 1)
    row = ((at_y[inside] - bottom) / (top - bottom) * len(shown)).astype(int).clip(0, len(shown) - 1)
    assert inside.sum() > 500
    assert (shown[row, column] == (rows * grid.shape[1] + over)[inside]).all()


@pytest.mark.parametrize("projection", [Polar(1), Polar(-1), Orthographic(90, 0)], ids=str)
def test_a_pole_is_one_disc_without_a_gap(projection):
    grid = regular_grid(10.0)
    shown = cells(projection, grid, 401) // grid.shape[1]
    pole = 0 if projection == Polar(-1) else grid.shape[0] - 1
    assert (shown[198:203, 198:203] == pole).all()


def test_the_two_sides_of_the_date_line_meet():
    projection, grid = Orthographic(0, 180), regular_grid(10.0)
    shown = cells(projection, grid, 400)[200] % grid.shape[1]
    assert (np.diff(shown[20:-20]) >= 0).all()
    assert {17, 18, 19} <= set(shown.tolist())


@pytest.mark.parametrize(
    ("projection", "longitude", "latitude", "eastward", "northward", "expected"),
    [
        (Polar(1), 0, 60, 1, 0, (1, 0)),
        (Polar(1), 0, 60, 0, 1, (0, 1)),
        (Polar(1), 90, 60, 1, 0, (0, 1)),
        (Polar(1), 180, 60, 1, 0, (-1, 0)),
        (Polar(-1), 0, -60, 1, 0, (1, 0)),
        (Polar(-1), 0, -60, 0, 1, (0, 1)),
        (Polar(-1), 90, -60, 1, 0, (0, -1)),
        (Orthographic(30, 70), 70, 30, 3, 4, (3, 4)),
        (Robinson(), 0, 0, 2, 0, (2, 0)),
        # A degree of longitude at 60° is half as long on the globe as on the map.
        (PlateCarree(), 0, 60, 1, 1, (2 * np.sqrt(2 / 5), np.sqrt(2 / 5))),
        (PlateCarree(), 179.9999, 0, 1, 0, (1, 0)),
        (PlateCarree(), 0, 0, 0, 0, (0, 0)),
    ],
    ids=str,
)
def test_wind_blows_along_its_way_over_the_map(projection, longitude, latitude, eastward, northward, expected):
    arrays = (np.array([float(value)]) for value in (longitude, latitude, eastward, northward))
    along = [component[0] for component in projection.directions(*arrays)]
    assert along == pytest.approx(expected, abs=1e-4)


@each
def test_no_coast_crosses_the_map(projection):
    left, right, _, _ = projection.extent
    on_globe = max(np.abs(np.diff(line, axis=0)).max() for line in coastlines())
    drawn = lines(projection, coastlines())
    longest = max(np.hypot(*np.diff(line, axis=0).T).max() for line in drawn)
    # A degree is at most twice as long at the edge of a polar map as in its middle.
    assert longest / (right - left) < 2 * np.sqrt(2) * on_globe / 180


def test_a_line_is_broken_where_it_is_hidden():
    east = np.arange(-180.0, 181)
    parallel = np.stack([east, np.zeros(361)], axis=-1)
    (seen,) = lines(Orthographic(0, 0), (parallel,))
    assert seen[[0, -1], 0].tolist() == pytest.approx([-1, 1])
    assert [part[:, 0].min() for part in lines(Orthographic(0, 180), (parallel,))] == pytest.approx([0, -1], abs=1e-9)


def test_an_orthographic_map_needs_its_middle():
    assert projection_called("orthographic", (10, 20)) == Orthographic(10, 20)
    assert projection_called("south_polar") == Polar(-1)
    with pytest.raises(FigureError, match="needs the latitude and longitude of its center"):
        projection_called("orthographic")
