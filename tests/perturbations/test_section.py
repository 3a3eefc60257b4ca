import pytest

from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.perturbations_section import GaussianPerturbations, Perturbations, SphericalPerturbations
from graphcast_batch.errors import ConfigError
from graphcast_batch.spec import FrozenModel


class Section(FrozenModel):
    """Stands for the config that has the perturbations."""

    perturbations: Perturbations


WHITE = {"kind": "gaussian", "members": 4, "amplitude": 0.1}
SMOOTH = {"kind": "spherical", "members": 4, "amplitude": {"temperature": 1}, "length_km": 500}


def parsed(content):
    return parse_config({"perturbations": content}, Section, origin="here").perturbations


def test_the_kind_chooses_the_keys():
    assert parsed(WHITE) == GaussianPerturbations(kind="gaussian", members=4, amplitude=0.1)
    assert isinstance(parsed(SMOOTH), SphericalPerturbations)
    with pytest.raises(ConfigError, match=r"perturbations.*length_km: unknown key"):
        parsed(WHITE | {"length_km": 500})
    with pytest.raises(ConfigError, match=r"perturbations.*length_km.*"):
        parsed({name: value for name, value in SMOOTH.items() if name != "length_km"})


@pytest.mark.parametrize("amplitude", [0, -1, True, {}, {"temperature": 0}, {"temperature": "much"}, "much", None])
def test_an_amplitude_is_a_number_above_0_or_a_mapping_to_such_numbers(amplitude):
    with pytest.raises(ConfigError, match=r"amplitude: give a number above 0, or a mapping of variables to such"):
        parsed(WHITE | {"amplitude": amplitude})


@pytest.mark.parametrize("number", [".inf", float("inf"), float("nan")])
def test_an_amplitude_is_finite(number):
    with pytest.raises(ConfigError, match=r"amplitude: give a number above 0"):
        parsed(WHITE | {"amplitude": number})


def test_pairs_need_an_even_number_of_members():
    assert parsed(WHITE | {"centred": True}).centred
    with pytest.raises(ConfigError, match="members must be even with centred: true, which makes pairs, but is 3"):
        parsed(WHITE | {"centred": True, "members": 3})


def test_each_level_is_named_once():
    assert parsed(WHITE | {"levels": [850, 500]}).levels == (500, 850)
    with pytest.raises(ConfigError, match="levels must name each level once, but repeats 500"):
        parsed(WHITE | {"levels": [500, 850, 500]})
    with pytest.raises(ConfigError, match="levels"):
        parsed(WHITE | {"levels": []})
