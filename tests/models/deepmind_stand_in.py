"""A stand-in for DeepMind's package, which is not on PyPI: modules of its names, and a model that adds 1 each step."""

import importlib
import importlib.machinery
import sys
from contextlib import contextmanager
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

THEIRS = ("weathernext", "graphcast", "xarray_jax")
HERE = f"from {__name__} import"


@contextmanager
def made_up_packages(root, monkeypatch):
    """Gives what installs made-up packages in a folder; what is really installed is hidden, and put back afterwards."""
    root.mkdir()
    real = {name: module for name, module in sys.modules.items() if name.split(".")[0] in THEIRS}
    for name in real:
        del sys.modules[name]
    others = [place for place in sys.path if not any(holds(place, name) for name in THEIRS)]
    monkeypatch.setattr(sys, "path", [str(root), *others])

    def install(name, content="", version=None):
        *folders, module = name.split(".")
        folder = root.joinpath(*folders)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{module}.py").write_text(content)
        if version:
            about = root / f"{folders[0]}-{version}.dist-info"
            about.mkdir()
            (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {folders[0]}\nVersion: {version}\n")
        importlib.invalidate_caches()

    yield install
    for name in [name for name in sys.modules if name.split(".")[0] in THEIRS]:
        del sys.modules[name]
    sys.modules.update(real)


def holds(place, name):
    return importlib.machinery.PathFinder.find_spec(name, [place]) is not None


def install_stand_in(install):
    """Installs a package that DeepMind's forecaster can work with, by the names of version 0.3."""
    names = "GraphCast, ModelConfig, TaskConfig"
    install("weathernext.weathernext1_graph.graphcast", f"{HERE} {names}", version="0.3.0")
    install("weathernext.utils.autoregressive", f"{HERE} Predictor")
    install("weathernext.utils.casting", f"{HERE} Bfloat16Cast")
    install("weathernext.utils.normalization", f"{HERE} InputsAndResiduals")
    install("weathernext.utils.rollout", f"{HERE} chunked_prediction_generator")
    install("xarray_jax", f"{HERE} unwrap_data")


@dataclass
class Fields:
    """Arrays by name, with their dimensions: what a dataset is to a program that JAX compiles."""

    arrays: dict
    dims: dict

    @classmethod
    def of(cls, dataset):
        return cls(
            {name: jnp.asarray(field.values) for name, field in dataset.data_vars.items()},
            {name: field.dims for name, field in dataset.data_vars.items()},
        )

    def __getitem__(self, name):
        return xr.DataArray(np.asarray(self.arrays[name]), dims=self.dims[name])

    def flatten(self):
        names = sorted(self.arrays)
        return [self.arrays[name] for name in names], tuple((name, self.dims[name]) for name in names)

    @classmethod
    def unflatten(cls, dims, arrays):
        return cls({name: array for (name, _), array in zip(dims, arrays, strict=True)}, dict(dims))


jax.tree_util.register_pytree_node(Fields, Fields.flatten, Fields.unflatten)


class ModelConfig:
    def __init__(self, **sizes):
        self.sizes = sizes


class TaskConfig:
    def __init__(self, **variables):
        self.variables = variables


class GraphCast:
    def __init__(self, model_config, task_config):
        assert set(task_config.variables) >= {"input_variables", "target_variables", "pressure_levels"}
        assert model_config.sizes["mesh_size"] >= 0


def Bfloat16Cast(step, enabled):
    assert enabled in (True, False)
    return step


def InputsAndResiduals(step, *, mean_by_level, stddev_by_level, diffs_stddev_by_level):
    return step


def Predictor(step):
    """Each frame is the one before, and 1 more; a target that is no input begins with 0."""

    def predict(inputs, targets_template, forcings):
        made = {}
        for name, dims in targets_template.dims.items():
            template = targets_template.arrays[name]
            last = inputs.arrays[name][:, -1:] if name in inputs.arrays else jnp.zeros_like(template[:, :1])
            leads = jnp.arange(1, template.shape[1] + 1, dtype=template.dtype)
            made[name] = last + leads.reshape(1, -1, *(1,) * (len(dims) - 2))
        return Fields(made, dict(targets_template.dims))

    return predict


def chunked_prediction_generator(predictor_fn, rng, inputs, targets_template, forcings, num_steps_per_chunk):
    """Some steps after the others; the last frame of each chunk is what the next one starts from."""
    inputs = Fields.of(inputs)
    for first in range(0, targets_template.sizes["time"], num_steps_per_chunk):
        chunk = {"time": slice(first, first + num_steps_per_chunk)}
        template, known = Fields.of(targets_template.isel(chunk)), Fields.of(forcings.isel(chunk))
        made = predictor_fn(rng=rng, inputs=inputs, targets_template=template, forcings=known)
        yield made
        fed = {name: made.arrays[name] for name in made.arrays if name in inputs.arrays}
        inputs = Fields(inputs.arrays | fed, inputs.dims)


def unwrap_data(field):
    return field.data
