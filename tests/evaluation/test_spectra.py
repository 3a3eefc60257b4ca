import csv

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy.signal import periodogram

from graphcast_batch.app.score_drawing import draw_scores
from graphcast_batch.cli import main
from graphcast_batch.config.outputs_section import RegionConfig
from graphcast_batch.config.scores_section import ScoresConfig
from graphcast_batch.errors import EvaluationError, StoreMismatchError
from graphcast_batch.evaluation.baselines import Persistence
from graphcast_batch.evaluation.case_scoring import (
    add_piece,
    as_points,
    empty_sums,
    expectation,
    score_case,
    scoring_pieces,
)
from graphcast_batch.evaluation.ensemble import ENSEMBLE
from graphcast_batch.evaluation.pointwise_statistics import Points
from graphcast_batch.evaluation.regions import weigh
from graphcast_batch.evaluation.score_export import write_table
from graphcast_batch.evaluation.score_results import average, read
from graphcast_batch.evaluation.score_store import ScoreStore
from graphcast_batch.evaluation.spectra import (
    Loss,
    Spectra,
    areas_of,
    bands_of,
    losses,
    read_spectra,
    spectra_in,
    spectra_of,
    write_spectra,
)
from graphcast_batch.evaluation.store_scoring import ensemble_of, lay_out, score_stored, scoring_of
from graphcast_batch.grid import regular_grid
from graphcast_batch.integrity.repair import repair
from graphcast_batch.integrity.verify import verify
from graphcast_batch.stores.flaws import FlawKind
from graphcast_batch.stores.store_kinds import open_store
from graphcast_batch.terminal import show_losses
from graphcast_batch.timing import Stopwatch
from tests.evaluation.made import AMPLITUDE, WAVES, cases, fill, stored, truth
from tests.evaluation.test_during import assert_same_scores, evaluated, only_scores, run, scorer_of
from tests.evaluation.test_evaluate import CONFIG
from tests.evaluation.test_stored import score, times, written

U, T, SPEED = "10m_u_component_of_wind", "temperature", "10m_wind_speed"
WANTED = ScoresConfig(spectra=(U, T), regions=("global", "tropics", "land"))
GRID = regular_grid(10.0)


def stronger(name, hours, values):
    return values * 1.5


def weights(*names, boxes=None):
    return weigh(names, boxes or {}, GRID, lambda: np.random.default_rng(0).random(GRID.shape, np.float32))


def fields(seed, count=2):
    return np.random.default_rng(seed).normal(size=(count, GRID.size)).astype(np.float32)


def zonal_power(values):
    """Power of each row of (..., longitude), as if each were a band of its own."""
    rows = values.reshape(-1, values.shape[-1])
    at = Points(rows.reshape(1, -1), np.zeros((1, rows.size)))
    return spectra_of(at, np.eye(len(rows)))[0, 0].reshape(*values.shape[:-1], -1)


@pytest.mark.parametrize("longitudes", [35, 36])
def test_a_wave_has_half_the_square_of_its_amplitude_at_its_wavenumber_alone(longitudes):
    angle = 2 * np.pi * np.arange(longitudes) / longitudes
    for waves in range(1, (longitudes + 1) // 2):
        expected = np.zeros(longitudes // 2 + 1)
        expected[waves] = 3.0**2 / 2
        np.testing.assert_allclose(zonal_power(3.0 * np.cos(waves * angle + 0.7)), expected, atol=1e-12)


def test_the_mean_and_what_changes_sign_from_point_to_point_have_the_whole_square():
    np.testing.assert_allclose(zonal_power(np.full(7, 3.0)), [9, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(zonal_power(3.0 * (-1.0) ** np.arange(8)), [0, 0, 0, 0, 9], atol=1e-12)


@given(st.integers(2, 50), st.integers(0, 2**32 - 1))
def test_the_power_of_all_wavenumbers_is_the_mean_square(longitudes, seed):
    values = np.random.default_rng(seed).normal(5, 3, size=(3, longitudes))

    np.testing.assert_allclose(zonal_power(values).sum(axis=-1), (values**2).mean(axis=-1), rtol=1e-12)


@pytest.mark.parametrize("longitudes", [35, 36])
def test_power_is_that_of_an_independent_periodogram(longitudes):
    values = np.random.default_rng(1).normal(size=(4, longitudes))

    expected = periodogram(values, fs=longitudes, scaling="spectrum", detrend=False)[1]
    np.testing.assert_allclose(zonal_power(values), expected, rtol=1e-10)


def test_latitudes_count_with_their_area():
    """Waves that differ from latitude to latitude, as the integral of cos(latitude) over each weighs them."""
    regions = weights("global", "tropics")
    amplitude = 1 + np.abs(GRID.latitude.astype(np.float64))
    wave = amplitude[:, np.newaxis] * np.cos(2 * np.deg2rad(GRID.longitude.astype(np.float64)))
    at = Points(wave.reshape(1, -1).astype(np.float32), np.zeros((1, GRID.size), np.float32))

    sums = spectra_of(at, areas_of(regions, regions.names))

    edges = np.deg2rad(np.clip([GRID.latitude - 5, GRID.latitude + 5], -90, 90).astype(np.float64))
    area = np.diff(np.sin(edges), axis=0)[0] / 2
    tropical = np.abs(GRID.latitude) <= 20
    expected = [area @ amplitude**2 / 2, area[tropical] @ amplitude[tropical] ** 2 / 2]
    np.testing.assert_allclose(sums[0, 0, :, 2], expected, rtol=1e-6)
    np.testing.assert_array_equal(sums[1], 0)
    np.testing.assert_array_equal(sums[2], sums[0])


def test_the_error_has_the_power_of_the_difference():
    regions = weights("global")
    forecast, came = fields(1), fields(2)

    sums = spectra_of(Points(forecast, came), areas_of(regions, regions.names))

    error = (forecast.astype(np.float64) - came).reshape(2, *GRID.shape)
    expected = np.einsum("fjk,j->fk", zonal_power(error), regions.weights[0].sum(axis=1))
    np.testing.assert_allclose(sums[2, :, 0], expected, rtol=1e-10)


def test_bands_are_the_regions_of_whole_latitude_circles():
    boxes = {
        "mid": RegionConfig(latitude=(30, 60), longitude=(0, 360)),
        "half": RegionConfig(latitude=(30, 60), longitude=(0, 180)),
    }
    regions = weights("global", "europe", "extra-tropics", "land", "arctic", boxes=boxes)

    assert bands_of(regions) == ("global", "extra-tropics", "arctic", "mid")


def test_a_gap_outside_all_bands_does_no_harm():
    regions = weights("tropics")
    gappy = fields(1).reshape(-1, *GRID.shape)
    gappy[:, 0] = np.nan

    sums = spectra_of(Points(gappy.reshape(2, -1), fields(2)), areas_of(regions, regions.names))

    assert np.isfinite(sums).all()


def spectrum_of(forecast, came):
    """Of power by wavenumber, as if it were read."""
    power = np.stack([forecast, came, came])[:, np.newaxis, np.newaxis]
    dims = ("part", "prediction_timedelta", "band", "wavenumber")
    coords = {"part": ["forecast", "truth", "error"], "wavenumber": np.arange(power.shape[-1])}
    return Spectra(xr.DataArray(power, coords, dims), xr.DataArray([1], dims="prediction_timedelta"))


def test_a_running_mean_loses_what_its_response_says():
    """A mean of three neighbors damps wavenumber k of n by (1 + 2 cos(2 pi k / n)) / 3: 2 / 3 at a sixth of n."""
    values = np.random.default_rng(3).normal(size=72)
    smooth = (np.roll(values, 1) + values + np.roll(values, -1)) / 3

    found = spectrum_of(zonal_power(smooth), zonal_power(values))

    response = ((1 + 2 * np.cos(2 * np.pi * np.arange(37) / 72)) / 3) ** 2
    np.testing.assert_allclose(found.ratio[0, 0], response, rtol=1e-9, atol=1e-12)
    assert found.effective_wavenumber.item() == 12


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        ([1, 1, 0.4, 0.3], 2),
        ([1, 0.4, 1, 0.3], 3),
        ([1, 0.4, 0.3, 0.5], np.nan),
        ([0.1, 0.1, 0.1, 0.1], 0),
        ([1, 0.4, np.nan, np.nan], 1),
        ([1, np.nan, 0.4, 0.4], 2),
        ([1, 1, np.nan, np.nan], np.nan),
        ([np.nan] * 4, np.nan),
    ],
)
def test_power_is_lost_from_where_on_it_stays_below_half_of_what_there_is(ratio, expected):
    came = np.where(np.isnan(ratio), 0.0, 2.0)

    found = spectrum_of(2 * np.nan_to_num(ratio), came).effective_wavenumber.item()

    np.testing.assert_equal(found, expected)


def test_a_store_holds_power_by_part_lead_time_level_band_and_wavenumber(tmp_path):
    store = stored(tmp_path / "s", cases(2), stronger)
    score(store, wanted=WANTED)

    opened = xr.open_zarr(store.path / "scores" / "forecast", chunks=None)

    dims = ("part", "time", "prediction_timedelta", "level", "band", "wavenumber")
    assert opened["temperature_spectrum"].dims == dims
    assert opened[f"{U}_spectrum"].dims == tuple(dim for dim in dims if dim != "level")
    assert opened["temperature_spectrum"].dtype == np.float64
    assert opened["part"].values.tolist() == ["forecast", "truth", "error"]
    assert opened["band"].values.tolist() == ["global", "tropics"]
    assert opened["wavenumber"].values.tolist() == list(range(19))
    expected = np.array([2.25, 1, 0.25]) * AMPLITUDE**2 / 2
    found = opened[f"{U}_spectrum"].sel(wavenumber=WAVES)
    np.testing.assert_allclose(found, np.broadcast_to(expected[:, None, None, None], (3, 2, 4, 2)), rtol=1e-6)
    at_850 = opened["temperature_spectrum"].sel(wavenumber=0, level=850, part="truth")
    np.testing.assert_allclose(at_850, 3500.0**2, rtol=1e-6)
    files = ScoreStore.at(store.path, "forecast").records()["2020-01-01T12"].files
    assert {"temperature_spectrum/c.0.1.0.0.0.0", f"{U}_spectrum/c.0.1.0.0.0"} < set(files)


def test_other_scores_are_what_they_are_without_spectra(tmp_path):
    with_them, without = (stored(tmp_path / name, cases(2), stronger) for name in ("with", "without"))
    score(with_them, wanted=WANTED)
    score(without, wanted=WANTED.model_copy(update={"spectra": ()}))

    xr.testing.assert_identical(average(read(with_them.path)).values, average(read(without.path)).values)
    tables = [tmp_path / "with.csv", tmp_path / "without.csv"]
    for store, table in zip((with_them, without), tables, strict=True):
        write_table(store.path, table)
    assert tables[0].read_bytes() == tables[1].read_bytes()
    assert "band" not in ScoreStore.at(without.path, "forecast").dataset()
    with pytest.raises(EvaluationError, match="must hold temperature_spectrum, but hold"):
        read(with_them.path, variables=["temperature_spectrum"])


def test_sums_of_pieces_add_up_to_those_of_the_case(tmp_path, monkeypatch):
    store = stored(tmp_path / "s", cases(1), stronger)
    scoring, case = scoring_of(WANTED, store, truth()), cases(1)[0]
    at_once = score_case(scoring, case, Stopwatch())
    monkeypatch.setattr("graphcast_batch.evaluation.case_scoring._PIECE_BYTES", 1)
    regions, total = scoring.weighed(), empty_sums(scoring, case, scoring.weighed())
    pieces = scoring_pieces(scoring, case, scoring.times())

    for piece in reversed(pieces):
        part = empty_sums(scoring, case, regions)
        forecast = scoring.forecasts.fields(case, piece.names, piece.hours.tolist(), scoring.levels)
        fields = as_points(scoring, piece.names, forecast, expectation(scoring, case, piece))
        add_piece(part, scoring, regions, case, piece, fields)
        total = {name: total[name] + part[name] for name in total}

    assert len(pieces) > 1
    for name, sums in total.items():
        np.testing.assert_allclose(sums.means, at_once[name].means, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("outputs", [{}, {"keep_bits": 9}])
@pytest.mark.parametrize(
    "make", [only_scores, lambda path, *rest, **kept: stored(path, *rest, None, filled=[], **kept)]
)
def test_spectra_during_a_run_are_those_of_the_stored_forecasts_to_the_last_bit(tmp_path, outputs, make):
    planned = cases(2, steps=12)
    wanted = WANTED.model_copy(update={"derived": (SPEED,), "spectra": (U, T, SPEED)})
    online, after = (
        make(tmp_path / "during", planned, **outputs),
        stored(tmp_path / "after", planned, None, filled=[], **outputs),
    )

    made = run(online, planned, scorer_of(online, truth(), wanted), per_call=5)
    run(after, planned, per_call=5)
    evaluated(after, truth(), wanted)

    assert [each.unscored for each in made] == ["", ""]
    assert set(spectra_in(online.path)) == {U, T, SPEED}
    assert_same_scores(online, after)


def test_what_is_derived_has_a_spectrum_too(tmp_path):
    store = stored(tmp_path / "s", cases(1), stronger)
    wanted = ScoresConfig(derived=(SPEED,), spectra=(SPEED,), regions=("global",))

    score(store, wanted=wanted)

    # Both components are the same wave, whose absolute value has twice as many crests, and harmonics of them.
    power = read_spectra(store.path, "forecast", SPEED).power.sel(band="global")
    crests = power.sel(wavenumber=slice(0, None, 2 * WAVES)).sum("wavenumber")
    expected = np.array([2.25, 1, 0.25]) * AMPLITUDE**2
    np.testing.assert_allclose(crests, np.broadcast_to(expected[:, None], (3, 4)), rtol=1e-5)


def test_scoring_spectra_is_taken_up_where_it_stopped_and_extended(tmp_path):
    stored(tmp_path / "s", cases(1, steps=2), stronger)
    score(open_store(tmp_path / "s"), wanted=WANTED)
    first = ScoreStore.at(tmp_path / "s", "forecast").folder / "temperature_spectrum" / "c.0.0.0.0.0.0"
    content = first.read_bytes()
    store = stored(tmp_path / "s", cases(3, steps=4), stronger, filled=cases(3, steps=4)[1:2])

    score(store, wanted=WANTED)
    fill(store, cases(3)[2], stronger, truth())
    later = score(store, wanted=WANTED)

    assert [case.key for case in later.left] == ["2020-01-02T00"]
    assert first.read_bytes() == content
    found = read_spectra(store.path, "forecast", U)
    assert found.cases.values.tolist() == [3, 3, 2, 2]
    np.testing.assert_allclose(found.ratio.sel(wavenumber=WAVES), 2.25, rtol=1e-6)


def test_lead_times_without_truth_have_no_spectrum_and_do_not_count(tmp_path):
    store = stored(tmp_path / "s", cases(3), stronger)
    score(
        store,
        written(tmp_path / "short.zarr", times(4)),
        wanted=WANTED.model_copy(update={"regions": ("global", "tropics")}),
    )

    found = read_spectra(store.path, "forecast", T, levels=[850], bands=["tropics"])

    assert found.cases.values.tolist() == [2, 1, 1, 0]
    assert found.power.dims == ("part", "prediction_timedelta", "level", "band", "wavenumber")
    assert found.power.shape == (3, 4, 1, 1, 19)
    np.testing.assert_allclose(found.power.sel(part="truth", wavenumber=0)[:3], 3500.0**2, rtol=1e-6)
    assert found.power[:, 3].isnull().all()
    assert [(loss.label, loss.hours, loss.cases) for loss in losses(store.path, "forecast", "global")] == [
        (U, 18, 1),
        ("temperature 500", 18, 1),
    ]


def test_the_mean_over_initial_times_is_that_of_the_power(tmp_path):
    factors = {case.key: factor for case, factor in zip(cases(2), (1.0, 3.0), strict=True)}
    store = stored(tmp_path / "s", cases(2), stronger, filled=[])
    for case in cases(2):
        fill(store, case, lambda name, hours, values, factor=factors[case.key]: values * factor, truth())
    score(store, wanted=WANTED)

    ratio = read_spectra(store.path, "forecast", U).ratio.sel(wavenumber=WAVES, band="global")

    np.testing.assert_allclose(ratio, (1 + 9) / 2, rtol=1e-6)


def test_baselines_have_spectra_of_their_own(tmp_path):
    """The mean over a circle of (cos(x - wt) - cos(x))² is 1 - cos(wt), all of it in that wave."""
    store, source = stored(tmp_path / "s", cases(1), stronger), truth()
    forecasts = Persistence(source, scoring_of(WANTED, store, source).part)
    scoring = scoring_of(WANTED, store, source, forecasts=forecasts)

    means = score_case(scoring, cases(1)[0], Stopwatch())[f"{U}_spectrum"].means

    expected = AMPLITUDE**2 * (1 - np.cos(2 * np.pi * np.array([6, 12, 18, 24]) / 96))
    np.testing.assert_allclose(means[2, :, 0, WAVES], expected, rtol=1e-5)
    np.testing.assert_allclose(means[:2, :, 0, WAVES], AMPLITUDE**2 / 2, rtol=1e-5)


def test_a_damaged_spectrum_is_found_freed_and_made_again(tmp_path):
    store = stored(tmp_path / "s", cases(2), stronger)
    score(store, wanted=WANTED)
    before = ScoreStore.at(store.path, "forecast").dataset().load()
    path = store.path / "scores/forecast/temperature_spectrum/c.0.1.0.0.0.0"
    path.write_bytes(path.read_bytes()[:-1] + b"?")

    flaws = [flaw for flaw in verify(store.path, deep=True).flaws if flaw.kind is FlawKind.SCORES]
    done = repair(store.path, flaws)

    assert [(flaw.key, flaw.path) for flaw in flaws] == [("2020-01-01T12", str(path.relative_to(store.path)))]
    assert done.unscored == ("2020-01-01T12",)
    assert [case.key for case in score(store, wanted=WANTED).left] == ["2020-01-01T12"]
    xr.testing.assert_identical(ScoreStore.at(store.path, "forecast").dataset().load(), before)


@pytest.mark.parametrize("changed", [(), (T,)])
def test_scores_with_other_spectra_are_not_mixed_in(tmp_path, changed):
    store = stored(tmp_path / "s", cases(1), stronger)
    score(store, wanted=WANTED)

    with pytest.raises(StoreMismatchError, match=rf"spectra: there \['{U}', '{T}'\], now"):
        score(store, wanted=WANTED.model_copy(update={"spectra": changed}))
    assert score(store, wanted=WANTED.model_copy(update={"spectra": (T, U)})).left == ()


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ({"spectra": ("temprature",)}, "spectra must name variables that are scored, but temprature .* temperature?"),
        ({"spectra": (T,), "variables": (U,)}, f"but {T} is not one of them; choose some of {U}"),
        (
            {"spectra": (T,), "regions": ("europe", "land")},
            "a region of complete latitude circles, .* are europe, land; add",
        ),
    ],
)
def test_spectra_that_cannot_be_are_refused(tmp_path, wanted, text):
    store = stored(tmp_path / "s", cases(1), stronger)

    with pytest.raises(EvaluationError, match=text):
        scoring_of(ScoresConfig(**wanted), store, truth())


def test_a_part_of_the_globe_has_spectra_only_all_round(tmp_path):
    box = stored(tmp_path / "box", cases(1), stronger, region=RegionConfig(latitude=(20, 60), longitude=(0, 100)))
    ring = stored(tmp_path / "ring", cases(1), stronger, region=RegionConfig(latitude=(20, 60), longitude=(0, 360)))

    with pytest.raises(EvaluationError, match=r"all 36 longitudes .* but the store keeps 11 of them; leave"):
        scoring_of(WANTED, box, truth())
    assert scoring_of(WANTED, ring, truth()).bands == ("stored",)


@pytest.mark.parametrize(
    ("chosen", "text"),
    [
        (("10m_v_component_of_wind",), f"the spectrum of 10m_v_component_of_wind, but has {U}, {T}; name it"),
        ((T, [300]), "must have the level 300, but has 500, 850; choose some"),
        ((T, None, ["land"]), "must have the band land, but has global, tropics; choose some"),
    ],
)
def test_what_is_not_there_cannot_be_read(tmp_path, chosen, text):
    store = stored(tmp_path / "s", cases(1), stronger)
    score(store, wanted=WANTED)

    with pytest.raises(EvaluationError, match=text):
        read_spectra(store.path, "forecast", *chosen)


def test_a_table_that_cannot_be_written_is_refused(tmp_path):
    store = stored(tmp_path / "s", cases(1), stronger)
    lay_out(store, "forecast", scoring_of(WANTED, store, truth()), {})

    assert write_spectra({"forecast": (store.path, "forecast")}, tmp_path / "empty.csv") == 0
    with pytest.raises(EvaluationError, match=r"nowhere/spectra\.csv must be writable, but is not"):
        write_spectra({"forecast": (store.path, "forecast")}, tmp_path / "nowhere" / "spectra.csv")


def test_the_command_shows_what_is_lost_and_writes_spectra(tmp_path, command):
    store = stored(tmp_path / "s", cases(2), lambda name, hours, values: values * 0.5)
    written(tmp_path / "truth.zarr", times(9))
    wanted = f"scores: {{spectra: [{T}, {U}], levels: [850]}}"
    (store.path / "run.yaml").write_text(CONFIG.format(path=tmp_path / "truth.zarr", store=tmp_path / "s") + wanted)

    done = command("evaluate", tmp_path / "s", "--spectra-out", tmp_path / "spectra.csv")

    assert done.returncode == 0, done.stderr
    assert "temperature 850, global: half the power is lost from wavenumber 0 on, at 24 h (2 Cases)" in done.stdout
    assert f"{2 * 7 * 4 * 19} wavenumbers of spectra in" in done.stdout
    with (tmp_path / "spectra.csv").open() as file:
        rows = {
            (row["variable"], row["band"], row["lead_hours"], row["wavenumber"]): row for row in csv.DictReader(file)
        }
    assert len(rows) == 2 * 7 * 4 * 19
    row = rows[T, "tropics", "12", str(WAVES)]
    assert (row["level"], row["cases"]) == ("850", "2")
    expected = np.array([0.25, 1, 0.25]) * AMPLITUDE**2 / 2
    np.testing.assert_allclose([float(row[part]) for part in ("forecast", "truth", "error")], expected, rtol=1e-4)
    assert rows[U, "global", "24", "0"]["level"] == ""


@pytest.mark.parametrize(
    ("spectra", "name", "text"),
    [
        ("[]", "spectra.csv", "--spectra-out needs spectra, but scores.spectra of the config names no variables"),
        ("[temperature]", "spectra.parquet", "--spectra-out must be a .csv file in"),
        ("[temperature]", "nowhere/spectra.csv", "--spectra-out must be a .csv file in"),
    ],
)
def test_a_table_of_spectra_that_cannot_be_is_refused_before_anything_is_laid_out(
    tmp_path, capsys, spectra, name, text
):
    store = stored(tmp_path / "s", cases(1), stronger)
    config = CONFIG.format(path=tmp_path / "truth.zarr", store=tmp_path / "s") + f"scores: {{spectra: {spectra}}}"
    (store.path / "run.yaml").write_text(config)

    with pytest.raises(SystemExit):
        main(["evaluate", str(store.path), "--spectra-out", str(tmp_path / name)])

    assert text in capsys.readouterr().err
    assert not (store.path / "scores").exists()


def test_what_is_lost_is_told_in_a_line_for_each_variable(capsys):
    lost = [Loss("geopotential 500", 240, 74.0, 12), Loss("2m_temperature", 240, np.nan, 12)]

    show_losses(Console(width=60), lost, "tropics")

    assert capsys.readouterr().out.splitlines() == [
        "geopotential 500, tropics: half the power is lost from wavenumber 74 on, at 240 h (12 Cases)",
        "2m_temperature, tropics: half the power or more is left at all wavenumbers, at 240 h (12 Cases)",
    ]


def test_an_ensemble_has_the_power_of_a_member_of_its_mean_and_of_the_error_of_its_mean():
    """By Parseval the mean of independent members has less power than a member, and no wavenumber has more."""
    regions = weights("global", "tropics")
    areas = areas_of(regions, regions.names)
    members, came = np.stack([fields(seed) for seed in range(3, 8)]), fields(2)
    mean = members.astype(np.float64).mean(axis=0)

    sums = spectra_of(Points(members, came), areas)

    each = [spectra_of(Points(member, came), areas) for member in members]
    alone = spectra_of(Points(mean, came.astype(np.float64)), areas)
    np.testing.assert_allclose(sums[0], np.mean([one[0] for one in each], axis=0), rtol=1e-10)
    np.testing.assert_array_equal(sums[1], each[0][1])
    np.testing.assert_allclose(sums[2], alone[2], rtol=1e-9)
    np.testing.assert_allclose(sums[3], alone[0], rtol=1e-9)
    assert (sums[3] <= sums[0] * (1 + 1e-12)).all()


def test_scores_of_an_ensemble_hold_spectra_with_a_part_for_its_mean(tmp_path):
    def offset(by):
        return lambda name, hours, values: values * by

    pair = [stored(tmp_path / f"{by}", cases(2), offset(by)) for by in (1.5, 0.5)]
    scoring = scoring_of(WANTED, pair[0], truth())

    found = lay_out(pair[0], ENSEMBLE, ensemble_of(scoring, pair), {})
    for case in found.left:
        score_stored(found.path, found.name, found.scoring, case)

    opened = xr.open_zarr(pair[0].path / "scores" / "ensemble", chunks=None)
    assert opened["part"].values.tolist() == ["forecast", "truth", "error", "mean"]
    power = opened[f"{U}_spectrum"].sel(wavenumber=WAVES).isel(time=0, prediction_timedelta=0, band=0)
    np.testing.assert_allclose(power, np.array([(2.25 + 0.25) / 2, 1, 0, 1]) * AMPLITUDE**2 / 2, rtol=1e-6, atol=1e-9)
    score(pair[0], wanted=WANTED)
    names = {path.name for path in draw_scores(pair[0].path, [], "global", "png")}
    assert {f"spectra_of_ensemble_{U}_global.png", f"spectra_{U}_global.png"} <= names
