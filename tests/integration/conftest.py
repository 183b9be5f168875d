"""The commands, started as a user starts them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from neptune_jax.testing import xla

ROOT = Path(__file__).parents[2]


@pytest.fixture
def command(data_dir):
    """Makes the command line and the environment of `python -m neptune_jax.main` with flags."""

    def command(*flags, prefix=(), devices=1, optimized=False):
        args = [*prefix, sys.executable, '-m', 'neptune_jax.main', *map(str, flags)]
        env = os.environ | {
            'XLA_FLAGS': xla.flags(devices, optimized),
            'TFDS_DATA_DIR': str(data_dir),
            'COLUMNS': '200',
        }
        return {'args': args, 'env': env, 'cwd': ROOT}

    return command


@pytest.fixture
def run(command):
    """Runs `python -m neptune_jax.main` with flags to its end."""

    def run(*flags, **kwargs):
        return subprocess.run(
            **command(*flags, **kwargs), capture_output=True, text=True, timeout=300, check=False
        )

    return run
