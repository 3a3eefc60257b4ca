"""Each GRIB message of precipitation says over which window it is summed up, whichever file it is in."""

import logging

import numpy as np
import pytest

from graphcast_batch.errors import InputError
from graphcast_batch.inputs.sources.archive import Archive
from graphcast_batch.inputs.sources.volumes import Reading

pytest.importorskip("eccodes", reason="the extra grib is not installed")

from .test_grib import message

SUMMED = "total_precipitation_6hr"
RAIN = np.random.default_rng(0).integers(1, 100, (48, 5, 8)).astype(float)
"""In each hour of the day, in units of 1/4096 that GRIB keeps."""


def tp(init, steps, values=None, factor=1.0, **keys):
    first, last = (init + int(step) for step in steps.split("-")) if "-" in steps else (init, init)
    total = RAIN[first:last].sum(axis=0) if values is None else values
    return message("tp", init, values=total * factor / 4096, stepType="accum", stepRange=steps, bitsPerValue=24, **keys)


def archive(folder, *files, **reading):
    """Of a list of messages for each file."""
    for number, messages in enumerate(files):
        (folder / f"{number}.grib").write_bytes(b"".join(messages))
    paths = [str(folder / f"{number}.grib") for number in range(len(files))]
    return Archive(paths, Reading(**reading), needed=[SUMMED])


def held(opened):
    """Hours of the day at which there is precipitation, once all of it is right."""
    times = opened.times_of([SUMMED])
    hours = ((times - np.datetime64("2020-01-01", "ns")) // np.timedelta64(1, "h")).tolist()
    for hour, found in zip(hours, opened.fields([SUMMED], times, ())[SUMMED].values[:, ::-1], strict=True):
        np.testing.assert_allclose(found, RAIN[hour - 6 : hour].sum(axis=0) / 4096, rtol=1e-4)
    return hours


@pytest.mark.parametrize(
    ("sums", "hours"),
    [
        ([(0, "0"), (0, "0-6"), (0, "0-12"), (0, "0-18")], [6, 12, 18]),
        ([(0, "0"), (6, "0"), (12, "0")], []),  # nothing has been summed up
        ([(0, "0-12"), (6, "0-12"), (12, "0-12")], []),  # no two of them begin together
        ([(0, "0-12"), (6, "0-6")], [12]),
        ([(0, "0-6"), (0, "0-12"), (0, "6-12")], [6, 12]),  # as NCEP's files: in 6 h, and since the start
        ([(0, "0-6"), (0, "0-6"), (6, "0-6")], [6, 12]),
        ([(0, "0-3"), (0, "3-6"), (0, "6-9")], [6, 9]),
        ([(0, f"{hour}-{hour + 1}") for hour in range(9)], [6, 7, 8, 9]),
    ],
)
@pytest.mark.parametrize("cut", [False, True])
def test_it_does_not_matter_how_messages_are_cut_into_files(tmp_path, sums, hours, cut):
    messages = [tp(*one) for one in sums]
    other = message("msl", 6)
    assert held(archive(tmp_path, *([[one] for one in messages] if cut else [messages]), [other])) == hours


def test_two_fields_of_one_window_must_be_the_same(tmp_path):
    opened = archive(tmp_path, [tp(0, "0-6")], [tp(0, "0-6", values=RAIN[:6].sum(axis=0) * 2)])
    with pytest.raises(InputError, match=r"over one window must be one field, .* in .*0\.grib and in .*1\.grib"):
        held(opened)


def test_the_configuration_is_heeded_before_the_messages(tmp_path):
    hourly = [tp(0, f"0-{hour + 1}", values=RAIN[hour]) for hour in range(12)]
    with pytest.raises(InputError, match=r"must not fall with time, .* set inputs\.precipitation: hourly"):
        held(archive(tmp_path, hourly))
    assert held(archive(tmp_path, hourly, precipitation="hourly")) == [6, 7, 8, 9, 10, 11, 12]


def test_messages_that_are_no_sums_must_be_said(tmp_path):
    fields = [message("tp", hour + 1, values=RAIN[hour] / 4096, bitsPerValue=24, edition=1) for hour in range(12)]
    with pytest.raises(InputError, match=r"the data do not state one; set inputs\.precipitation: hourly, or since_st"):
        archive(tmp_path, fields)
    assert held(archive(tmp_path, fields, precipitation="hourly")) == [6, 7, 8, 9, 10, 11, 12]


def test_hourly_sums_in_millimeters_are_brought_to_meters(tmp_path):
    """NCEP's parameter is kg m-2."""
    hourly = [tp(0, f"{hour}-{hour + 1}", factor=1000, centre="kwbc", paramId=228228) for hour in range(6)]
    assert held(archive(tmp_path, hourly)) == [6]


def test_radiation_since_a_start_is_not_that_of_an_hour(tmp_path, caplog):
    def messages(*steps):
        return [message("msl", 6)] + [message("tp", 0, paramId=212, stepType="accum", stepRange=one) for one in steps]

    name = "toa_incident_solar_radiation"
    assert name in archive(tmp_path, messages("0-1"), messages("1-2")[1:]).dims
    for files in (messages("0-1", "0-6"),), (messages("0-1"), messages("0-6")[1:]):
        with caplog.at_level(logging.WARNING):
            assert name not in archive(tmp_path, *files).dims
        assert "must cover periods of 1 h, but covers 1, 6 h" in caplog.text
        caplog.clear()
