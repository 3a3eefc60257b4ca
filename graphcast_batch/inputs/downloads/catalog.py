"""List the published GraphCast files, with their sizes, checksums and license.

The published files and their license:
https://github.com/google-deepmind/weathernext/blob/main/docs/weathernext1_graph/README.md
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from graphcast_batch.errors import InputError

Kind = Literal["checkpoint", "stats", "sample"]

_FOLDERS: Final[dict[Kind, str]] = {"checkpoint": "params", "stats": "stats", "sample": "dataset"}
_FILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._<>=+-]*\.(npz|nc)")


@dataclass(frozen=True)
class Published:
    """A file that can be downloaded.

    Attributes:
        kind: checkpoint, statistics or sample.
        file: name of the file, without folders.
        size_bytes: size of the file; None if only the server knows it.
        sha256: SHA-256, hexadecimal; empty if it has not been published.

    Raises:
        InputError: ``file`` is not a plain name.
    """

    kind: Kind
    file: str
    size_bytes: int | None = None
    sha256: str = ""

    def __post_init__(self) -> None:
        if not _FILE.fullmatch(self.file):
            raise InputError(f"a published file must have a plain name that ends in .npz or .nc, not {self.file!r}")

    @property
    def name(self) -> str:
        """Short name, by which a user asks for the file."""
        return self.file.split(" - ")[0] if self.kind == "checkpoint" else self.file.removesuffix(".nc")

    @property
    def place(self) -> str:
        """Path of the file in the bucket and in mirrors."""
        return f"{_FOLDERS[self.kind]}/{self.file}"


def _samples() -> Iterator[Published]:
    few, many = ("01", "04", "12"), ("01", "04", "12", "20", "40")
    for source, resolution, levels, lengths in (
        ("era5_date-2022-01-01", "0.25", (13, 37), few),
        ("era5_date-2022-01-01", "1.0", (13, 37), many),
        ("fake_date-2000-01-01", "6.0", (13, 37), many),
        ("hres_date-2022-01-01", "0.25", (13,), few),
    ):
        for level in levels:
            for steps in lengths:
                yield Published("sample", f"source-{source}_res-{resolution}_levels-{level}_steps-{steps}.nc")


KNOWN: Final = (
    # Sizes and checksums of the checkpoints: https://huggingface.co/shermansiu, a copy of the bucket of December 2023.
    Published(
        "checkpoint",
        "GraphCast - ERA5 1979-2017 - resolution 0.25 - pressure levels 37 - mesh 2to6 - "
        "precipitation input and output.npz",
        145_990_258,
        "4e8cf600f3f402ebb430483e782b94648cef57bb757dec24dd7b11760d3fbacc",
    ),
    Published(
        "checkpoint",
        "GraphCast_operational - ERA5-HRES 1979-2021 - resolution 0.25 - pressure levels 13 - mesh 2to6 - "
        "precipitation output only.npz",
        144_203_874,
        "8f485e84343072785522f6d0696c198c7712e9f0f14070a88c26a9ff35db75a9",
    ),
    Published(
        "checkpoint",
        "GraphCast_small - ERA5 1979-2015 - resolution 1.0 - pressure levels 13 - mesh 2to5 - "
        "precipitation input and output.npz",
        144_041_078,
        "e9438d8ad31ca6e1d3397a33b2508f4bbb6ec16aed84629f9a64712bf756bc29",
    ),
    # stats/README.md
    Published(
        "stats", "diffs_stddev_by_level.nc", 4416, "e688fc51fe72e1dc897678ef5ce9889add64e28e13f3cec4758d8e47d429c1ce"
    ),
    Published("stats", "mean_by_level.nc", 5776, "e6e724b94cd27707903cdc5cf5784d420bab306f722e631f4455e25c96da9931"),
    Published("stats", "stddev_by_level.nc", 5776, "29f941d8c34906b87a1745f93b2308d1e169ec9bbdc4c5491479c771fe92c3cb"),
    *_samples(),
)

LICENSE: Final = "CC-BY-4.0"
_TERMS: Final = "CC BY 4.0, https://creativecommons.org/licenses/by/4.0/"
_ECMWF: Final = (
    "Made with data of ECMWF and modified Copernicus Climate Change Service information 2023; neither the European "
    "Commission nor ECMWF is responsible for any use of them."
)


def license(kind: Kind) -> str:
    """Return the license and attribution of a kind of files, as text, as their publisher stated them in August 2026."""
    match kind:
        case "checkpoint":
            return (
                f"GraphCast's weights: Google LLC, {_TERMS}. This license applies since 6 August 2026, to earlier "
                "copies too; the text inside a file may still name the former license, CC BY-NC-SA 4.0. Name the "
                f"source, https://doi.org/10.1126/science.adi2336. {_ECMWF}"
            )
        case "stats":
            return f"GraphCast's normalization statistics: Google LLC, {_TERMS}. {_ECMWF}"
        case "sample":
            return (
                f"GraphCast's sample datasets: Google LLC, {_TERMS}. {_ECMWF} Those from HRES: copyright 2023 European "
                f"Centre for Medium-Range Weather Forecasts (ECMWF), www.ecmwf.int, CC BY 4.0; ECMWF accepts no "
                "liability for errors in them, their availability, or loss from their use."
            )


def published_at(place: str, size_bytes: int) -> Published | None:
    """Return the published file at a path in the bucket; None if the path is not that of such a file.

    Args:
        place: path in the bucket.
        size_bytes: size of the file, which is used if the file is not `KNOWN`.
    """
    known = next((file for file in KNOWN if file.sha256 and file.place == place), None)
    for kind, folder in _FOLDERS.items():
        file = place.removeprefix(f"{folder}/")
        if file != place and _FILE.fullmatch(file):
            return known or Published(kind, file, size_bytes)
    return None
