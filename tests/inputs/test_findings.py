"""Findings read as sentences, and notices tell what a checkpoint's description says about the inputs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphcast_batch.inputs.case_inputs import findings
from graphcast_batch.inputs.findings import Finding, input_warnings, listed, near_pair
from graphcast_batch.inputs.provenance import Provenance
from graphcast_batch.plan import Case

GRAPHCAST = (
    "GraphCast model at 0.25deg resolution, with 37 pressure levels. This model is trained on ERA5 data from 1979 to "
    "2017, and can be causally evaluated on 2018 and later years. This model takes as inputs "
    "`total_precipitation_6hr`. This was described in the paper `GraphCast: Learning skillful medium-range global "
    "weather forecasting`(https://arxiv.org/abs/2212.12794)."
)
OPERATIONAL = (
    "GraphCast model at 0.25deg resolution, with 13 pressure levels. This model is trained on ERA5 data from 1979 to "
    "2017, and fine-tuned on HRES-fc0 data from 2016 to 2021\nand should be causally evaluated on 2022 and later "
    "years. This model can make predictions in an operational setting (i.e., initialised from HRES-fc0)."
)
ERA5, HRES, UNKNOWN = Provenance("ERA5", "class ea"), Provenance("HRES", "class od"), Provenance()
NEW = np.asarray(["2023-01-01T00"], "datetime64[h]")


def test_a_finding_reads_as_one_sentence():
    finding = Finding(
        "temperature", "be finite", "3 of 7 values are not", "fill them", 500, np.datetime64("2020-01-01")
    )
    assert str(finding) == "temperature must be finite, but 3 of 7 values are not; fill them"


class Poor:
    """A source of one level and one time."""

    levels = (850,)
    times = np.asarray(["2020-01-01T06"], "datetime64[ns]")
    dims = {"temperature": ("time", "level"), "2m_temperature": ("time",)}  # noqa: RUF012 - never changed

    def times_of(self, names):
        return self.times


def test_findings_about_a_source_tell_variable_level_and_time_apart(task):
    case = Case(np.datetime64("2020-01-01T06", "h"), 1, 6)
    variable, level, time = findings(Poor(), case, task)
    assert (variable.variable, variable.level, variable.time) == ("land_sea_mask", None, None)
    assert (level.variable, level.level, level.time) == ("temperature", 300, None)
    assert (time.variable, time.level, time.time) == ("time", None, np.datetime64("2020-01-01T00"))
    assert "it lacks the variables land_sea_mask and has 2m_temperature, temperature" in str(variable)
    assert "must be on the levels [300, 850] hPa, but [300] are missing from [850]" in str(level)
    assert "input times 2020-01-01T00:00 are missing from its 1 times" in str(time)


@pytest.mark.parametrize(("description", "data"), [(GRAPHCAST, ERA5), (OPERATIONAL, HRES)])
def test_later_inputs_of_the_kind_that_weights_were_last_trained_on_need_no_notice(description, data):
    assert input_warnings(description, data, NEW) == []
    assert input_warnings(description, UNKNOWN, NEW) == []
    assert input_warnings(description, Provenance("", "centre ecmf"), NEW) == []


@pytest.mark.parametrize(
    ("description", "last", "data", "told"),
    [
        (GRAPHCAST, "trained on ERA5", HRES, "HRES (class od)"),
        (GRAPHCAST, "trained on ERA5", Provenance("GFS", "source GFS"), "GFS (source GFS)"),
        (OPERATIONAL, "fine-tuned on HRES", ERA5, "ERA5 (class ea)"),
        (OPERATIONAL, "fine-tuned on HRES", Provenance("GFS", "source GFS"), "GFS (source GFS)"),
    ],
)
def test_weights_and_inputs_of_different_kinds_are_noticed_with_what_says_so(description, last, data, told):
    (notice,) = input_warnings(description, data, NEW)
    assert notice.startswith(f"the weights were last {last}, but the inputs are {told}: forecasts will be worse")


def test_initial_times_of_the_training_are_counted_by_year():
    days = ["1978-12-31T18", "1979-01-01T00", "2003-07-01T06", "2016-02-03T00", "2017-12-31T18", "2018-01-01T00"]
    (notice,) = input_warnings(GRAPHCAST, ERA5, np.asarray(days, "datetime64[h]"))
    assert "4 of 6 initial times, in 1979, 2003, 2016 to 2017, lie in the years" in notice
    assert "trained on (ERA5 1979 to 2017)" in notice
    assert notice.endswith("judge the weights by times after 2017")


def test_years_of_fine_tuning_count_as_years_of_training():
    times = np.asarray(["2000-06-01T00", "2021-12-31T18", "2022-01-01T00"], "datetime64[ns]")
    (notice,) = input_warnings(OPERATIONAL, HRES, times)
    assert "2 of 3 initial times, in 2000, 2021, lie" in notice
    assert "(ERA5 1979 to 2017, HRES 2016 to 2021)" in notice
    assert notice.endswith("after 2021")


@pytest.mark.parametrize(
    "text",
    [
        "trained on ERA5 (1979-2017)",
        "Trained on the ERA5 reanalysis, 1979 – 2017.",
        "pre-trained on ERA5 between 1979 and 2017",
        "trained\non ERA5 data from\n 1979 through\n 2017",
    ],
)
def test_years_are_found_in_other_wordings(text):
    (notice,) = input_warnings(text, ERA5, np.asarray(["2000-01-01"], "datetime64[D]"))
    assert "1 of 1 initial times, in 2000" in notice
    assert "(ERA5 1979 to 2017)" in notice


@pytest.mark.parametrize(
    "text",
    [
        "",
        "random weights, seed 0",
        "weights of 1979 to 2017",
        "can be evaluated on ERA5",
        "fine-tuned on GDPS, having been trained on other analyses",
    ],
)
@pytest.mark.parametrize("data", [ERA5, HRES, UNKNOWN])
def test_descriptions_that_say_nothing_give_no_notice(text, data):
    assert input_warnings(text, data, np.asarray(["2000-01-01T00"], "datetime64[h]")) == []


def test_weights_last_tuned_on_other_analyses_are_not_taken_for_those_of_their_first_training():
    assert input_warnings("trained on ERA5 data and fine-tuned on GDPS analyses", HRES, NEW) == []


@given(st.text())
def test_any_text_can_be_read(text):
    assert input_warnings(text, UNKNOWN, NEW[:0]) == []


def test_no_initial_time_gives_no_notice():
    assert input_warnings(GRAPHCAST, ERA5, NEW[:0]) == []


def test_of_a_few_names_all_are_listed_and_of_many_the_five_that_are_nearest():
    assert listed(["b", "a"], ["temperature"]) == "a, b"
    assert listed([], ["temperature"]) == "none"
    many = [f"{letter}{level}" for letter in "tuvwqz" for level in range(100, 1000, 50)]
    assert listed([*many, "temperatur_850"], ["temperature"]).startswith("109 others, of which temperatur_850, t")
    assert listed(many, ["temperature"]).count(",") == 5


def test_a_name_of_ours_is_no_other_spelling_of_another():
    assert near_pair(["2m_temperature", "temperatur"], ["temperature"]) == ("temperatur", "temperature")
    assert near_pair(["2m_temperature", "x"], ["temperature"]) is None
