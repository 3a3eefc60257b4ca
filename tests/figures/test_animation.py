import os
import shutil

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from graphcast_batch.errors import FigureError
from graphcast_batch.figures.animation import draw_animation
from graphcast_batch.figures.projections import Robinson
from graphcast_batch.figures.scene import Shown, Wind


def forecast(steps, *, change=1.0, name="tracer"):
    latitude, longitude = np.arange(-90, 91, 15.0, np.float32), np.arange(0, 360, 15.0, np.float32)
    rows, leads = np.meshgrid(latitude, np.arange(steps), indexing="ij")
    values = np.repeat((rows + change * 60 * leads).T[..., None], longitude.size, axis=-1).astype(np.float32)
    return xr.DataArray(
        values,
        dims=("prediction_timedelta", "latitude", "longitude"),
        coords={
            "prediction_timedelta": (np.arange(steps) + 1) * np.timedelta64(6, "h").astype("timedelta64[ns]"),
            "latitude": latitude,
            "longitude": longitude,
            "time": np.datetime64("2020-01-01", "ns"),
        },
        name=name,
    )


def frames(path):
    with Image.open(path) as film:
        shown = []
        for number in range(film.n_frames):
            film.seek(number)
            shown.append(np.asarray(film.convert("RGB")))
        return shown, film.info


def test_a_film_has_a_frame_for_each_lead_time(tmp_path):
    draw_animation(tmp_path / "film.gif", forecast(3), forecast(2))
    shown, info = frames(tmp_path / "film.gif")
    assert len(shown) == 3
    assert info["duration"] == 250
    assert (
        info["comment"]
        .decode()
        .startswith("Animation: Maps of Tracer, Initial time 2020-01-01 00:00 UTC. +6 h: Target: ")
    )
    assert info["comment"].decode().count("no data") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["film.gif"]


def test_from_frame_to_frame_only_the_maps_and_times_change(tmp_path):
    # The second frame has the colors of 30 degrees further north: all in the same scale.
    draw_animation(tmp_path / "film.gif", forecast(2, change=0.5))
    (first, second), _ = frames(tmp_path / "film.gif")
    height, width, _ = first.shape
    left = slice(round(width * 0.15), round(width * 0.2))
    before, after = (np.median(frame[:, left], axis=1) for frame in (first, second))
    moved = np.flatnonzero((before != after).any(axis=-1))
    assert moved.size > height / 3
    assert (first[round(height * 0.85) :] == second[round(height * 0.85) :]).all()
    rows = np.arange(round(height * 0.35), round(height * 0.5))
    sixth = round(30 / 180 * _map_height(before))
    assert np.abs(after[rows] - before[rows - sixth]).max() <= 40
    assert np.abs(after[rows] - before[rows]).max() > 40


def _map_height(column):
    colored = np.flatnonzero(np.ptp(column, axis=1) > 40)
    return np.split(colored, np.flatnonzero(np.diff(colored) > 5) + 1)[0].size


def test_what_was_drawn_over_a_frame_is_gone_in_the_next(tmp_path):
    def shown(field):
        wind = Wind(field, 0 * field, "streamlines")
        return Shown(field, field, wind)

    there_and_back = (
        forecast(3)
        .isel(prediction_timedelta=[0, 1, 0])
        .assign_coords(prediction_timedelta=forecast(3)["prediction_timedelta"])
    )
    draw_animation(tmp_path / "film.gif", shown(there_and_back), projection=Robinson())
    (first, second, third), _ = frames(tmp_path / "film.gif")
    maps = slice(round(len(first) * 0.25), None)
    assert (first[maps] == third[maps]).all()
    assert (first[maps] != second[maps]).any()


def test_without_ffmpeg_an_mp4_is_refused_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FigureError, match=r"ffmpeg, which must be on PATH.*choose animation: gif"):
        draw_animation(tmp_path / "film.mp4", forecast(2))
    assert not list(tmp_path.iterdir())


def program(folder, script):
    path = folder / "bin" / "ffmpeg"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return f"{path.parent}{os.pathsep}{os.environ['PATH']}"


def test_ffmpeg_is_given_every_pixel_of_every_frame(tmp_path, monkeypatch):
    # A stand-in that keeps what it is given: the number of its pixels, and them.
    script = 'for last; do :; done; echo "$@" | grep -Eo "[0-9]+x[0-9]+" | head -1 > "$last"; cat >> "$last"'
    monkeypatch.setenv("PATH", program(tmp_path, script))
    draw_animation(tmp_path / "film.mp4", forecast(2))
    size, _, pixels = (tmp_path / "film.mp4").read_bytes().partition(b"\n")
    width, height = map(int, size.split(b"x"))
    assert len(pixels) == 2 * width * height * 3


def test_what_ffmpeg_says_when_it_fails_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", program(tmp_path, "cat > /dev/null; echo no encoder >&2; exit 1"))
    with pytest.raises(FigureError, match=r"ffmpeg must make an mp4 animation of .* but failed: no encoder"):
        draw_animation(tmp_path / "film.mp4", forecast(1))


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_ffmpeg_makes_an_mp4(tmp_path):
    draw_animation(tmp_path / "film.mp4", forecast(2), forecast(2))
    assert (tmp_path / "film.mp4").read_bytes()[4:8] == b"ftyp"


def test_another_kind_of_film_or_none_at_all_is_refused(tmp_path):
    with pytest.raises(FigureError, match=r"must be a \.gif or \.mp4 file, but is .*film\.avi"):
        draw_animation(tmp_path / "film.avi", forecast(2))
    with pytest.raises(FigureError, match="tracer needs at least one lead time"):
        draw_animation(tmp_path / "film.gif", forecast(1).isel(prediction_timedelta=slice(0, 0)))
