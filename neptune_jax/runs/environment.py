"""Where a run took place: versions, hardware, devices, git commit, command line."""

import contextlib
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'tensorflow-datasets', 'numpy')


def collect(parallel: Any, data: dict) -> dict:
    """Returns the content of environment.json.

    Args:
        parallel: devices.drivers.Parallel.
        data: a dict that identifies the data.
    """
    return {
        'command': sys.argv,
        **machine(),
        'packages': {name: metadata.version(name) for name in _PACKAGES},
        'platform': platform.platform(),
        'devices': [device.device_kind for device in parallel.devices],
        'driver': parallel.driver,
        'git': _git(),
        'data': data,
    }


def machine() -> dict:
    """Returns the version of Python, the processor and the number of its cores."""
    return {
        'python': platform.python_version(),
        'processor': processor(),
        'cpu_count': os.cpu_count(),
    }


def processor() -> str:
    """Returns the name of the processor, as far as the system tells."""
    with contextlib.suppress(OSError):
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith('model name'):
                return line.split(':', 1)[1].strip()
    return platform.processor() or platform.machine()


def _git():
    """Returns the commit and whether files differ from it; None outside a checkout."""

    def git(*args):
        command = ('git', '-C', str(Path(__file__).parent), *args)
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {'commit': git('rev-parse', 'HEAD'), 'dirty': bool(git('status', '--porcelain'))}
    except (OSError, subprocess.CalledProcessError):
        return None
