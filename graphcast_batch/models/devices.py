"""Describe the device that JAX computes on in this process."""

import jax


def backend() -> str:
    """Return the kind of the platform: cpu, gpu or tpu."""
    return jax.default_backend()


def device_kind() -> str:
    """Return the kind of the device, as JAX names it."""
    return str(jax.devices()[0].device_kind)


def device_bytes() -> int:
    """Return the memory of the device in bytes; 0 where JAX does not report it."""
    found = jax.local_devices()[0].memory_stats() or {}
    return int(found.get("bytes_limit", 0))
