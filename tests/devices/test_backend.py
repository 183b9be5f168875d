"""What the environment has wrong for JAX is one line, in a process of its own for each setting."""

import os
import re
import subprocess
import sys

import pytest

SCRIPT = """
from neptune_jax import cli
from neptune_jax.devices import backend
with cli.reported():
    backend.import_jax()
    print(len(backend.devices()))
"""


@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        (
            'JAX_PLATFORMS',
            'tpu',
            "JAX finds no device: .*'tpu'.*; the environment sets JAX_PL",
        ),
        (
            'JAX_PLATFORMS',
            'x',
            "JAX finds no device: .*; the environment sets JAX_PLATFORMS='x'",
        ),
        ('JAX_NUM_CPU_DEVICES', '0', "JAX finds no device: .*JAX_NUM_CPU_DEVICES='0'"),
        ('JAX_NUM_CPU_DEVICES', '100000', 'JAX_NUM_CPU_DEVICES=100000 is more than 4,096'),
        ('JAX_ENABLE_X64', 'perhaps', "JAX cannot be imported: .*'perhaps'"),
        (
            'JAX_DISABLE_JIT',
            '1',
            'JAX_DISABLE_JIT is set in the environment to a value',
        ),
        (
            'JAX_NUMPY_DTYPE_PROMOTION',
            'strict',
            'JAX_NUMPY_DTYPE_PROMOTION is set in',
        ),
        ('XLA_FLAGS', '--xla_none=1', "XLA_FLAGS='--xla_none=1' is not accepted: .*--xla_none"),
        ('XLA_FLAGS', 'none', "XLA_FLAGS='none' is not accepted: Could not open file"),
    ],
)
def test_a_setting_that_jax_cannot_use_is_refused(name, value, message):
    result = start({name: value})
    assert result.returncode == 2
    assert result.stderr.count('\n') == 1, result.stderr
    assert re.match(f'error: {message}', result.stderr), result.stderr


def test_flags_that_xla_knows_count_in_this_process_too():
    result = start({'XLA_FLAGS': '--xla_force_host_platform_device_count=3'})
    assert (result.returncode, result.stdout, result.stderr) == (0, '3\n', '')


def start(environ):
    kept = {name: value for name, value in os.environ.items() if name != 'XLA_FLAGS'}
    command = [sys.executable, '-c', SCRIPT]
    return subprocess.run(command, env=kept | environ, capture_output=True, text=True, check=False)
