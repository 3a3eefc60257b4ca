"""Check the perturbations of initial states in a config: random fields, bred vectors, or members of an analysis."""

from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from graphcast_batch.config.inputs_section import ArchiveKeys
from graphcast_batch.spec import FrozenModel, Levels
from graphcast_batch.text import brief

_LONGEST_KM = 5000
"""Largest length of correlation: the correlation at that distance is 0.64, and exp(-1/2) = 0.61 at shorter ones."""


def _read_amplitude(value: object) -> object:
    pairs = list(value.items()) if isinstance(value, dict) else [("", value)]
    if not pairs or not all(isinstance(name, str) and _is_positive(number) for name, number in pairs):
        raise ValueError(f"give a number above 0, or a mapping of variables to such numbers, not {brief(value)}")
    return value


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


class _AddedPerturbations(FrozenModel):
    """Fields that are added to the initial state; the keys that all kinds of them have."""

    kind: str
    """Kind of the fields."""
    members: Annotated[int, Field(gt=0)]
    """Number of perturbed initial states for each initial time; the state without a perturbation is not among them."""
    amplitude: Annotated[float | dict[str, float], BeforeValidator(_read_amplitude)]
    """Standard deviation of the perturbation as a multiple of the standard deviation of the change over one model step
    (``diffs_stddev`` of the normalization statistics), by variable and level. A number perturbs every variable that the
    model feeds back, except precipitation; a mapping of variables to numbers perturbs only the variables that it names.
    """
    levels: Annotated[Levels, Field(min_length=1), AfterValidator(lambda levels: tuple(sorted(levels)))] | None = None
    """Levels in hPa at which variables on levels are perturbed; by default all levels of the model. Variables that are
    not on levels are perturbed in either case."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of the random fields; each field also depends on the initial time and on the number of the perturbed state.
    """

    @model_validator(mode="after")
    def _each_level_once(self) -> Self:
        twice = sorted(level for level, count in Counter(self.levels or ()).items() if count > 1)
        if twice:
            raise ValueError(f"levels must name each level once, but repeats {', '.join(map(str, twice))}")
        return self


class _RandomPerturbations(_AddedPerturbations):
    """Random fields that are added to the initial state."""

    centred: bool = False
    """Whether perturbed states come in pairs that have the same random field once added and once subtracted, so that
    the mean of each pair is the state without a perturbation."""

    @model_validator(mode="after")
    def _complete_pairs(self) -> Self:
        if self.centred and self.members % 2:
            raise ValueError(f"members must be even with centred: true, which makes pairs, but is {self.members}")
        return self


class GaussianPerturbations(_RandomPerturbations):
    """White noise: an independent normal number at each grid point, level and variable."""

    kind: Literal["gaussian"]
    """The random fields are white noise, whose smallest scale is that of the grid."""


class SphericalPerturbations(_RandomPerturbations):
    """Smooth random fields with the same statistics everywhere on the sphere."""

    kind: Literal["spherical"]
    """The random fields are smooth Gaussian random fields on the sphere, with the same statistics at every latitude."""
    length_km: Annotated[float, Field(gt=0, le=_LONGEST_KM)]
    """Length of the horizontal correlation in km: the distance at which the correlation has fallen to exp(-1/2), about
    0.61. It must be at least two grid spacings at the equator."""
    level_scale: Annotated[float, Field(gt=0)] = 1.0
    """Length of the vertical correlation as a difference of the logarithm of pressure, over which the correlation falls
    to 1/e: with 1, about one scale height of the atmosphere, two levels of which one has e times the pressure of the
    other have a correlation of 0.37. A very large number gives one field at all levels, a very small one independent
    fields."""


class BredPerturbations(_AddedPerturbations):
    """Bred vectors: differences of short forecasts, which have grown to what the model amplifies."""

    kind: Literal["bred"]
    """The fields are centred bred vectors: half the differences of pairs of forecasts before the initial time, scaled
    down to the amplitude after each cycle, and once added, once subtracted."""
    cycles: Annotated[int, Field(gt=0)] = 4
    """Number of cycles before the initial time; the first begins with white noise."""
    cycle_hours: Annotated[int, Field(gt=0)] = 12
    """Length of the forecasts of a cycle in hours, a multiple of the model's step."""

    @model_validator(mode="after")
    def _complete_pairs(self) -> Self:
        if self.members % 2:
            raise ValueError(f"members must be even with kind: bred, which makes pairs, but is {self.members}")
        return self


class FilePerturbations(ArchiveKeys):
    """Initial states of an analysis ensemble: an archive with a dimension of members."""

    kind: Literal["file"]
    """The initial states are those of the members of an ensemble, which an archive holds along a dimension such as
    ``number``; the keys of the archive are those of ``inputs``."""
    members: Annotated[int, Field(gt=0)]
    """Number of members that are read for each initial time, in the order of their numbers in the archive."""


RandomPerturbations = GaussianPerturbations | SphericalPerturbations
"""Perturbations that are random fields."""

AddedPerturbations = RandomPerturbations | BredPerturbations
"""Perturbations that are added to the initial state, with an amplitude."""

Perturbations = Annotated[AddedPerturbations | FilePerturbations, Field(discriminator="kind")]
"""Perturbations of the initial states, of any kind."""
