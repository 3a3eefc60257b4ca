"""List the accelerators that programs can be compiled for while none is at hand, with what their makers publish."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

_Rates = Mapping[Literal["float32", "bfloat16"], float]

AcceleratorName = Literal["a100-40gb", "a100-80gb", "h100", "h200", "tpu-v5e", "tpu-v5p", "tpu-v6e"]


LANES: Final = 128
"""Numbers to a multiple of which a TPU fills the last axis of each array; other devices store arrays as they are."""


@dataclass(frozen=True)
class CudaChip:
    """What XLA must know of a GPU to compile for it, besides its memory.

    Attributes:
        compute_capability: major and minor number.
        multiprocessors: number of streaming multiprocessors.
        shared_bytes: shared memory of a multiprocessor; a block can have 1 KiB less.
        cache_bytes: second-level cache.
        clock_ghz: highest clock rate.
    """

    compute_capability: tuple[int, int]
    multiprocessors: int
    shared_bytes: int
    cache_bytes: int
    clock_ghz: float


@dataclass(frozen=True)
class Accelerator:
    """An accelerator.

    Attributes:
        title: name as its maker writes it.
        chip: a GPU's sizes, or the name of a TPU's topology of which one chip is used.
        memory_bytes: main memory.
        bandwidth: of the main memory, bytes a second.
        rates: dense matrix products, floating point operations a second, by the precision of the network. Products of
            float32 are computed as JAX does by default: in TF32 on a GPU, in bfloat16 on a TPU.
    """

    title: str
    chip: CudaChip | str
    memory_bytes: int
    bandwidth: float
    rates: _Rates

    @property
    def lanes(self) -> int:
        """Numbers to a multiple of which the last axis of an array is filled."""
        return LANES if isinstance(self.chip, str) else 1

    @property
    def usable_bytes(self) -> int:
        """Bytes that JAX takes, of a GPU three quarters unless ``XLA_PYTHON_CLIENT_MEM_FRACTION`` says otherwise."""
        return self.memory_bytes if isinstance(self.chip, str) else self.memory_bytes * 3 // 4


def _rates(bfloat16: float, float32: float) -> _Rates:
    return MappingProxyType({"bfloat16": bfloat16, "float32": float32})


_AMPERE: Final = CudaChip((8, 0), 108, 164 * 2**10, 40 * 2**20, 1.41)
_HOPPER: Final = CudaChip((9, 0), 132, 228 * 2**10, 50 * 2**20, 1.98)
_AMPERE_RATES, _HOPPER_RATES = _rates(312e12, 156e12), _rates(989.4e12, 494.7e12)

ACCELERATORS: Final[Mapping[AcceleratorName, Accelerator]] = MappingProxyType(
    {
        "a100-40gb": Accelerator("NVIDIA A100 SXM 40 GB", _AMPERE, 40 * 2**30, 1555e9, _AMPERE_RATES),
        "a100-80gb": Accelerator("NVIDIA A100 SXM 80 GB", _AMPERE, 80 * 2**30, 2039e9, _AMPERE_RATES),
        "h100": Accelerator("NVIDIA H100 SXM 80 GB", _HOPPER, 80 * 2**30, 3350e9, _HOPPER_RATES),
        "h200": Accelerator("NVIDIA H200 SXM 141 GB", _HOPPER, 140 * 2**30, 4800e9, _HOPPER_RATES),
        "tpu-v5e": Accelerator("Google TPU v5e", "v5e:2x2", 16 * 2**30, 819e9, _rates(197e12, 197e12)),
        "tpu-v5p": Accelerator("Google TPU v5p", "v5p:2x2x1", 95 * 2**30, 2765e9, _rates(459e12, 459e12)),
        "tpu-v6e": Accelerator("Google TPU v6e", "v6e:2x2x1", 32 * 2**30, 1640e9, _rates(918e12, 918e12)),
    }
)
"""From the makers' data sheets: NVIDIA A100 (2021), H100 and H200 (2024); Google Cloud TPU v5e, v5p and v6e (2025)."""
