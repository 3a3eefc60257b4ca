"""Give JAX the description of an accelerator that is not here, so that XLA compiles for it."""

import os
from typing import Any, Final

from graphcast_batch.errors import PackageError
from graphcast_batch.models.accelerators import Accelerator, CudaChip

ENVIRONMENT: Final = {
    "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "-1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "XLA_FLAGS": "--xla_gpu_autotune_level=0",
}
"""Environment variables of a process that compiles for absent devices: nothing looks for a device, no kernel is tried
out. JAX reads them once, so they must be set before it is imported."""


def absent_device(accelerator: Accelerator) -> Any:  # noqa: ANN401 - JAX gives its devices no public type
    """Return a device that programs can be compiled for, but not run on, in a process with `ENVIRONMENT`.

    Raises:
        PackageError: the plugin of its platform is not installed.
    """
    chip = accelerator.chip
    return _tpu(chip) if isinstance(chip, str) else _gpu(accelerator, chip)


def environment() -> dict[str, str]:
    """Return the environment of this process with `ENVIRONMENT`; flags of XLA that it sets stay."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} {ENVIRONMENT['XLA_FLAGS']}".strip()
    return {**os.environ, **ENVIRONMENT, "XLA_FLAGS": flags}


def _tpu(topology: str) -> Any:  # noqa: ANN401
    from jax.experimental import topologies

    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices[0]
    except (RuntimeError, ImportError, FileNotFoundError) as error:
        raise _absent("TPU", "libtpu", "tpu", error) from error


def _gpu(accelerator: Accelerator, chip: CudaChip) -> Any:  # noqa: ANN401
    from jax._src import xla_bridge
    from jax.experimental import topologies

    try:
        xla_bridge.discover_pjrt_plugins()
        description = _gpu_description(accelerator, chip)
        found = topologies.get_topology_desc(platform="cuda", target_config=description, topology="1x1x1")
        return found.devices[0]
    except (RuntimeError, ImportError, FileNotFoundError, NotImplementedError) as error:
        raise _absent("GPU", "JAX's CUDA plugin", "cuda12", error) from error


def _absent(what: str, plugin: str, extra: str, error: Exception) -> PackageError:
    return PackageError(
        f"compiling for a {what} needs {plugin}, but it cannot be used here ({error or type(error).__name__}); if "
        f'it is not installed: pip install "graphcast-batch[{extra}]"'
    )


def _gpu_description(accelerator: Accelerator, chip: CudaChip) -> str:
    """Return XLA's description of a GPU, a GpuTargetConfigProto as text; it has the limits that these GPUs share."""
    major, minor = chip.compute_capability
    return f"""
    gpu_device_info {{
      threads_per_block_limit: 1024  threads_per_warp: 32  threads_per_core_limit: 2048  fpus_per_core: 128
      block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
      registers_per_core_limit: 65536  registers_per_block_limit: 65536
      shared_memory_per_block: 49152
      shared_memory_per_block_optin: {chip.shared_bytes - 2**10}
      shared_memory_per_core: {chip.shared_bytes}
      core_count: {chip.multiprocessors}
      l2_cache_size: {chip.cache_bytes}
      clock_rate_ghz: {chip.clock_ghz}
      memory_bandwidth: {int(accelerator.bandwidth)}
      device_memory_size: {accelerator.memory_bytes}
      cuda_compute_capability {{ major: {major} minor: {minor} }}
    }}
    platform_name: "CUDA"
    dnn_version_info {{ major: 9 minor: 8 }}
    runtime_version {{ major: 12 minor: 9 }}
    device_description_str: "{accelerator.title}"
    """
