"""Processes with a device each become one that computes on all of them."""

import jax


def join(address: str, rank: int, processes: int) -> None:
    """Joins the other processes; to be called before any computation.

    Args:
        address: host and port where the first of them listens.
        rank: of this process, from 0.
        processes: how many there are.
    """
    # Of JAX's ways to sum up over CPUs of several processes the one that needs nothing installed.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # type: ignore[no-untyped-call] # without types
    jax.distributed.initialize(address, processes, rank)
