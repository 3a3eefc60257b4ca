import gzip
import os
import pickle
import re
import struct
from collections import OrderedDict
from dataclasses import replace

import haiku
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
import yaml
from numpy._core.numeric import _frombuffer

import graphcast_batch as gb
from graphcast_batch.app import converting
from graphcast_batch.cli import main
from graphcast_batch.errors import CheckpointError, ConfigError, TaskError
from graphcast_batch.models.graphcast.checkpoint import load_checkpoint
from tests.models.conftest import FOLDER

PUBLISHED = FOLDER / "small_13" / "checkpoint.npz"
MODULE, NAME = "mesh_gnn/~_networks_builder/encoder_edges_mesh_mlp/~/linear_0", "w"


@pytest.fixture(scope="module")
def published():
    return load_checkpoint(PUBLISHED)


@pytest.fixture
def weights(published):
    return {module: dict(named) for module, named in published.parameters.items()}


@pytest.fixture
def convert(tmp_path):
    """Write an object as a pickle, or bytes as they are, and convert it."""

    def call(held, protocol=4, **options):
        source = tmp_path / "member1.pkl"
        source.write_bytes(held if isinstance(held, bytes) else pickle.dumps(held, protocol))
        return gb.convert_checkpoint(source, tmp_path / "made.npz", **{"architecture": PUBLISHED, **options})

    return call


def assert_same(path, checkpoint):
    found = load_checkpoint(path)
    assert (found.architecture, found.task) == (checkpoint.architecture, checkpoint.task)
    assert found.parameters.keys() == checkpoint.parameters.keys()
    for module, named in checkpoint.parameters.items():
        for name, value in named.items():
            assert found.parameters[module][name].tobytes() == value.tobytes(), f"{module}:{name}"


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_pickled_weights_become_a_checkpoint_with_the_same_bits(protocol, convert, weights, published, tmp_path):
    done = convert(weights, protocol)

    assert_same(tmp_path / "made.npz", published)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made.npz", "member1.pkl"]
    assert done.path == tmp_path / "made.npz"
    assert done.parameters == sum(value.size for named in weights.values() for value in named.values())
    assert (done.left_out, done.sha256) == ((), load_checkpoint(done.path).sha256)


def test_the_pickles_of_numpy_1_are_read(convert, weights, published, tmp_path):
    content = pickle.dumps(weights, 3)  # in which names are lines, so that one can be put for another
    assert content.count(b"cnumpy._core.multiarray\n_reconstruct\n") == 1

    convert(content.replace(b"numpy._core", b"numpy.core"))

    assert_same(tmp_path / "made.npz", published)


def as_jax(weights):
    return {module: {name: jnp.asarray(value) for name, value in named.items()} for module, named in weights.items()}


def changed(change):
    return lambda weights: {
        module: {name: change(value) for name, value in named.items()} for module, named in weights.items()
    }


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize(
    "form",
    [
        as_jax,
        haiku.data_structures.to_immutable_dict,
        lambda weights: OrderedDict((module, OrderedDict(named)) for module, named in weights.items()),
        changed(np.asfortranarray),
        changed(lambda value: value.astype(">f4")),
        changed(lambda value: value.astype(np.float64)),
    ],
    ids=["jax", "haiku", "ordered", "fortran", "big-endian", "float64"],
)
def test_every_form_of_the_same_weights_gives_the_same_bits(form, protocol, convert, weights, published, tmp_path):
    convert(form(weights), protocol)

    assert_same(tmp_path / "made.npz", published)


@pytest.mark.parametrize("rate", [1e-3, optax.warmup_cosine_decay_schedule(0.0, 1e-5, 2, 9)], ids=["fixed", "schedule"])
def test_the_state_of_a_training_is_left_out_and_named(rate, convert, weights, published, tmp_path):
    held = as_jax(weights)
    training = {
        "params": held,
        "opt_state": optax.adamw(rate).init(held),
        "step": 7,
        "train_loss": 0.5,
        "val_loss": np.float32(0.25),
    }

    done = convert(training)

    assert_same(tmp_path / "made.npz", published)
    assert done.left_out == ("opt_state", "step", "train_loss", "val_loss")


def test_name_and_checksum_of_the_pickle_are_stored_unless_a_text_is_given(convert, weights, tmp_path):
    done = convert(weights)
    stored = load_checkpoint(done.path)

    assert re.fullmatch(
        r"weights of member1\.pkl, a pickle with the sha256 [0-9a-f]{64}, converted by graphcast-batch \S+",
        stored.description,
    )
    assert stored.license == "member1.pkl states no license"

    done.path.unlink()
    convert(weights, description="the first member", license="CC-BY-NC-SA-4.0")
    stored = load_checkpoint(done.path)
    assert (stored.description, stored.license) == ("the first member", "CC-BY-NC-SA-4.0")


def test_task_and_architecture_are_taken_from_files_of_either_kind(convert, weights, published, tmp_path):
    (tmp_path / "sizes.yaml").write_text(yaml.safe_dump(published.architecture.model_dump()))
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(published.task.model_dump(mode="json")))

    for task in ("GraphCast_small", PUBLISHED, tmp_path / "task.yaml"):
        done = convert(weights, architecture=tmp_path / "sizes.yaml", task=task)
        assert set(done.task.input_variables) == set(published.task.input_variables)
        assert done.architecture == published.architecture
        done.path.unlink()


def test_what_is_asked_for_wrongly_is_refused_before_the_pickle_is_read(convert, published, tmp_path):
    sizes = tmp_path / "sizes.yaml"
    sizes.write_text(yaml.safe_dump(published.architecture.model_dump()))

    with pytest.raises(ConfigError, match=r"a task must be given, because .*sizes\.yaml is no checkpoint"):
        convert({}, architecture=sizes)
    with pytest.raises(ConfigError, match=r"the task must be one of GraphCast, .*, or a file, but is GraphCast_tiny"):
        convert({}, task="GraphCast_tiny")
    with pytest.raises(ConfigError, match=r"nowhere\.npz does not exist"):
        convert({}, architecture=tmp_path / "nowhere.npz")
    fields = {"input_variables": [], "forcing_variables": [], "target_variables": ["salinity"], "pressure_levels": []}
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(fields))
    with pytest.raises(TaskError, match="salinity"):
        convert({}, task=tmp_path / "task.yaml")
    (tmp_path / "made.npz").write_bytes(b"mine")
    with pytest.raises(ConfigError, match=r"made\.npz must not exist yet"):
        convert({})
    assert (tmp_path / "made.npz").read_bytes() == b"mine"


def test_a_checkpoint_that_does_not_read_back_is_not_kept(convert, weights, monkeypatch, tmp_path):
    save = converting.save_checkpoint

    def damaging(checkpoint, path):
        parameters = {module: {name: value + 1 for name, value in named.items()} for module, named in weights.items()}
        save(replace(checkpoint, parameters=parameters), path)

    monkeypatch.setattr(converting, "save_checkpoint", damaging)
    with pytest.raises(CheckpointError, match=r"made\.npz must hold what was written"):
        convert(weights)
    assert [path.name for path in tmp_path.iterdir()] == ["member1.pkl"]


FLOAT = np.dtype("f4")


class Call:
    """Pickles as a call, and as setting the state of what it returned."""

    def __init__(self, function, *arguments, state=None):
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.call


def array_of(*state):
    """Pickles as NumPy's arrays do, with any state."""
    function, arguments, _ = np.ones(1).__reduce__()
    return Call(function, *arguments, state=state)


def with_weight(weights, value):
    weights[MODULE][NAME] = value
    return weights


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: np.where(w == w.max(), np.nan, w).astype(np.float32), "must be finite"),
        (lambda w: w + np.inf, "must be finite"),
        (lambda w: w.astype(np.float64) + 1e-12, "is float64 and has values that float32 cannot hold"),
        (lambda w: np.full(w.shape, 1e300), "is float64 and has values that float32 cannot hold"),
        (lambda w: np.ones(w.shape, np.int32), "must be float16, float32 or float64, but is 'i4'"),
        (lambda w: np.ones(w.shape, bool), "must be float16, float32 or float64, but is 'b1'"),
        (lambda w: w.astype(complex), "must be float16, float32 or float64, but is 'c16'"),
        (lambda w: w.astype(ml_dtypes.bfloat16), r"holds 'ml_dtypes\.bfloat16', which was not called"),
        (lambda w: w.astype(object), "holds an array of type 'O8' whose values are of type list"),
        (
            lambda w: w.astype("f4,f4"),
            r"must be float16, float32 or float64, but is 'V8'|sets the state of a value of type dtype",
        ),
        (lambda w: w.T, r"linear_0:w must have shape \(4, 16\) .* but has \(16, 4\)"),
        (lambda w: w[0, 0], r"linear_0:w must have shape .* but has \(\)"),
        (
            lambda w: array_of(1, (4, 16), FLOAT, False, b"1234"),
            r"must have 256 bytes for its shape \(4, 16\), but has 4",
        ),
        (lambda w: array_of(1, (2**40,), FLOAT, False, b""), r"must have shape \(4, 16\) .* has \(1099511627776,\)"),
        (lambda w: w.tolist(), "must be an array, but is none"),
        (lambda w: None, "must be an array, but is none"),
    ],
)
def test_weights_that_are_no_finite_numbers_of_the_right_shape_are_refused(change, message, convert, weights):
    with pytest.raises(CheckpointError, match=message):
        convert(with_weight(weights, change(weights[MODULE][NAME])))


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (lambda w: w.pop(MODULE) and w, r"the parameter mesh_gnn.*linear_0:w of shape \(4, 16\) is missing"),
        (lambda w: w | {"other": {"w": np.ones(2, np.float32)}}, "other:w belongs to no part"),
        (lambda w: w | {"other": {}, MODULE: np.ones(2)}, "must be a dict of arrays"),
        (lambda w: {"params": 3}, "must hold a dict of modules as params"),
        (lambda w: {"model": w}, r"'model':'\S+' must be an array"),
        (lambda w: [w], "must hold a dict of modules, but holds a value of type list"),
        (lambda w: {3: w}, "must have text of at most 200 characters as keys, but one key is of type int"),
        (lambda w: {"x" * 201: w}, "but one key is text of 201"),
        (lambda w: {(1, 2): w}, "but one key is of type tuple"),
    ],
)
def test_what_is_no_mapping_of_modules_of_the_network_is_refused(held, message, convert, weights):
    with pytest.raises(CheckpointError, match=message):
        convert(held(weights))


def key_within_key(depth):
    """The pickle of a dict whose key is a pair of equal pairs, and so on: Python would hash 2**depth of them."""
    pairs = b"".join(b"q" + bytes([k]) + b"h" + bytes([k]) + b"\x86" for k in range(depth))
    return b"\x80\x04})" + pairs + b"Ns."


NDARRAY = b"cnumpy\nndarray\n"
EMPTY = b"cnumpy.core.multiarray\n_reconstruct\n" + NDARRAY + b"K\x00\x85C\x01b\x87R"
HOSTILE = {
    "a program is started": (Call(os.system, "touch {}"), "holds 'posix.system', which was not called"),
    "code is evaluated": (Call(eval, "1"), r"holds 'builtins.eval'"),
    "a function of numpy is called": (Call(np.load, "x"), r"holds 'numpy.load'"),
    "a function is made an array": (Call(np.ndarray, (10**12,)), r"holds numpy\.ndarray of something else"),
    "a dotted name": (b"\x80\x04X\x05\x00\x00\x00numpyX\x0e\x00\x00\x00dtype.__init__\x93.", r"'numpy.dtype.__init__'"),
    "a name with a control character": (b"\x80\x04cnumpy\nx\x1b[31m\n.", r"'numpy\.x\\x1b\[31m'"),
    "a persistent id": (b"\x80\x04K\x01Q.", "holds the operation BINPERSID"),
    "an extension code": (b"\x80\x04\x82\x01.", "holds the operation EXT1"),
    "a buffer out of band": (b"\x80\x05\x97.", "holds the operation NEXT_BUFFER"),
    "a set, whose items are hashed": ({1}, "holds the operation EMPTY_SET"),
    "a key that is hashed for ever": (key_within_key(60), "but one key is of type tuple"),
    "an instance": (yaml.YAMLError(), r"holds 'yaml.error.YAMLError'"),
    "attributes of what is allowed": (
        b"\x80\x04" + NDARRAY + b"N}X\x07\x00\x00\x00__new__K\x01s\x86b.",
        "sets the state of a value of type name",
    ),
    "attributes of a dict": (b"\x80\x04}}X\x01\x00\x00\x00aK\x01sb.", "sets the state of a value of type dict"),
    "a memo of 64 GiB": (
        b"\x80\x04Nr\xff\xff\xff\xff.",
        "must hold a dict of modules, but holds a value of type NoneType",
    ),
    "a memo that was never filled": (b"\x80\x04h\x07.", "is truncated or damaged"),
    "bytes without end": (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.", "is truncated or damaged"),
    "a frame without end": (b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.", "holds a value of type NoneType"),
    "an empty stack": (b"\x80\x04.", "must end with one object, but ends with 0"),
    "two objects": (b"\x80\x04NN.", "must end with one object, but ends with 2"),
    "operands that are missing": (b"\x80\x04s.", "an operation lacks its operands"),
    "a mark that is missing": (b"\x80\x04}u.", "is truncated or damaged"),
    "a key without a value": (b"\x80\x04}(X\x01\x00\x00\x00au.", "is truncated or damaged"),
    "items of a number": (b"\x80\x04K\x01K\x02a.", "a list is needed where a value of type int stands"),
    "a call of a number": (b"\x80\x04K\x01)R.", "a name is needed where a value of type int stands"),
    "text that is no UTF-8": (b"\x80\x04X\x01\x00\x00\x00\xff.", "is truncated or damaged"),
    "an operation that weights do not need": (b"\x80\x04}0.", "holds the operation POP"),
    "more operations than weights need": (b"\x80\x04" + b"N" * 500_001 + b".", "at most 500000 operations"),
    "lists within lists": (b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".", "but holds a value of type list"),
    "a list within itself": (b"\x80\x04]\x94h\x00a.", "but holds a value of type list"),
    "an array without values": (b"\x80\x04" + EMPTY + b".", "an array has no values"),
    "an array that fills itself": (b"\x80\x04" + EMPTY + b"q\x00h\x00b.", "sets the state of a value of type array"),
    "a shape that is no number": (array_of(1, (None,), FLOAT, False, b""), "the shape of an array"),
    "a negative shape": (array_of(1, (-1,), FLOAT, False, b""), "numbers from 0 to"),
    "a shape of thousands of digits": (array_of(1, (10**5000,), FLOAT, False, b""), "numbers from 0 to"),
    "a shape of thousands of numbers": (array_of(1, 5000 * (1,), FLOAT, False, b""), "up to 64 numbers"),
    "a state of an array that is short": (array_of(1, (1,)), "the state of an array"),
    "a buffer of another order": (Call(_frombuffer, b"", FLOAT, (0,), "A"), "in the order C or F, but one has 'A'"),
    "a buffer that is a number": (Call(_frombuffer, 1, FLOAT, (0,), "C"), "whose values are of type int"),
    "an array of JAX that calls another function": (
        b"\x80\x04cjax._src.array\n_reconstruct_array\n(cnumpy\ndtype\n)(t}tR.",
        r"holds jax\._src\.array\._reconstruct_array of something else",
    ),
    "nothing": (b"", "must be a pickle of protocol 3 to 5, but is none"),
    "text": (b"weights", "must be a pickle of protocol 3 to 5, but is none"),
    "gzip": (gzip.compress(pickle.dumps({})), "compressed by gzip; unpack it first"),
    "a checkpoint": (PUBLISHED.read_bytes(), "needs no conversion"),
    "protocol 0": (pickle.dumps({"a": 1}, 0), "must be a pickle of protocol 3 to 5, but is none, or of an older"),
    "protocol 1": (pickle.dumps({"a": 1}, 1), "must be a pickle of protocol 3 to 5, but is none, or of an older"),
    "protocol 2": (pickle.dumps({"a": 1}, 2), "must be a pickle of protocol 3 to 5, but is of protocol 2"),
    "a protocol to come": (b"\x80\x09N.", "must be a pickle of protocol 3 to 5, but is of protocol 9"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_whatever_is_no_data_is_refused_by_name_and_nothing_is_done(kind, convert, tmp_path):
    held, message = HOSTILE[kind]

    with pytest.raises(CheckpointError, match=message) as refused:
        convert(held)

    assert "member1.pkl" in str(refused.value)
    assert len(str(refused.value)) < 1000
    assert [path.name for path in tmp_path.iterdir()] == ["member1.pkl"]


def test_a_call_beside_sound_weights_is_refused_too(convert, weights):
    with pytest.raises(CheckpointError, match=r"holds 'posix\.system', which was not called"):
        convert({"params": weights, "opt_state": Call(os.system, "true")})


def test_a_pickle_that_was_cut_is_refused_wherever_that_was(convert, weights):
    content = pickle.dumps(weights)

    for kept in [*range(12), *range(40, len(content), len(content) // 30), len(content) - 1]:
        with pytest.raises(CheckpointError, match=r"damaged|is none, or of an older protocol"):
            convert(content[:kept])


def test_a_file_larger_than_weights_and_optimizer_is_refused_unread(convert, weights, tmp_path):
    content = pickle.dumps(weights)
    with pytest.raises(CheckpointError, match=r"must have at most \d+ bytes for the \d+ parameters"):
        convert(content + bytes(20_000_000))
    (tmp_path / "member1.pkl").unlink()
    with pytest.raises(CheckpointError, match=r"member1\.pkl is not a file"):
        gb.convert_checkpoint(tmp_path / "member1.pkl", tmp_path / "made.npz", architecture=PUBLISHED)


def test_the_command_prints_what_it_wrote(weights, tmp_path, capsys):
    source, out = tmp_path / "member1.pkl", tmp_path / "params" / "member1.npz"
    source.write_bytes(pickle.dumps({"params": weights, "step": 3}))
    words = ["convert-checkpoint", str(source), "--architecture", str(PUBLISHED), "--to", str(out)]

    with pytest.raises(SystemExit, match="0"):
        main([*words, "--license", "CC0-1.0"])

    printed = capsys.readouterr().out
    checkpoint = load_checkpoint(out)
    assert "network: mesh size 2, latent size 16" in printed
    assert "task: 11 target variables, 13 pressure levels\nleft out: step\n" in printed
    assert printed.endswith(f"{out}\n{out.stat().st_size} bytes, sha256 {checkpoint.sha256}\n")
    assert checkpoint.license == "CC0-1.0"
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert "must not exist yet" in capsys.readouterr().err
