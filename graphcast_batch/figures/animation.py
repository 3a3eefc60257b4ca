"""Draw an animation of maps of one field, with a frame for each lead time, as GIF or MP4."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from numpy.typing import NDArray
from PIL import Image

from graphcast_batch.errors import FigureError
from graphcast_batch.figures.maps import Sheet, description, leads_of
from graphcast_batch.figures.projections import PLATE_CARREE, Projection
from graphcast_batch.figures.saving import package_style, write_complete
from graphcast_batch.figures.scene import Scene, Showable, scene

Frame = NDArray[np.uint8]
"""(height, width, 3)"""

_PER_SECOND: Final = 4
"""Frames per second: one day of 6-hourly frames."""
_DPI: Final = 100
_PIXELS: Final = 480
"""Pixels across the image of a map: about as many as a map has in a frame with three maps."""
_COLORS: Final = 256
"""The most colors that a GIF can have."""
_GRAYS: Final = 32


def draw_animation(
    path: Path,
    prediction: Showable,
    target: Showable | None = None,
    *,
    projection: Projection = PLATE_CARREE,
    credit: str = "",
) -> None:
    """Draw a forecast of one field as an animation with a frame for each lead time, all with the same color limits.

    Args:
        path: of the file to write: GIF or MP4.
        prediction: (prediction_timedelta, latitude, longitude), otherwise as for `draw_maps`.
        target: the truth, at any number of the lead times; at the others "no data" is shown. None to draw the
            prediction alone.
        projection: of the maps.
        credit: who made the forecast.

    Raises:
        FigureError: the dimensions are others than these, there is no lead time, fields are on different points, the
            file is of another kind, or it is an MP4 and ffmpeg is not found or fails.
        GridError: the points are not a regular global grid.
    """
    if path.suffix not in (".gif", ".mp4"):
        raise FigureError(f"an animation must be a .gif or .mp4 file, but is {path}; rename it")
    shown = scene(prediction, target, leads_of(prediction))
    with package_style():
        sheet = Sheet(shown, projection, credit, rows=1, panel_pixels=_PIXELS)
        alt = f"Animation: {description(shown, sheet.scales, projection)}"
        frames = _frames(sheet, shown)
        write_complete(path, _mp4(frames, alt) if path.suffix == ".mp4" else _gif(frames, alt, _palette(sheet.colors)))


def ffmpeg() -> str:
    """Return the path of the program ffmpeg, which writes MP4.

    Raises:
        FigureError: ffmpeg is not found.
    """
    found = shutil.which("ffmpeg")
    if found is None:
        raise FigureError(
            "an mp4 animation is made by ffmpeg, which must be on PATH, but is not; install it or choose animation: gif"
        )
    return found


def _frames(sheet: Sheet, shown: Scene) -> Iterator[Frame]:
    """Draw the frames; the parts that do not change (color bars, margins) are laid out and drawn once."""
    figure = sheet.figure
    figure.set_dpi(_DPI)
    canvas: Any = FigureCanvasAgg(figure)  # matplotlib's canvases are without types
    canvas.draw()
    figure.set_layout_engine("none")
    moving = [*sheet.axes.ravel().tolist(), sheet.heading]
    for artist in moving:
        artist.set_visible(False)
    canvas.draw()
    still = canvas.copy_from_bbox(figure.bbox)
    for artist in moving:
        artist.set_visible(True)
    for row in shown.rows:
        canvas.restore_region(still)
        sheet.show([row])
        for artist in moving:
            figure.draw_artist(artist)
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _palette(colors: tuple[str, ...]) -> Image.Image:
    """Return the palette of all frames of a GIF: the colors of the maps, and grays for text and lines."""
    grays = np.linspace(0, 1, _GRAYS)
    most = (_COLORS - _GRAYS) // len(colors)
    of_maps = [colormaps[name](np.linspace(0, 1, most))[:, :3] for name in colors]
    table = np.concatenate([np.stack([grays] * 3, axis=-1), *of_maps])
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.rint(255 * table).astype(np.uint8).ravel().tolist())
    return palette


def _gif(frames: Iterable[Frame], alt: str, palette: Image.Image) -> bytes:
    # Without dithering, unchanged parts have the same pixels in all frames, which makes a small file.
    images = (Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    first = next(images)
    content = BytesIO()
    first.save(
        content,
        format="GIF",
        save_all=True,
        append_images=images,
        duration=1000 // _PER_SECOND,
        loop=0,
        optimize=False,
        comment=alt.encode(),
    )
    return content.getvalue()


def _mp4(frames: Iterable[Frame], alt: str) -> bytes:
    """Encode frames with ffmpeg; the pixel format that all players support needs an even width and height."""
    program, frames = ffmpeg(), iter(frames)
    first = next(frames)
    height, width, _ = first.shape
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        command = [
            *(program, "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"),
            *("-r", str(_PER_SECOND), "-i", "-", "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2:color=white"),
            *("-pix_fmt", "yuv420p", "-movflags", "+faststart", "-bitexact", "-metadata", f"comment={alt}", str(film)),
        ]
        content = b"".join([first.tobytes(), *(frame.tobytes() for frame in frames)])
        done = subprocess.run(command, input=content, capture_output=True, check=False)
        if done.returncode:
            output = done.stderr.decode(errors="replace").strip()
            raise FigureError(f"ffmpeg must make an mp4 animation of {width} x {height} frames, but failed: {output}")
        return film.read_bytes()
