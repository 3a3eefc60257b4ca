import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphcast_batch.plan import Case
from graphcast_batch.report.choice import affordable, choose, evenly, stride_of
from graphcast_batch.report.views import View
from graphcast_batch.stores.layout import OutputGrid

COUNTS = st.fixed_dictionaries(dict.fromkeys(("fields", "views", "leads"), st.integers(1, 400)))


def kept(degrees, variables=(("2m_temperature", False), ("geopotential", True)), levels=(50, 500), leads=4):
    latitude = np.linspace(-90, 90, round(180 / degrees) + 1, dtype=np.float32)
    longitude = np.arange(round(360 / degrees), dtype=np.float32) * np.float32(degrees)
    return OutputGrid(variables, levels, tuple(range(6, 6 * leads + 1, 6)), latitude, longitude)


def cases(count, steps=4):
    return [Case(np.datetime64("2020-01-01T00", "h") + np.timedelta64(12 * n, "h"), steps, 6) for n in range(count)]


def forecasts(count, steps=4):
    return [View(case) for case in cases(count, steps)]


def ensembles(count, members, *statistics):
    return [
        view
        for case in cases(count)
        for view in [
            *(View(case, statistic) for statistic in statistics),
            *(View(replace(case, member=number)) for number in range(members)),
        ]
    ]


@given(COUNTS, st.integers(1, 10_000))
def test_what_is_taken_is_there_and_affordable(there, frames):
    take = affordable(there, frames)

    assert all(1 <= take[name] <= there[name] for name in there)
    assert math.prod(take.values()) <= frames


@given(COUNTS)
def test_all_is_taken_where_there_is_room(there):
    assert affordable(there, math.prod(there.values())) == there


@given(st.lists(st.integers(), min_size=2, unique=True), st.integers(2, 50))
def test_first_and_last_are_among_what_is_taken_evenly(items, count):
    taken = evenly(items, count)

    assert len(taken) == min(count, len(items))
    assert (taken[0], taken[-1]) == (items[0], items[-1])
    assert [item for item in items if item in taken] == list(taken)


@pytest.mark.parametrize(("degrees", "stride"), [(0.25, 6), (0.5, 3), (1.0, 2), (1.5, 1), (6.0, 1)])
def test_fine_grids_are_thinned_to_one_and_a_half_degrees_at_most(degrees, stride):
    assert stride_of(kept(degrees)) == stride


def test_headline_variables_come_before_others():
    variables = (("2m_temperature", False), ("geopotential", True), ("vertical_velocity", True))
    fields = choose(forecasts(1), kept(6.0, variables), 10_000).fields

    assert fields[:2] == (("2m_temperature", None), ("geopotential", 500))
    assert len(fields) == 5


def test_a_year_at_a_quarter_of_a_degree_is_told_by_a_few_forecasts():
    choice = choose(forecasts(730, steps=40), kept(0.25, levels=tuple(range(50, 1001, 50)), leads=40), 400)

    assert (len(choice.views), len(choice.lead_hours), len(choice.fields)) == (4, 10, 10)
    assert choice.views[0].key == "2020-01-01T00"
    assert choice.views[-1].key == "2020-12-30T12"
    assert (choice.lead_hours[0], choice.lead_hours[-1]) == (6, 240)
    assert choice.texts == [
        "4 of 730 forecasts",
        "10 of 40 lead times",
        "10 of 21 fields (variables and levels)",
        "one point in 6 along latitude and longitude",
    ]


def test_mean_and_spread_of_an_initial_time_come_with_some_of_its_members():
    views = ensembles(8, 20, "mean", "standard_deviation", 0.1, 0.9)
    grid = kept(6.0)  # three fields at four lead times

    def taken(count):
        return choose(views, grid, 12 * count)

    assert [view.key for view in taken(4).views] == [
        "2020-01-01T00_mean",
        "2020-01-01T00_standard_deviation",
        "2020-01-01T00_quantile_0.1",
        "2020-01-01T00-m000",
    ]
    assert taken(4).texts == ["4 of 192 forecasts and statistics"]
    assert [view.key for view in taken(13).views if view.statistic == "mean"] == [
        "2020-01-01T00_mean",
        "2020-01-03T00_mean",
        "2020-01-04T12_mean",
    ]
    assert taken(192).views == tuple(views)


@given(
    st.integers(1, 12),
    st.integers(1, 30),
    st.sets(st.sampled_from(["mean", "standard_deviation", 0.5])),
    st.integers(1, 400),
)
def test_views_are_taken_in_their_order_and_no_more_than_asked_for(times, members, statistics, count):
    views = ensembles(times, members, *sorted(statistics, key=str))

    shown = choose(views, kept(6.0, variables=(("2m_temperature", False),), leads=1), count).views

    assert 1 <= len(shown) <= count
    assert list(shown) == [view for view in views if view in shown]
    assert shown[0].case.init_time == views[0].case.init_time
