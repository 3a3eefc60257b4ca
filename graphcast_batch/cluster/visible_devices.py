"""Ask JAX which devices it sees, in a process of its own: whoever asks takes the device, and may die of it."""

import json
import os
import re
import subprocess
import sys
from typing import Final

_PROBE_SECONDS: Final = 120.0
_DEVICES: Final = "import jax, json; print(json.dumps([[d.platform, d.device_kind] for d in jax.local_devices()]))"
_FATAL: Final = re.compile(r"^F\d{4} [^\]]*\] (.*)$", re.MULTILINE)
"""How XLA reports why it ends the process (absl's log format); the flags that it knows may follow, by the hundred."""
_FLAGS: Final = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "JAX_PLATFORMS")
"""Variables that can keep JAX from starting."""
_HARMLESS: Final = ("", "cpu")
"""Values of them that cannot, the last of which workers without a GPU are given."""


def visible_devices() -> tuple[tuple[tuple[str, str], ...], str]:
    """Platform and kind of each device that JAX sees in this environment; and why it sees none, if so."""
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    asking = [sys.executable, "-c", _DEVICES]
    try:
        told = subprocess.run(
            asking, env=environment, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return (), str(error)
    if told.returncode:
        return (), _reason(told.stderr) or f"it ended with {told.returncode}"
    return tuple((name, kind) for name, kind in json.loads(told.stdout.splitlines()[-1])), ""


def _reason(text: str) -> str:
    """What a process that has failed says of it, with the variables that may be the cause."""
    fatal = _FATAL.search(text)
    reason = fatal[1] if fatal else (text.strip().splitlines() or [""])[-1]
    named = [f"{name}={os.environ[name]}" for name in _FLAGS if os.environ.get(name, "") not in _HARMLESS]
    return f"{reason}; mend or unset {' or '.join(named)}" if reason and named else reason
