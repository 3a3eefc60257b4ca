import base64
from io import BytesIO

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from graphcast_batch.report.field_pictures import browsable, quantized, stacked
from graphcast_batch.report.summary import open_store
from graphcast_batch.report.views import views_of
from tests.report.made import better, hole, run, weather

VALUES = st.floats(-1e6, 1e6, width=32) | st.just(np.nan)


def unpacked(stack):
    """What a page makes of a stack, by the standard that PNG is."""
    grays = np.asarray(Image.open(BytesIO(base64.b64decode(stack["png"]))), np.float64)
    low, high = (np.array(stack[name])[:, np.newaxis, np.newaxis] for name in ("low", "high"))
    grays = grays.reshape(low.size, -1, grays.shape[-1])
    return np.where(grays == 0, np.nan, low + (grays - 1) * (high - low) / 254)


@given(arrays(np.float32, (2, 3, 4), elements=VALUES))
def test_a_value_comes_back_within_half_a_gray_and_what_is_missing_stays_missing(frames):
    grays, low, high = quantized(frames)
    back = np.array(low)[:, None, None] + (grays - 1.0) * (np.array(high) - np.array(low))[:, None, None] / 254
    step = (np.array(high) - np.array(low))[:, None, None] / 254

    np.testing.assert_array_equal(grays == 0, np.isnan(frames))
    there = ~np.isnan(frames)
    assert (
        np.abs(back - frames)[there] <= np.broadcast_to(0.5 * step + 1e-9 * np.abs(back), frames.shape)[there]
    ).all()


def test_a_picture_holds_one_lead_time_below_the_other():
    frames = np.arange(24, dtype=np.float32).reshape(2, 3, 4)

    np.testing.assert_allclose(unpacked(stacked(frames)), frames, atol=0.5 * 11 / 254)


def test_forecast_and_difference_are_in_the_units_that_people_know(tmp_path):
    store = run(tmp_path / "s", better, archive=weather(tmp_path / "truth.zarr"))
    opened = open_store(store.path)

    content = browsable(opened, views_of(opened), 10**7).content

    field = next(each for each in content["fields"] if (each["variable"], each["level"]) == ("temperature", 500))
    forecast, difference = field["stacks"][1]
    stored = store.forecasts()["temperature"].sel(level=500).isel(time=1).values
    np.testing.assert_allclose(unpacked(forecast), stored - 273.15, atol=0.5 * 6 / 254 + 1e-3)
    np.testing.assert_allclose(unpacked(difference), 2.0, atol=1e-3)
    assert (field["units"], field["differenceUnits"]) == ("°C", "K")
    assert content["grid"] == {
        "latitude": {"first": -90.0, "step": 10.0, "count": 19},
        "longitude": {"first": 0.0, "step": 10.0, "count": 36},
        "isRound": True,
    }


def test_where_truth_ends_there_is_no_difference(tmp_path):
    store = run(tmp_path / "s", archive=weather(tmp_path / "truth.zarr", 4))
    opened = open_store(store.path)

    field = browsable(opened, views_of(opened), 10**7).content["fields"][0]

    apart = [off and np.isfinite(unpacked(off)).all(axis=(1, 2)).tolist() for _, off in field["stacks"]]
    assert apart == [[True, True, True, False], [True, False, False, False], None, None]


def test_forecasts_are_shown_without_a_truth_that_cannot_be_read_and_it_is_said_why(tmp_path):
    opened = open_store(run(tmp_path / "s", hole, count=1).path)

    found = browsable(opened, views_of(opened), 10**7)

    assert "nowhere.zarr" in found.notes[0]
    forecast, difference = found.content["fields"][0]["stacks"][0]
    assert difference is None
    assert np.isnan(unpacked(forecast)).mean() == 0.25


def test_pictures_take_no_more_than_their_room_and_what_is_left_out_is_told(tmp_path):
    def noise(name, hours, values):
        return np.random.default_rng(hours).normal(size=values.shape)

    opened = open_store(run(tmp_path / "s", noise).path)

    for room in (30_000, 15_000, 3_000):
        found = browsable(opened, views_of(opened), room)
        spent = sum(len(stack[0]["png"]) for field in found.content["fields"] for stack in field["stacks"])
        assert spent <= room
        assert found.left_out


def test_where_there_is_no_room_for_one_field_there_are_no_maps(tmp_path):
    opened = open_store(run(tmp_path / "s").path)

    found = browsable(opened, views_of(opened), 100)

    assert found.content == {}
    assert found.notes == ("There is no space for maps in the page.",)
