"""What is said of a program that was compiled for an accelerator that is not here."""

import os
import re
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from graphcast_batch.bench.compile_ahead import measure
from graphcast_batch.bench.compile_process import Request
from graphcast_batch.bench.kernels import kernels, unknown_loops
from graphcast_batch.bench.operation_count import operations
from graphcast_batch.bench.program_text import ProgramText
from graphcast_batch.bench.step_contestant import SIZES
from graphcast_batch.errors import BenchError, PackageError
from graphcast_batch.models.graphs import build_graphs

PROGRAM = """\
HloModule jit_step, is_scheduled=true

FileNames
1 "/somewhere/network.py"

FileLocations
1 {file_name_id=1 function_name_id=1 line=42 end_line=42 column=1 end_column=9}

StackFrames
1 {file_location_id=1 parent_frame_id=1}

%fused_slice (p0: bf16[8,100,4], p1: s32[], p2: bf16[100,4]) -> bf16[100,4] {
  %p0 = bf16[8,100,4]{2,1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %slice = bf16[1,100,4]{2,1,0} dynamic-slice(%p0, %p1, %zero, %zero), dynamic_slice_sizes={1,100,4}
  %flat = bf16[100,4]{1,0} bitcast(%slice)
  %p2 = bf16[100,4]{1,0} parameter(2)
  ROOT %sum = bf16[100,4]{1,0} add(%flat, %p2)
}

%fused_product (a: bf16[100,4], b: bf16[4,6]) -> f32[100,6] {
  %a = bf16[100,4]{1,0} parameter(0)
  %b = bf16[4,6]{1,0} parameter(1)
  ROOT %dot = f32[100,6]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%fused_update (u0: f32[8,100,6], u1: f32[100,6], u2: s32[]) -> f32[8,100,6] {
  %u0 = f32[8,100,6]{2,1,0} parameter(0)
  %u1 = f32[100,6]{1,0} parameter(1)
  %u2 = s32[] parameter(2)
  %one = f32[1,100,6]{2,1,0} bitcast(%u1)
  %none = s32[] constant(0)
  ROOT %put = f32[8,100,6]{2,1,0} dynamic-update-slice(%u0, %one, %u2, %none, %none)
}

%body (state: (s32[], bf16[8,100,4], f32[8,100,6], /*index=3*/bf16[4,6], bf16[100,4])) -> (s32[], bf16[8,100,4]) {
  %state = (s32[], bf16[8,100,4]{2,1,0}, f32[8,100,6]{2,1,0}, bf16[4,6]{1,0}, bf16[100,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %x = bf16[8,100,4]{2,1,0} get-tuple-element(%state), index=1
  %y = f32[8,100,6]{2,1,0} get-tuple-element(%state), index=2
  %w = bf16[4,6]{1,0} get-tuple-element(%state), index=3
  %c = bf16[100,4]{1,0} get-tuple-element(%state), index=4
  %sliced = bf16[100,4]{1,0} fusion(%x, %i, %c), kind=kLoop, calls=%fused_slice, metadata={op_name="a" stack_frame_id=1}
  %product = f32[100,6]{1,0} fusion(%sliced, %w), kind=kCustom, calls=%fused_product
  %updated = f32[8,100,6]{2,1,0} fusion(%y, %product, %i), kind=kLoop, calls=%fused_update
  ROOT %next = (s32[], bf16[8,100,4]{2,1,0}) tuple(%i, %x)
}

%condition (seen: (s32[])) -> pred[] {
  %seen = (s32[]) parameter(0)
  %at = s32[] get-tuple-element(%seen), index=0
  %end = s32[]{:T(128)} constant(8)
  ROOT %less = pred[] compare(%at, %end), direction=LT
}

ENTRY %main (x: bf16[8,100,4], y: f32[8,100,6]) -> f32[8,100,6] {
  %given = bf16[8,100,4]{2,1,0} parameter(0)
  %kept = bf16[8,100,4]{2,1,0:T(8,128)S(1)} copy(%given)
  %begun = (s32[], bf16[8,100,4]{2,1,0}) tuple(%given)
  %loop = (s32[], bf16[8,100,4]{2,1,0}) while(%begun), condition=%condition, body=%body@TRIPS@
  %chip = f32[100,3]{1,0} convolution(%left, %right), dim_labels=bf_io->bf
  %left = f32[100,5]{1,0} parameter(1)
  %right = f32[5,3]{1,0} parameter(2)
  ROOT %out = f32[8,100,6]{2,1,0} negate(%result)
}
"""


ENDS = "constant(8)", "parameter(1)"
"""How the loop's condition knows its end, and how it does not."""


@pytest.mark.parametrize("trips", ["", ', backend_config={"known_trip_count":{"n":"8"}}'], ids=["counted", "told"])
def test_a_kernel_counts_what_it_touches_as_often_as_its_loop_runs(trips):
    found = {kernel.name: kernel for kernel in kernels(ProgramText(PROGRAM.replace("@TRIPS@", trips)))}

    sliced, product, updated = found["sliced"], found["product"], found["updated"]
    assert {kernel.runs for kernel in (sliced, product, updated)} == {8}
    # One of 8 blocks is read and one constant, of 100 x 4 numbers of 2 bytes each, and the number of the block.
    assert (sliced.read, sliced.written, sliced.operations) == (2 * 800 + 4, 800, 0)
    assert (product.read, product.written, product.operations) == (800 + 48, 2400, 2 * 100 * 4 * 6)
    # The array that one block is put into stays where it is.
    assert (updated.read, updated.written, updated.operations) == (2400 + 4, 2400, 0)
    assert (sliced.place, product.place) == ("network.py:42", "")
    # What is copied into the fast memory of a chip is not written to its main one; a TPU's products are convolutions.
    assert (found["kept"].runs, found["kept"].read, found["kept"].written) == (1, 6400, 0)
    assert found["chip"].operations == 2 * 100 * 5 * 3
    assert sliced.seconds(bandwidth=100.0, rate=1.0) == 8 * (1604 + 800) / 100
    assert product.seconds(bandwidth=1e9, rate=100.0) == 8 * 4800 / 100


def test_the_operations_of_a_program_that_xla_compiled_here_are_those_of_its_products():
    def products(x, w):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, length=7)[0]

    text = jax.jit(products).lower(np.zeros((30, 20), np.float32), np.zeros((20, 20), np.float32)).compile().as_text()

    assert sum(kernel.runs * kernel.operations for kernel in kernels(ProgramText(text))) == 7 * 2 * 30 * 20 * 20


def test_text_of_another_notation_is_refused():
    with pytest.raises(BenchError, match="must have an entry, but has none: its notation has changed"):
        ProgramText("module @jit_step {}")


def needed():
    """The products that a step of the tiny network needs, TFLOP."""
    size = SIZES["tiny"]
    graphs = build_graphs(size.architecture, size.grid)
    return operations(size.architecture, size.channels.inputs, size.channels.outputs, graphs) / 1e12


@pytest.mark.parametrize("target", ["tpu-v6e", "h100"])
def test_the_tiny_step_compiles_for_an_absent_accelerator_with_the_products_that_it_needs(target):
    """The platform's plugin must be importable: ``pip install "graphcast-batch[tpu]"`` or ``[cuda12]``."""
    try:
        result = measure(Request(target, "tiny", "bfloat16", "fast", steps=2))
    except PackageError as error:
        pytest.skip(str(error))
    figures = {figure.name: figure.samples[0] for figure in result.figures}

    # Blocks and rows of edges have some empty places, for which products are computed too.
    assert needed() <= figures["matrix products, a step"] < 1.15 * needed()
    (bound,) = (figure for figure in result.figures if figure.name == "least time of all kernels, a step")
    assert bound.samples[0] >= bound.limit > 0  # of the products alone
    assert any(re.search(r" of network\.py:\d+, \d+ times", name) for name in figures)
    # The state and frames of two steps at least.
    size, channels = SIZES["tiny"], SIZES["tiny"].channels
    frames = size.grid.size * 4 * (2 * channels.width(channels.carried) + 2 * channels.outputs)
    assert figures["peak memory by XLA"] > frames / 1e9


@pytest.mark.slow
def test_an_update_of_the_weights_compiles_for_an_absent_gpu_with_about_three_times_the_products_of_a_step():
    try:
        result = measure(Request("h100", "tiny", "bfloat16", "fast", steps=2, training=True))
    except PackageError as error:
        pytest.skip(str(error))
    figures = {figure.name: figure.samples[0] for figure in result.figures}

    # Forwards, forwards again for the gradient, and backwards for values and for weights.
    assert 3 * needed() < figures["matrix products, a step"] < 5 * needed()
    assert "--training --steps 2" in result.command


def test_a_loop_of_unknown_length_counts_once_and_is_told():
    known, unknown = (ProgramText(PROGRAM.replace("@TRIPS@", "").replace("constant(8)", end)) for end in ENDS)

    assert (unknown_loops(known), unknown_loops(unknown)) == (0, 1)
    assert {kernel.runs for kernel in kernels(unknown)} == {1}


def test_an_interpreter_for_deepminds_package_that_would_not_run_is_refused(command):
    refused = command("bench", "model", "--against", "none", "--python", "/usr/bin/python3")

    assert refused.returncode == 2
    assert "it runs DeepMind's package" in re.sub(r"[\s│]+", " ", refused.stderr)


def test_training_is_not_lean(command):
    refused = command("bench", "compile", "--for", "h100", "--training", "--memory", "lean")

    assert refused.returncode == 2
    unframed = re.sub(r"[\s│]+", " ", refused.stderr)
    assert "training always uses the memory as fast does" in unframed


@pytest.mark.skipif(find_spec("libtpu") is not None, reason="libtpu is installed")
def test_a_platform_whose_plugin_is_missing_is_named_with_what_to_install(command):
    refused = command("bench", "compile", "--for", "tpu-v5e", "--size", "tiny", env=os.environ)

    assert refused.returncode == 1
    assert re.search(r'compiling for a TPU needs libtpu, .* pip install "graphcast-batch\[tpu\]"', refused.stderr)
