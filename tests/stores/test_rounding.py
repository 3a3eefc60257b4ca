import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numcodecs import BitRound

from graphcast_batch.stores.zarr.rounding import keep_bits

SMALLEST_NORMAL = np.finfo(np.float32).tiny
PATTERNS = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50)
BITS = st.integers(1, 22)


def of_patterns(patterns):
    return np.array(patterns, np.uint32).view(np.float32)


@given(PATTERNS, BITS)
def test_every_normal_value_is_within_half_a_kept_bit_and_the_others_are_as_they_were(patterns, bits):
    values = of_patterns(patterns)
    rounded = keep_bits(values, bits)

    normal = np.isfinite(values) & (np.abs(values) >= SMALLEST_NORMAL)
    exact, found = values[normal].astype(np.float64), rounded[normal].astype(np.float64)
    assert np.all(np.abs(found - exact) <= 2.0 ** -(bits + 1) * np.abs(exact))
    np.testing.assert_array_equal(rounded[~normal].view(np.uint32), values[~normal].view(np.uint32))


@given(PATTERNS, BITS)
def test_values_go_to_the_nearest_multiple_of_the_last_kept_bit_and_ties_to_an_even_one(patterns, bits):
    values = of_patterns(patterns)
    # In this range float64 holds all that is computed here exactly, and nothing rounds to infinity.
    values = values[np.isfinite(values) & (np.abs(values) >= SMALLEST_NORMAL) & (np.abs(values) < 2.0**127)]
    last = 2.0 ** (np.floor(np.log2(np.abs(values.astype(np.float64)))) - bits)

    np.testing.assert_array_equal(keep_bits(values, bits), np.rint(values / last) * last)


@pytest.mark.parametrize("bits", [1, 7, 10, 22])
def test_weather_is_rounded_as_numcodecs_does(bits):
    values = np.random.default_rng(bits).normal(250, 30, (3, 200, 211)).astype(np.float32)
    codec = BitRound(keepbits=bits)

    np.testing.assert_array_equal(
        keep_bits(values, bits), codec.decode(codec.encode(values.copy()), None).reshape(values.shape)
    )


def test_what_has_no_such_precision_is_left_alone():
    largest, least = np.finfo(np.float32).max, np.finfo(np.float32).smallest_subnormal
    values = np.array([np.inf, -np.inf, largest, -largest, least, -3 * least, 0.0, -0.0, np.nan], np.float32)
    quiet_and_signalling = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0xFF800001], np.uint32).view(np.float32)
    everything = np.concatenate([values, quiet_and_signalling])

    np.testing.assert_array_equal(keep_bits(everything, 10).view(np.uint32), everything.view(np.uint32))


def test_by_hand():
    # 1 + 2**-2 lies between 1.0 and 1.5, of which 1.0 has an even last bit; 1.75 between 1.5 and 2.0.
    values = np.array([1.25, 1.26, 1.75, -1.25, -1.3], np.float32)
    np.testing.assert_array_equal(keep_bits(values, 1), np.array([1.0, 1.5, 2.0, -1.0, -1.5], np.float32))
    assert values[0] == 1.25
