"""Find out which center's analyses a file holds, such as ERA5 or HRES, from its attributes and its name."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final

GRIB_KEYS: Final = ("centre", "class", "stream", "dataType", "generatingProcessIdentifier")
"""Keys of ecCodes, which cfgrib writes into netCDF files as attributes that begin with GRIB_."""
_CLASSES: Final = {"ea": "ERA5", "od": "HRES", "ei": "ERA-Interim", "e4": "ERA-40", "ai": "AIFS"}
"""Analyses by ECMWF's class (mars/class.table of ecCodes); od is the operational archive, from which HRES starts."""
_PROCESSES: Final = {"81": "GFS", "82": "GFS", "96": "GFS"}
"""Analyses by NCEP's generating process (NCEP's table A): GFS analysis, GDAS analysis, GFS."""
_PREFIX: Final = "GRIB_"

_TEXTS: Final = ("title", "source", "institution", "institute", "model", "product", "dataset", "summary", "comment")
_LATER: Final = ("history",)
"""Attributes that are read if the others name no analyses, because they may name other files too."""
_ARCO: Final = "valid_time_stop"
"""An attribute that only ARCO-ERA5 has."""
_LONGEST: Final = 60
"""Largest number of characters of an attribute in a text."""
_MOST: Final = 3
"""Largest number of descriptions of files in a text."""


def _words(*alternatives: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![a-z0-9])(?:{'|'.join(alternatives)})(?![a-z0-9])", re.IGNORECASE)


_PRODUCTS: Final = {
    "ERA5": _words("era-?5t?"),
    "ERA-Interim": _words("era-?interim"),
    "HRES": _words("hres"),
    "GFS": _words("gfs", "gdas", "global forecast system", "global data assimilation system"),
    "JRA-55": _words("jra-?55"),
    "MERRA-2": _words("merra-?2"),
}
_MODELS: Final = {"HRES": _words("ifs")}
"""Used if no product is named, because the IFS produces ERA5 too."""


@dataclass(frozen=True)
class Provenance:
    """The analyses that data come from.

    Attributes:
        kind: name of the analyses, such as ERA5, HRES or GFS; empty if it is unknown.
        basis: the attributes from which ``kind`` follows, or others if it is unknown, as text; empty without any.
    """

    kind: str = ""
    basis: str = ""

    def __str__(self) -> str:
        """Return the name of the analyses and its basis, as far as they are known."""
        return f"{self.kind} ({self.basis})" if self.kind and self.basis else self.kind or self.basis


def provenance(attributes: Mapping[str, Any], versions: Sequence[object] = (), origin: str = "") -> Provenance:
    """Return the provenance of the data in a file.

    Args:
        attributes: global attributes of the file.
        versions: values of the coordinate expver, if the file has it.
        origin: path or address of the file, which is used if the attributes name no analyses.
    """
    texts = {str(key): " ".join(str(value).split()) for key, value in attributes.items()}
    return (
        _of_grib(texts)
        or _of_versions(versions)
        or _of_texts({key: text for key, text in texts.items() if key.lower() in _TEXTS})
        or (Provenance("ERA5", f"attribute {_ARCO} of ARCO-ERA5") if _ARCO in texts else None)
        or _of_texts({key: text for key, text in texts.items() if key.lower() in _LATER})
        or _of_name(origin)
        or Provenance("", _basis({key: text for key, text in texts.items() if _is_shown(key)}))
    )


def common(found: Sequence[Provenance]) -> Provenance:
    """Return the provenance of several files: their common analyses, or the descriptions of all if they differ."""
    kinds = {one.kind for one in found if one.kind}
    if len(kinds) == 1:
        return next(one for one in found if one.kind)
    texts = list(dict.fromkeys(str(one) for one in found if str(one)))
    return Provenance("", "; ".join(texts[:_MOST]) + ("; ..." if len(texts) > _MOST else ""))


def _of_grib(texts: Mapping[str, str]) -> Provenance | None:
    keys = {key: texts[_PREFIX + key] for key in GRIB_KEYS if _PREFIX + key in texts}
    kind = {
        "ecmf": _CLASSES.get(keys.get("class", "")),
        "kwbc": _PROCESSES.get(keys.get("generatingProcessIdentifier", "")),
    }.get(keys.get("centre", ""))
    return Provenance(kind, _basis(keys)) if kind else None


def _of_versions(versions: Sequence[object]) -> Provenance | None:
    plain = {str(version).removesuffix(".0").lstrip("0") for version in versions}
    return Provenance("ERA5", "expver 5, which is ERA5T") if "5" in plain else None


def _of_texts(texts: Mapping[str, str]) -> Provenance | None:
    for known in (_PRODUCTS, _MODELS):
        kinds = [kind for kind, words in known.items() if any(words.search(text) for text in texts.values())]
        if len(kinds) == 1:
            naming = {key: text for key, text in texts.items() if known[kinds[0]].search(text)}
            return Provenance(kinds[0], _basis(naming))
        if kinds:
            return None
    return None


def _of_name(origin: str) -> Provenance | None:
    name = origin if "://" in origin else PurePath(origin).name
    found = _of_texts({"name": name})
    return Provenance(found.kind, "by its name") if found else None


def _is_shown(key: str) -> bool:
    return key.lower() in _TEXTS[:4] or key.removeprefix(_PREFIX) in GRIB_KEYS


def _basis(texts: Mapping[str, str]) -> str:
    return ", ".join(f"{key.removeprefix(_PREFIX)} {_short(text)}" for key, text in texts.items())


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
