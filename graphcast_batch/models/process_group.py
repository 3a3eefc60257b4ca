"""Join processes with one device each, so that JAX computes on all of their devices together."""

import jax


def join(address: str, rank: int, processes: int) -> None:
    """Join the other processes; to be called before any computation.

    Args:
        address: host and port where the first process listens.
        rank: number of this process, from 0.
        processes: number of processes.
    """
    # Of JAX's ways to sum over the CPUs of several processes this one needs nothing installed.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # type: ignore[no-untyped-call] # without types
    jax.distributed.initialize(address, processes, rank)
