import numpy as np
import pytest

from graphcast_batch.figures.scales import Scale, contour_levels, difference_scale, field_scale, units_text


def array(*values):
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("units", "text"),
    [("m**2 s**-2", "m² s⁻²"), ("kg kg**-1", "kg kg⁻¹"), ("K", "K"), ("1", ""), ("", ""), ("W m^-2", "W m⁻²")],
)
def test_powers_of_units_are_raised(units, text):
    assert units_text(units) == text


def test_limits_are_the_2nd_and_98th_percentile_over_all_fields():
    scale = field_scale([np.arange(51, dtype=np.float32), np.arange(51, 101, dtype=np.float32)], "K")
    assert (scale.low, scale.high) == (2, 98)
    assert scale.extend == "both"


def test_what_is_not_finite_does_not_count():
    scale = field_scale([array(np.nan, 1, np.inf), array(3, -np.inf)], "K")
    assert scale.low == pytest.approx(1.04)
    assert scale.high == pytest.approx(2.96)


@pytest.mark.parametrize("value", [0.0, 273.15, -5.0, 1e-9])
def test_a_constant_field_lies_in_the_middle_of_its_limits(value):
    scale = field_scale([np.full(9, value, np.float32)], "K")
    assert scale.low < value < scale.high
    assert (scale.low + scale.high) / 2 == pytest.approx(value)
    assert scale.extend == "neither"
    assert len(scale.ticks()[0]) > 1


def test_a_field_that_is_zero_nearly_everywhere_keeps_its_extremes():
    field = np.zeros(1000, np.float32)
    field[0] = 7
    scale = field_scale([field], "m")
    assert (scale.low, scale.high, scale.extend) == (0, 7, "neither")


def test_differences_reach_as_far_below_zero_as_above():
    scale = difference_scale([-np.arange(101, dtype=np.float32)], "K")
    assert (scale.low, scale.high, scale.extend) == (-98, 98, "min")


def test_differences_of_zero_nearly_everywhere_reach_to_the_largest():
    field = np.zeros(1000, np.float32)
    field[0] = -7
    assert difference_scale([field], "m").high == 7
    assert difference_scale([np.zeros(9, np.float32)], "m").high == 1


@pytest.mark.parametrize("scale", [field_scale([array(np.nan)], "K"), difference_scale([], "K")])
def test_a_field_without_values_has_no_ticks(scale):
    assert scale.ticks() == ([], [])


@pytest.mark.parametrize(
    ("low", "high", "units", "label", "ticks"),
    [
        (226, 304, "K", "K", ["230", "240", "250", "260", "270", "280", "290", "300"]),
        (0.0001, 0.0121, "kg kg**-1", "10⁻³ kg kg⁻¹", ["2", "4", "6", "8", "10", "12"]),
        (-0.2, 0.2, "1", "", ["−0.20", "−0.15", "−0.10", "−0.05", "0.00", "0.05", "0.10", "0.15", "0.20"]),
        (46000, 58000, "m**2 s**-2", "m² s⁻²", ["46000", "48000", "50000", "52000", "54000", "56000", "58000"]),
        (0, 8e6, "J m**-2", "10⁶ J m⁻²", ["0", "1", "2", "3", "4", "5", "6", "7", "8"]),
    ],
)
def test_ticks_are_round_numbers_in_handy_powers_of_ten(low, high, units, label, ticks):
    scale = Scale(low, high, units)
    positions, texts = scale.ticks()
    assert (scale.label, texts) == (label, ticks)
    assert low <= min(positions)
    assert max(positions) <= high * (1 + 1e-9)
    assert [float(text.replace("−", "-")) * 10.0**scale.exponent for text in texts] == pytest.approx(positions)


def test_numbers_are_written_to_a_hundredth_of_the_span():
    assert Scale(226, 304, "K").number(307.849) == "307.8"
    assert Scale(0, 0.012, "kg kg**-1").number(-0.00044) == "−0.4"
    assert Scale(-1, 1, "K").number(-0.001) == "0.00"


@pytest.mark.parametrize(
    ("values", "interval", "levels"),
    [
        ((501, 530), 6, [504, 510, 516, 522, 528]),
        ((500, 600), 6, [504, 516, 528, 540, 552, 564, 576, 588, 600]),
        ((-7, 7), 4, [-4, 0, 4]),
        ((0.05, 1), None, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
        ((3, 3, np.nan), 4, []),
        ((), 4, []),
    ],
)
def test_contours_are_at_multiples_of_their_interval_and_not_too_many(values, interval, levels):
    assert contour_levels([array(*values)], interval) == pytest.approx(levels)


def test_limits_of_very_many_values_come_from_a_part_of_them():
    values = np.random.default_rng(0).uniform(0, 1, 5 * 10**6).astype(np.float32)
    scale = field_scale([values], "K")
    assert (scale.low, scale.high) == pytest.approx((0.02, 0.98), abs=1e-3)
    assert scale.extend == "both"
