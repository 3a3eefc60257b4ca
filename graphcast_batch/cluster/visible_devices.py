"""Ask JAX which devices it sees, in a process of its own, since asking takes the devices and may end the process."""

import json
import os
import re
import subprocess
import sys
from typing import Final

_PROBE_SECONDS: Final = 120.0
_DEVICES: Final = "import jax, json; print(json.dumps([[d.platform, d.device_kind] for d in jax.local_devices()]))"
_FATAL: Final = re.compile(r"^F\d{4} [^\]]*\] (.*)$", re.MULTILINE)
"""XLA's message when it ends the process (absl's log format); hundreds of lines with its known flags may follow."""
_FLAGS: Final = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "JAX_PLATFORMS")
"""Environment variables that can keep JAX from starting."""
_HARMLESS: Final = ("", "cpu")
"""Values of these variables that cannot; workers without a GPU are given the last one."""


def visible_devices() -> tuple[tuple[tuple[str, str], ...], str]:
    """Return platform and kind of each device that JAX sees in this environment, and why it sees none; else empty."""
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    command = [sys.executable, "-c", _DEVICES]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return (), str(error)
    if done.returncode:
        return (), _reason(done.stderr) or f"it ended with {done.returncode}"
    return tuple((name, kind) for name, kind in json.loads(done.stdout.splitlines()[-1])), ""


def _reason(text: str) -> str:
    """Return why a process failed, by its output, with the environment variables that may be the cause."""
    fatal = _FATAL.search(text)
    reason = fatal[1] if fatal else (text.strip().splitlines() or [""])[-1]
    named = [f"{name}={os.environ[name]}" for name in _FLAGS if os.environ.get(name, "") not in _HARMLESS]
    return f"{reason}; correct or unset {' or '.join(named)}" if reason and named else reason
