import json
import os
import subprocess
import sys
import warnings

import pytest

from neptune_jax.devices import startup

REPORT = """
import json, os, sys
from neptune_jax.devices import startup
startup.prepare()
startup.prepare_bfloat16()
import jax
from neptune_jax.training import loop
print(json.dumps({
    'modules': [name for name in sys.modules if '.' not in name],
    'cache': jax.config.jax_compilation_cache_dir,
    'flags': os.environ.get('XLA_FLAGS'),
}))
"""


def started(**environ):
    """Returns what a fresh process reports after it has prepared."""

    own = {'JAX_COMPILATION_CACHE_DIR', 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', 'XLA_FLAGS'}
    kept = {name: value for name, value in os.environ.items() if name not in own}
    process = subprocess.run(
        [sys.executable, '-c', REPORT],
        capture_output=True,
        text=True,
        env=kept | environ,
        check=True,
    )
    return json.loads(process.stdout)


def test_compiled_programs_are_kept_and_nothing_heavy_is_imported(tmp_path):
    report = started(XDG_CACHE_HOME=str(tmp_path))
    assert report['cache'].startswith(f'{tmp_path}/neptune_jax/xla/')
    for module in ('matplotlib', 'grain', 'sklearn', 'tensorflow', 'torch', 'neptune'):
        assert module not in report['modules']


def test_what_the_environment_says_is_respected(tmp_path):
    report = started(
        JAX_COMPILATION_CACHE_DIR=str(tmp_path), XLA_FLAGS='--xla_cpu_multi_thread_eigen=true'
    )
    assert (report['cache'], report['flags']) == (
        str(tmp_path),
        '--xla_cpu_multi_thread_eigen=true',
    )


@pytest.mark.parametrize(
    ('version', 'flags', 'knows'),
    [
        ('0.12.0.1', 'avx512f amx_bf16', True),
        ('0.12.0.1', 'avx512f', False),
        ('0.10.2', 'amx_bf16', False),
        ('0.13.0', 'amx_bf16', False),
    ],
)
def test_amx_is_turned_on_where_processor_and_xla_know_it(monkeypatch, version, flags, knows):
    monkeypatch.setattr(startup, '_cpuinfo', lambda: f'flags : {flags}\n')
    monkeypatch.setattr(startup.metadata, 'version', lambda package: version)
    assert startup._knows_amx() == knows


def test_amx_is_turned_on_for_bfloat16_alone(monkeypatch):
    monkeypatch.setattr(startup, '_knows_amx', lambda: True)
    for name in ('XLA_FLAGS', 'JAX_COMPILATION_CACHE_DIR'):
        monkeypatch.delenv(name, raising=False)
    with warnings.catch_warnings():
        startup.prepare()
        assert 'XLA_FLAGS' not in os.environ
        startup.prepare_bfloat16()
        assert 'onednn' in os.environ['XLA_FLAGS']


def test_processors_with_other_instructions_share_no_programs(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    folders = set()
    for flags in ('fpu avx2', 'fpu avx2 avx512f', 'fpu avx2'):
        monkeypatch.setattr(
            startup, '_cpuinfo', lambda f=flags: f'model : 1\nflags : {f}\nbugs :\n'
        )
        # Set first, so that the value of before comes back after the test.
        monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', '')
        monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR')
        startup._keep_compiled_programs()
        folders.add(os.environ['JAX_COMPILATION_CACHE_DIR'])
    assert len(folders) == 2
