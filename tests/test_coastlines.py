import json
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from graphcast_batch.coastlines import coastlines, land_share
from graphcast_batch.grid import cell_area, regular_grid

SOURCE = Path(__file__).parents[2] / "shared" / "data" / "land-110m.json"


def test_lines_are_float32_degrees_of_two_or_more_points():
    lines = coastlines()
    assert len(lines) > 100
    assert all(line.dtype == np.float32 and line.ndim == 2 and line.shape[1] == 2 and len(line) > 1 for line in lines)
    points = np.concatenate(lines)
    assert np.abs(points[:, 0]).max() <= 180
    assert np.abs(points[:, 1]).max() <= 90


def test_the_lines_are_read_once_and_cannot_be_written_to():
    assert coastlines() is coastlines()
    with pytest.raises(ValueError, match="read-only"):
        coastlines()[0][0] = 0


def test_no_line_jumps_across_the_map():
    longest = max(float(np.abs(np.diff(line[:, 0])).max()) for line in coastlines())
    assert longest < 15


def test_no_line_runs_along_the_edges_of_the_map():
    for line in coastlines():
        on_edge = np.abs(line[:, 0]) > 179.99
        assert not np.any(on_edge[1:] & on_edge[:-1])
        assert line[:, 1].min() > -86


@pytest.mark.parametrize(
    ("longitude", "latitude"),
    [
        pytest.param(18.5, -34.4, id="Cape of Good Hope"),
        pytest.param(-67.3, -55.9, id="Cape Horn"),
        pytest.param(-22.7, 63.8, id="south-western Iceland"),
        pytest.param(77.5, 8.1, id="Cape Comorin"),
        pytest.param(-17.5, 14.7, id="Cap-Vert"),
        pytest.param(-155.7, 18.9, id="southern Hawaii"),
        pytest.param(172.7, -34.4, id="northern New Zealand"),
        pytest.param(50.3, 40.3, id="Absheron on the Caspian Sea"),
    ],
)
def test_a_known_place_on_the_coast_is_near_a_line(longitude, latitude):
    distance = np.linalg.norm(np.concatenate(coastlines()) - np.array([longitude, latitude]), axis=1)
    assert distance.min() < 1


@pytest.mark.skipif(not SOURCE.exists(), reason="the outlines that these were decoded from are not at hand")
def test_every_vertex_is_one_of_the_source_and_none_is_lost():
    decoded = np.concatenate(_source_arcs())
    inner = decoded[np.abs(decoded[:, 0]) < 179.9]
    drawn = np.concatenate(coastlines())
    off_edge = drawn[np.abs(drawn[:, 0]) < 179.9]
    assert cKDTree(decoded).query(off_edge)[0].max() < 0.0075  # half a hundredth each way, and float32
    assert cKDTree(drawn).query(inner)[0].max() < 0.0075


def _source_arcs():
    topology = json.loads(SOURCE.read_text())
    scale, origin = (np.array(topology["transform"][key]) for key in ("scale", "translate"))
    used = {index if index >= 0 else ~index for index in _leaves(topology["objects"]["land"]["geometries"])}
    return [np.cumsum(topology["arcs"][index], axis=0) * scale + origin for index in sorted(used)]


def _leaves(node):
    if isinstance(node, dict):
        node = node["arcs"]
    return [node] if isinstance(node, int) else [leaf for child in node for leaf in _leaves(child)]


@pytest.mark.parametrize(
    ("latitude", "longitude", "share"),
    [
        (60, 100, 1),  # Siberia
        (24, 10, 1),  # Sahara
        (-88, 0, 1),  # Antarctica
        (-24, 134, 1),  # Australia
        (88, 0, 0),  # Arctic Ocean
        (0, 200, 0),  # Pacific
        (-40, 80, 0),  # Indian Ocean
        (30, 320, 0),  # Atlantic
    ],
)
@pytest.mark.parametrize("step", [0.5, 2])
def test_continents_are_land_and_oceans_are_not(latitude, longitude, share, step):
    grid = regular_grid(step)
    row, column = np.flatnonzero(grid.latitude == latitude), np.flatnonzero(grid.longitude == longitude)
    assert land_share(grid)[row, column] == share


@pytest.mark.parametrize("step", [1, 2.5, 12])
def test_three_tenths_of_the_earth_are_land(step):
    grid = regular_grid(step)
    assert np.mean(land_share(grid).mean(axis=1) * cell_area(grid.latitude)) == pytest.approx(0.29, abs=0.02)
