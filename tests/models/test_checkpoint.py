import pickle
from dataclasses import replace

import numpy as np
import pytest

from graphcast_batch.errors import CheckpointError
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.graphcast.checkpoint import load_checkpoint, save_checkpoint
from graphcast_batch.models.graphcast.parameters import check_parameters, parameter_shapes
from tests.models.conftest import FOLDER

CASES = ["small_13", "operational_13"]


def entries(path):
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


@pytest.mark.parametrize("case", CASES)
def test_a_load_and_save_keeps_every_array_and_field(case, tmp_path):
    path = FOLDER / case / "checkpoint.npz"

    save_checkpoint(load_checkpoint(path), tmp_path / "copy.npz")

    before, after = entries(path), entries(tmp_path / "copy.npz")
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert after[key].dtype == value.dtype, key
        assert after[key].shape == value.shape, key
        assert after[key].tobytes() == value.tobytes(), key
    assert [file.name for file in tmp_path.iterdir()] == ["copy.npz"]


@pytest.mark.parametrize("case", CASES)
def test_published_parameters_are_exactly_those_that_are_listed(case):
    checkpoint = load_checkpoint(FOLDER / case / "checkpoint.npz")
    channels = Channels.of(checkpoint.task, {})

    listed = parameter_shapes(checkpoint.architecture, channels.inputs, channels.outputs)

    found = {m: {n: a.shape for n, a in named.items()} for m, named in checkpoint.parameters.items()}
    assert found == listed


def test_the_widths_of_the_published_tasks_are_those_of_the_paper():
    from graphcast_batch.spec import TASKS

    widths = {name: (Channels.of(task, {}).inputs, Channels.of(task, {}).outputs) for name, task in TASKS.items()}
    assert widths == {"GraphCast": (471, 227), "GraphCast_operational": (181, 83), "GraphCast_small": (183, 83)}


def change(tmp_path, **changes):
    """A copy of a good file with entries replaced, or dropped where the new value is None."""
    content = entries(FOLDER / "small_13" / "checkpoint.npz") | {k.replace("__", ":"): v for k, v in changes.items()}
    np.savez(tmp_path / "changed.npz", **{key: value for key, value in content.items() if value is not None})
    return tmp_path / "changed.npz"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere\.npz is not a file"):
        load_checkpoint(tmp_path / "nowhere.npz")


@pytest.mark.parametrize("kept", [0, 10, 1000, 70_000, -30])
def test_a_truncated_file_is_refused_by_name(kept, tmp_path):
    path = tmp_path / "cut.npz"
    path.write_bytes((FOLDER / "small_13" / "checkpoint.npz").read_bytes()[:kept])

    with pytest.raises(CheckpointError, match=r"cut\.npz"):
        load_checkpoint(path)


def test_a_flipped_byte_is_refused(tmp_path):
    content = bytearray((FOLDER / "small_13" / "checkpoint.npz").read_bytes())
    content[60_000] ^= 0xFF
    (tmp_path / "flipped.npz").write_bytes(content)

    with pytest.raises(CheckpointError, match=r"flipped\.npz is truncated, damaged or no \.npz file"):
        load_checkpoint(tmp_path / "flipped.npz")


def test_nothing_is_ever_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was executed",))

    np.savez(tmp_path / "objects.npz", **{"params:a:w": np.array([Bomb()], dtype=object)})
    (tmp_path / "plain.npz").write_bytes(pickle.dumps(Bomb()))

    with pytest.raises(CheckpointError, match=r"objects\.npz.*holds Python objects, which are never loaded"):
        load_checkpoint(tmp_path / "objects.npz")
    with pytest.raises(CheckpointError, match=r"plain\.npz is truncated, damaged or no \.npz file"):
        load_checkpoint(tmp_path / "plain.npz")


def test_a_foreign_file_is_told_from_its_entries(tmp_path):
    np.savez(tmp_path / "foreign.npz", weights=np.zeros(3))
    with pytest.raises(CheckpointError, match="holds the entry 'weights'"):
        load_checkpoint(tmp_path / "foreign.npz")

    np.save(tmp_path / "single.npy", np.zeros(3))
    with pytest.raises(CheckpointError, match=r"single\.npy is .*no \.npz file"):
        load_checkpoint(tmp_path / "single.npy")


def test_missing_and_wrong_fields_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="mesh_size: required, but missing"):
        load_checkpoint(change(tmp_path, model_config__mesh_size=None))
    with pytest.raises(CheckpointError, match="model_config:wings"):
        load_checkpoint(change(tmp_path, model_config__wings=np.zeros(2)))
    with pytest.raises(CheckpointError, match="wings: unknown key"):
        load_checkpoint(change(tmp_path, model_config__wings=np.array(2)))
    with pytest.raises(CheckpointError, match="latent_size"):
        load_checkpoint(change(tmp_path, model_config__latent_size=np.array("many")))


def test_weights_must_be_finite_float32(tmp_path):
    key = "params:mesh_gnn/~_networks_builder/encoder_edges_mesh_mlp/~/linear_0:w"
    with pytest.raises(CheckpointError, match="linear_0:w must be float32, but is float64"):
        load_checkpoint(change(tmp_path, **{key: np.zeros((4, 16))}))
    with pytest.raises(CheckpointError, match="must be finite, but 64 of its 64 values are not"):
        load_checkpoint(change(tmp_path, **{key: np.full((4, 16), np.nan, np.float32)}))


def check(checkpoint):
    channels = Channels.of(checkpoint.task, {})
    check_parameters(
        checkpoint.parameters, checkpoint.architecture, channels.inputs, channels.outputs, "the checkpoint"
    )


def test_the_first_parameter_that_does_not_fit_is_named(tmp_path):
    good = load_checkpoint(FOLDER / "small_13" / "checkpoint.npz")
    check(good)
    modules = dict(good.parameters)
    name = "mesh_gnn/~_networks_builder/processor_edges_1_mesh_mlp/~/linear_0"

    with pytest.raises(CheckpointError, match=f"{name}:w .*is missing"):
        check(replace(good, parameters={m: named for m, named in modules.items() if m != name}))
    with pytest.raises(CheckpointError, match=r"must have shape \(48, 16\) .* but has \(3, 3\)"):
        check(replace(good, parameters=modules | {name: modules[name] | {"w": np.zeros((3, 3), np.float32)}}))
    with pytest.raises(CheckpointError, match="extra:w belongs to no part"):
        check(replace(good, parameters=modules | {"extra": {"w": np.zeros(1, np.float32)}}))
    with pytest.raises(CheckpointError, match=r"grid2mesh_gnn.*must have shape \(4, 32\)"):
        check(replace(good, architecture=good.architecture.model_copy(update={"latent_size": 32})))
