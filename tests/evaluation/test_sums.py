import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from graphcast_batch.evaluation.weighted_sums import WeightedSums

# Whole numbers, so that order cannot matter by rounding.
complete = arrays(np.float64, (2, 3), elements=st.integers(-(2**20), 2**20).map(float))
weights = arrays(np.float64, (2, 3), elements=st.integers(0, 2**20).map(float))
sums = st.builds(WeightedSums, complete, weights)


def same(one, other):
    return np.array_equal(one.totals, other.totals) and np.array_equal(one.weights, other.weights)


@given(sums, sums, sums)
def test_parts_add_up_the_same_however_they_are_grouped_and_ordered(one, two, three):
    assert same((one + two) + three, one + (two + three))
    assert same(one + two, two + one)


@given(sums)
def test_nothing_added_changes_nothing(one):
    assert same(one + WeightedSums.none((2, 3)), one)


@given(arrays(np.float64, 7, elements=st.floats(-1e3, 1e3)), st.integers(0, 7))
def test_the_mean_of_two_parts_is_that_of_the_whole(values, cut):
    weight = np.arange(1.0, 8)

    def part(where):
        return WeightedSums((values * weight)[where].sum(keepdims=True), weight[where].sum(keepdims=True))

    found = (part(slice(cut)) + part(slice(cut, None))).means

    np.testing.assert_allclose(found, np.average(values, weights=weight), rtol=1e-9, atol=1e-9)


def test_the_mean_of_nothing_is_missing():
    assert np.isnan(WeightedSums.none((2,)).means).all()
