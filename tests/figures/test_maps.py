import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib import colormaps
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from PIL import Image

from graphcast_batch.errors import FigureError, GridError
from graphcast_batch.figures.maps import MOST_ROWS, draw_maps, draw_strip
from graphcast_batch.figures.panel import MapBackground, Panel
from graphcast_batch.figures.projections import Orthographic, PlateCarree, Polar, Robinson
from graphcast_batch.figures.scales import field_scale
from graphcast_batch.figures.scene import Layer, Shown, Wind, scene
from graphcast_batch.grid import regular_grid

LOW, HIGH = (tuple(round(255 * part) for part in colormaps["viridis"](end)[:3]) for end in (0.0, 1.0))
GRAY = (0xD9, 0xD9, 0xD9)


def latitude_itself(latitude, longitude):
    return latitude + 0 * longitude


def field(function=latitude_itself, *, degrees=5.0, name="tracer", **coords):
    latitude = np.arange(-90, 90.1, degrees, dtype=np.float32)
    longitude = np.arange(0, 360, degrees, dtype=np.float32)
    values = function(*np.meshgrid(latitude, longitude, indexing="ij")).astype(np.float32)
    given = {"latitude": latitude, "longitude": longitude, "time": np.datetime64("2020-01-01T06", "ns"), **coords}
    given.setdefault("prediction_timedelta", np.timedelta64(24, "h").astype("timedelta64[ns]"))
    return xr.DataArray(values, dims=("latitude", "longitude"), coords=given, name=name)


def forecast(steps, **kwargs):
    leads = [np.timedelta64(6 * step, "h").astype("timedelta64[ns]") for step in range(1, steps + 1)]
    return xr.concat([field(prediction_timedelta=lead, **kwargs) for lead in leads], dim="prediction_timedelta")


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def is_color(image, color, tolerance=2):
    return (np.abs(image.astype(int) - np.array(color)) <= tolerance).all(axis=-1)


def single_map(path):
    """The pixels of a map that stands alone and shows lowest, highest and missing values only."""
    image = pixels(path)
    painted = is_color(image, LOW) | is_color(image, HIGH) | is_color(image, GRAY)
    columns = np.flatnonzero(painted[len(image) // 3])
    rows = np.flatnonzero(painted[:, columns[0] + 3])  # the color bar is narrower than the map
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


@pytest.mark.parametrize("southwards", [False, True], ids=["latitude ascends", "latitude descends"])
def test_north_is_up(tmp_path, southwards):
    cap = field(lambda latitude, _: latitude >= 60)
    draw_maps(tmp_path / "map.png", cap.isel(latitude=slice(None, None, -1)) if southwards else cap)
    shown = single_map(tmp_path / "map.png")
    rows = np.flatnonzero(is_color(shown, HIGH).any(axis=1))
    assert rows[0] == 0
    assert (rows[-1] + 1) / len(shown) == pytest.approx((90 - 57.5) / 180, abs=0.005)


def test_a_polar_row_is_half_a_cell_high(tmp_path):
    draw_maps(tmp_path / "map.png", field(lambda latitude, _: latitude > 89, degrees=10))
    shown = single_map(tmp_path / "map.png")
    assert is_color(shown, HIGH).any(axis=1).sum() / len(shown) == pytest.approx(5 / 180, abs=0.005)


@pytest.mark.parametrize(("longitude", "drawn"), [(350, -10), (10, 10), (120, 120), (185, -175)])
def test_a_spot_is_drawn_at_its_longitude(tmp_path, longitude, drawn):
    draw_maps(tmp_path / "map.png", field(lambda lat, lon: (lat == 40) & (lon == longitude)))
    shown = single_map(tmp_path / "map.png")
    rows, columns = np.nonzero(is_color(shown, HIGH))
    across, down = (columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2
    assert across / shown.shape[1] * 360 - 180 == pytest.approx(drawn, abs=1)
    assert 90 - down / shown.shape[0] * 180 == pytest.approx(40, abs=1)


def test_a_cell_on_the_date_line_is_half_on_either_side_of_the_map(tmp_path):
    draw_maps(tmp_path / "map.png", field(lambda lat, lon: lon == 180, degrees=10))
    high = is_color(single_map(tmp_path / "map.png"), HIGH).mean(axis=0) > 0.8
    width = high.size
    assert high[: round(width * 4 / 360)].all()
    assert high[-round(width * 4 / 360) :].all()
    assert not high[round(width * 6 / 360) : -round(width * 6 / 360)].any()


@pytest.mark.parametrize("degrees", [2.5, 5.0, 15.0])
def test_the_map_has_no_gap(tmp_path, degrees):
    draw_maps(tmp_path / "map.png", field(lambda lat, lon: lon >= 180, degrees=degrees))
    assert not is_color(single_map(tmp_path / "map.png"), GRAY).any()


def test_missing_values_are_grey(tmp_path):
    draw_maps(tmp_path / "map.png", field(lambda lat, lon: np.where(lat < -60, np.nan, lat > 0)))
    shown = single_map(tmp_path / "map.png")
    south = shown[round(len(shown) * 0.9) :]
    assert is_color(south, GRAY).mean() > 0.8
    assert not is_color(shown[: len(shown) // 2], GRAY).any()


def test_the_difference_is_prediction_minus_target_with_zero_in_the_middle(tmp_path):
    target = field(lambda lat, lon: 280 + 0 * lat)
    prediction = field(lambda lat, lon: 280 + np.select([lat > 30, lat < -30], [1, -2], 0))
    draw_maps(tmp_path / "map.png", prediction, target)
    image = pixels(tmp_path / "map.png")
    right = image[:, -image.shape[1] // 3 :]
    middle = right[:, round(right.shape[1] * 0.05) : round(right.shape[1] * 0.1)]  # left of the color bar
    rows = [np.nonzero(is_color(middle, difference_color(value, limit=2), 3))[0] for value in (1, 0, -2)]
    assert all(found.size > 100 for found in rows)
    assert rows[0].max() < np.median(rows[1]) < rows[2].min()


def difference_color(value, limit):
    return [round(255 * part) for part in colormaps["RdBu_r"](0.5 + value / limit / 2)[:3]]


def test_latitudes_in_opposite_orders_are_compared_where_they_agree(tmp_path):
    there = field()
    draw_maps(tmp_path / "map.png", there, there.isel(latitude=slice(None, None, -1)))
    assert "Prediction − target: min 0.00, max 0.00." in described(tmp_path / "map.png")


def described(path):
    with Image.open(path) as image:
        return image.text["Description"]


def test_the_file_says_what_it_shows(tmp_path):
    # A decameter of height is 98.0665 m² s⁻² of geopotential.
    prediction = field(lambda lat, lon: 98.0665 * (500 + lat), name="geopotential", level=500)
    draw_maps(tmp_path / "map.png", prediction, prediction - 2 * 98.0665)
    with Image.open(tmp_path / "map.png") as image:
        assert set(image.text) == {"Title", "Description", "Software"}
        assert image.text["Title"] == "Geopotential height at 500 hPa (dam)"
        assert image.text["Software"] == "graphcast-batch"
        assert image.text["Description"] == (
            "Maps of Geopotential height at 500 hPa (dam), Initial time 2020-01-01 06:00 UTC, "
            "Valid time 2020-01-02 06:00 UTC, Lead time +24 h. Target: min 408, max 588 dam, "
            "Prediction: min 410, max 590 dam, Prediction − target: min 2.00, max 2.00 dam."
        )


@pytest.mark.parametrize(
    ("name", "stored", "told", "difference"),
    [
        ("2m_temperature", 263.15, "−10.00 °C", "10.00 K"),
        ("mean_sea_level_pressure", 101300, "1013.00 hPa", "1013.00 hPa"),
        ("total_precipitation_6hr", 0.0125, "12.500 mm", "12.500 mm"),
        ("specific_humidity", 0.004, "4.000 g/kg", "4.000 g/kg"),
    ],
)
def test_values_are_told_in_units_for_people(name, stored, told, difference):
    # A degree is a degree: differences of °C are told in K, whatever is added to Kelvin.
    shown = scene(field(lambda lat, lon: stored + 0 * lat, name=name), field(lambda lat, lon: 0 * lat, name=name))
    (row,) = shown.rows
    value, unit = told.replace("−", "-").split()
    assert row.prediction.field == pytest.approx(float(value), abs=1e-3)
    assert shown.field.unit.text == unit
    assert shown.field.unit.of_differences.text == difference.split()[1]
    assert row.layers(3)[2].field == pytest.approx(stored * shown.field.unit.factor, rel=1e-3)


def test_a_variable_that_is_not_in_the_table_is_called_as_its_data_say(tmp_path):
    prediction = field().assign_attrs(units="kg m**-2", long_name="total column ozone")
    draw_maps(tmp_path / "map.png", prediction.drop_vars(["time", "prediction_timedelta"]))
    assert described(tmp_path / "map.png").startswith("Map of total column ozone (kg m⁻²). Prediction: ")


def test_what_is_drawn_over_a_field_is_told(tmp_path):
    prediction = Shown(field(), field(name="mean_sea_level_pressure"), Wind(field(), field(), "barbs"))
    draw_maps(tmp_path / "map.png", prediction, projection=Polar(1))
    assert described(tmp_path / "map.png").startswith(
        "Map of Tracer, Contours: Mean sea level pressure (hPa), Wind barbs: half 5 kn, full 10 kn, pennant 50 kn, "
        "in stereographic projection of the north, Initial time"
    )


@pytest.mark.parametrize("projection", [PlateCarree(), Robinson(), Orthographic(20, 170), Polar(1), Polar(-1)], ids=str)
def test_every_projection_shows_the_spot_where_it_is(tmp_path, projection):
    latitude = -60 if projection == Polar(-1) else 60
    draw_maps(tmp_path / "map.png", field(lambda lat, lon: (lat == latitude) & (lon == 170)), projection=projection)
    image = pixels(tmp_path / "map.png")
    maps = image[: round(len(image) * 0.85)]  # without the color bar
    rows, columns = np.nonzero(is_color(maps, HIGH))
    low_rows, low_columns = np.nonzero(is_color(maps, LOW))
    left, right, _, top = projection.extent
    pixel = (right - left) / np.ptp(low_columns)
    across, up = left + (columns.mean() - low_columns.min()) * pixel, top - (rows.mean() - low_rows.min()) * pixel
    x, y = projection.forward(np.array([170.0]), np.array([float(latitude)]))
    assert (across / right, up / top) == pytest.approx((x[0] / right, y[0] / top), abs=0.02)


def test_contours_do_not_stop_at_the_date_line():
    grid = regular_grid(10.0)
    axes = Figure().subplots()
    ground = MapBackground(PlateCarree(), grid, 90, np.array([30.5]), None)
    values = np.repeat(grid.latitude[:, None], grid.longitude.size, axis=1)
    panel = Panel(axes, ground, field_scale([values], ""), "viridis", over=True)
    panel.show(Layer(values, values), "")
    (contours,) = (found for found in axes.collections if isinstance(found, ContourSet))
    (line,) = contours.get_paths()
    assert line.vertices[:, 1] == pytest.approx(30.5)
    assert line.vertices[:, 0].min() <= -180
    assert line.vertices[:, 0].max() >= 180


@pytest.mark.parametrize(
    ("projection", "x", "y", "expected"),
    [(PlateCarree(), 20.0, 0.0, (10, 0)), (Polar(1), 0.0, 0.5, (-10, 0)), (Polar(-1), 0.5, 0.0, (0, -10))],
)
def test_wind_from_the_west_goes_east_on_every_map(projection, x, y, expected):
    grid = regular_grid(10.0)
    ground = MapBackground(projection, grid, 90, np.empty(0), "barbs")
    westerly = np.full(grid.shape, 10, np.float32), np.zeros(grid.shape, np.float32)
    along = ground.wind_at(np.array([x]), np.array([y]), westerly)
    assert [component[0] for component in along] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("value", [0.0, 30.0, np.nan])
@pytest.mark.parametrize("look", ["barbs", "streamlines"])
def test_calm_constant_and_missing_fields_can_be_drawn_over_others(tmp_path, value, look):
    # Of two lead times only the second has values for contours to go between.
    flat = field(lambda lat, lon: value + 0 * lat, prediction_timedelta=np.timedelta64(6, "h").astype("m8[ns]"))
    fields = xr.concat([flat, field()], dim="prediction_timedelta")
    calm = xr.concat([flat, flat * 0], dim="prediction_timedelta").assign_coords(fields.coords)
    draw_strip(tmp_path / "map.png", Shown(fields, fields, Wind(calm, calm, look)), projection=Orthographic(30, 20))
    assert described(tmp_path / "map.png").count("Prediction: ") == 2


def test_what_is_drawn_over_a_field_must_be_on_its_points(tmp_path):
    with pytest.raises(FigureError, match=r"other, drawn over tracer, must be on the points of the prediction"):
        draw_maps(tmp_path / "map.png", Shown(field(), field(degrees=10, name="other")))


@pytest.mark.parametrize("value", [273.15, 0.0, np.nan])
def test_constant_and_empty_fields_are_drawn(tmp_path, value):
    constant = field(lambda lat, lon: value + 0 * lat)
    draw_maps(tmp_path / "map.png", constant, constant)
    assert ("no data" in described(tmp_path / "map.png")) == np.isnan(value)


def test_equal_fields_give_equal_bytes_whatever_the_settings_or_threads(tmp_path):
    prediction = field()
    before = dict(mpl.rcParams)
    paths = [tmp_path / f"{n}.png" for n in range(5)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda path: draw_maps(path, prediction, prediction * 2), paths[:4]))
    assert dict(mpl.rcParams) == before
    with mpl.rc_context({"font.size": 30, "savefig.dpi": 20, "image.origin": "upper"}):
        draw_maps(paths[4], prediction, prediction * 2)
    assert len({path.read_bytes() for path in paths}) == 1


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "deep" / "map.png"
    path.parent.mkdir()
    path.write_bytes(b"old")
    draw_maps(path, field())
    assert path.read_bytes().startswith(b"\x89PNG")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OSError, match=r"folder\.png"):
        draw_maps(tmp_path / "folder.png", field())
    assert sorted(found.name for found in tmp_path.rglob("*")) == ["deep", "folder.png", "map.png"]


def test_other_dimensions_are_refused_by_name(tmp_path):
    with pytest.raises(FigureError, match=r"dimensions \(latitude, longitude\).*but has \(prediction_timedelta, lat"):
        draw_maps(tmp_path / "map.png", forecast(2))


def test_a_target_on_other_points_is_refused(tmp_path):
    with pytest.raises(FigureError, match=r"latitude is -90\.\.90 in 37 values, but its latitude is -90\.\.90 in 19"):
        draw_maps(tmp_path / "map.png", field(), field(degrees=10))


def test_a_part_of_the_globe_is_refused(tmp_path):
    with pytest.raises(GridError, match="once around the globe"):
        draw_maps(tmp_path / "map.png", field().isel(longitude=slice(0, 10)))


def test_a_strip_has_a_row_for_each_lead_time_and_marks_those_without_truth(tmp_path):
    prediction = forecast(3, degrees=15)
    draw_strip(tmp_path / "strip.png", prediction, prediction.isel(prediction_timedelta=[1]))
    text = described(tmp_path / "strip.png")
    assert text.count("no data") == 4
    assert "+12 h: Target: min −90, max 90, Prediction" in text


def test_a_strip_of_many_lead_times_keeps_the_first_and_the_last(tmp_path):
    draw_strip(tmp_path / "strip.png", forecast(40, degrees=15))
    text = described(tmp_path / "strip.png")
    assert text.count("Prediction: ") == MOST_ROWS
    assert "+6 h: " in text
    assert "+240 h: " in text


def test_a_strip_of_one_lead_time_is_the_map_of_it(tmp_path):
    prediction = forecast(1, degrees=15)
    draw_strip(tmp_path / "strip.png", prediction)
    draw_maps(tmp_path / "map.png", prediction.isel(prediction_timedelta=0))
    assert (tmp_path / "strip.png").read_bytes() == (tmp_path / "map.png").read_bytes()


def test_a_strip_without_lead_times_is_refused(tmp_path):
    with pytest.raises(FigureError, match="at least one lead time"):
        draw_strip(tmp_path / "strip.png", forecast(1).isel(prediction_timedelta=slice(0, 0)))


def test_drawing_needs_no_global_figure_manager():
    check = "import graphcast_batch.figures.case_figures, sys; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
