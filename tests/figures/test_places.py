import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphcast_batch.errors import FigureError
from graphcast_batch.figures.map_points import CITIES, NamedPoint, nearest, place_of
from graphcast_batch.grid import regular_grid


def test_a_city_is_found_in_any_case():
    assert place_of("new york") == NamedPoint("New York", 40.71, -74.01)


def test_numbers_are_a_latitude_and_a_longitude_east_or_west():
    assert place_of("52.4, 13.1") == NamedPoint("52.4°N 13.1°E", 52.4, 13.1)
    assert place_of("-33.5,289.25") == NamedPoint("33.5°S 70.75°W", -33.5, -70.75)


def test_a_city_that_is_not_in_the_table_gets_a_hint():
    with pytest.raises(FigureError, match=r"Berln is not in the table of cities; did you mean Berlin\?"):
        place_of("Berln")


def test_longitude_before_latitude_is_refused_where_it_shows():
    with pytest.raises(FigureError, match=r"must be latitude -90..90, longitude -180..360, but is 139.7, 35.7"):
        place_of("139.7, 35.7")


@pytest.mark.parametrize(("name", "others"), [("Berlin", ("Warsaw", 517)), ("London", ("New York", 5570))])
def test_distances_between_cities_are_those_of_the_atlas(name, others):
    """Great circles, as travel tables give them, to a hundredth."""
    other, kilometers = others
    north, east = CITIES[other]

    found = nearest(place_of(name), np.array([north]), np.array([east % 360]))

    assert found.kilometers == pytest.approx(kilometers, rel=0.01)


def test_the_nearest_point_may_lie_beyond_greenwich():
    grid = regular_grid(6.0)

    found = nearest(NamedPoint("here", 50.0, -1.0), grid.latitude, grid.longitude)

    assert (found.latitude, found.longitude) == (48.0, 0.0)
    assert found.description == "grid point 48°N 0°, 234 km away"


@given(st.floats(-90, 90), st.floats(-180, 179.9))
def test_no_grid_point_is_further_than_half_the_diagonal_of_a_cell(north, east):
    grid = regular_grid(6.0)

    found = nearest(NamedPoint("here", north, east), grid.latitude, grid.longitude)

    assert found.kilometers <= np.hypot(3, 3) * 111.3
