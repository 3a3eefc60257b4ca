import numpy as np
import pytest

from graphcast_batch.models.graphcast.loss import latitude_weights, level_weights
from tests.models.conftest import load_reference

pytestmark = pytest.mark.usefixtures("hasty_compiler")


def test_loss_diagnostics_and_gradient_norms_are_those_of_deepminds_package(reference):
    found = reference.forecaster("float32").loss(
        reference.checkpoint.parameters, reference.inputs, reference.forcings, reference.truth
    )

    expected = reference.loss["float32"]
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    assert found["diagnostics"] == pytest.approx(expected["diagnostics"], rel=1e-3)
    assert found["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=1e-3)
    assert found["gradient_norm_by_module"] == pytest.approx(expected["gradient_norm_by_module"], rel=1e-3)


def test_the_bfloat16_loss_is_near_that_of_deepminds_package():
    reference = load_reference("operational_13")
    found = reference.forecaster("bfloat16").loss(
        reference.checkpoint.parameters, reference.inputs, reference.forcings, reference.truth
    )

    # Theirs is rounded to bfloat16, whose numbers lie 2 or 4 apart here.
    assert found["loss"] == pytest.approx(reference.loss["bfloat16"]["loss"], rel=5e-3)
    assert found["gradient_norm"] == pytest.approx(reference.loss["bfloat16"]["gradient_norm"], rel=2e-2)


def test_rows_weigh_as_their_share_of_the_sphere():
    with_poles = latitude_weights(np.linspace(-90, 90, 19, dtype=np.float32))
    d = np.deg2rad(10)
    # By hand: a cap of half a step against a band of a whole one (its common factor 2 sin(d/2) to 2 sin²(d/4)).
    assert with_poles[0] / with_poles[9] == pytest.approx(np.sin(d / 4) ** 2 / np.sin(d / 2), rel=1e-6)
    assert with_poles.mean() == pytest.approx(1, rel=1e-6)

    without = latitude_weights(np.arange(-85, 90, 10, dtype=np.float32))
    assert without / without[9] == pytest.approx(
        np.cos(np.deg2rad(np.arange(-85, 90, 10))) / np.cos(np.deg2rad(5)), rel=1e-6
    )


def test_levels_weigh_as_their_pressure():
    assert level_weights((50, 100, 150)) == pytest.approx([0.5, 1, 1.5])
