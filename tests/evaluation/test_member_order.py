"""Members in order: a network of comparisons that sorts all sequences of 0 and 1 sorts everything (Knuth, 5.3.4 Z)."""

from itertools import product

import numpy as np
import pytest

from graphcast_batch.evaluation.member_order import in_order


@pytest.mark.parametrize("count", range(1, 15))
def test_so_few_members_are_in_order_whatever_their_values(count):
    members = np.array([*product([0, 1], repeat=count)], np.float32).T

    assert np.array_equal(in_order(members), np.sort(members, axis=0))


@pytest.mark.parametrize("count", [16, 31, 50, 100])
def test_many_members_are_in_order_and_stay_what_they_were(count):
    members = np.random.default_rng(count).normal(size=(count, 3, 500)).astype(np.float32)
    before = members.copy()

    assert np.array_equal(in_order(members), np.sort(members, axis=0))
    assert np.array_equal(members, before)


def test_a_point_at_which_a_member_is_nan_is_nan_at_every_rank():
    members = np.zeros((5, 2), np.float32)
    members[3, 1] = np.nan

    assert np.isnan(in_order(members)).tolist() == [[False, True]] * 5
