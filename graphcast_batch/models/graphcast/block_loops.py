"""Work through arrays block by block, with bfloat16 numbers between the blocks as numbers or as their bits.

On a CPU, XLA converts a whole array of bfloat16 to float32 and back whenever a loop reads or writes a block of it (jax
0.10.2): time grows with the square of the grid, and float32 copies of all such arrays are kept. Of bits, uint16, the
block alone is converted. Bits have no gradient, so that training takes numbers.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

Carry = TypeVar("Carry")
_BITS = jnp.uint16


def as_bits(tree: Any) -> Any:  # noqa: ANN401 - a pytree
    """Return a tree with the bits of its bfloat16 arrays, and all others as they are."""
    return jax.tree.map(lambda a: _bits(a) if a.dtype == jnp.bfloat16 else a, tree)


def as_numbers(tree: Any) -> Any:  # noqa: ANN401 - a pytree
    """Return a tree with numbers in place of bits, the reverse of `as_bits`."""
    return jax.tree.map(lambda a: jax.lax.bitcast_convert_type(a, jnp.bfloat16) if a.dtype == _BITS else a, tree)


def scan_blocks(block: Callable[[Carry, Any], tuple[Carry, Any]], start: Carry, xs: Any) -> tuple[Carry, Any]:  # noqa: ANN401 - pytrees
    """Do the same as `jax.lax.scan`; where there are bits among ``xs``, results are stacked as bits too.

    Args:
        block: called with numbers.
        start: what the first call begins with.
        xs: arrays of (block, ...).
    """
    bits = any(leaf.dtype == _BITS for leaf in jax.tree.leaves(xs))

    def body(carry: Carry, x: Any) -> tuple[Carry, Any]:  # noqa: ANN401 - pytrees
        carry, y = block(carry, as_numbers(x))
        return carry, as_bits(y) if bits else y

    # A gradient computes each block again: the values inside all blocks of a step at 0.25° are some 240 GB.
    return jax.lax.scan(jax.checkpoint(body, prevent_cse=False), start, xs)


def map_blocks(block: Callable[[Any], Any], xs: Any) -> Any:  # noqa: ANN401 - pytrees
    """Do the same as `jax.lax.map`, with bits as in `scan_blocks`."""
    return scan_blocks(lambda _, x: (None, block(x)), None, xs)[1]


@jax.custom_jvp
def _bits(numbers: Array) -> Array:
    return jax.lax.bitcast_convert_type(numbers, _BITS)


@_bits.defjvp
def _refuse(*_: object) -> tuple[Array, Array]:
    """Refuse a gradient, which JAX would take to be 0."""
    raise TypeError("a gradient needs bfloat16 arrays as numbers, but they are bits; fold the network without bits")
