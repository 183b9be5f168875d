"""Settings that every command makes before it imports JAX, so that it starts and runs fast."""

import ctypes
import hashlib
import os
import re
import warnings
from importlib import metadata
from pathlib import Path

# Numbers of options of mallopt in malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8

# They make bfloat16 convolutions use AMX, the matrix instructions of recent Intel processors.
_AMX_FLAGS = '--xla_cpu_use_onednn=true --xla_cpu_experimental_onednn_custom_call=true'


def prepare() -> None:
    """Caches compiled programs on the disk, and keeps freed memory.

    The environment variable JAX_COMPILATION_CACHE_DIR takes precedence. JAX reads it when it is
    imported. Called after that, or without a home folder to write to, this function caches no
    programs.
    """
    _keep_compiled_programs()
    _keep_freed_memory()


def prepare_bfloat16() -> None:
    """Turns AMX on for bfloat16, if the processor has it. Call it before JAX computes anything.

    The environment variable XLA_FLAGS takes precedence. Programs in float32 would gain nothing, and
    XLA cannot cache a program that it compiles with these flags.
    """
    if 'XLA_FLAGS' not in os.environ and _knows_amx():
        os.environ['XLA_FLAGS'] = _AMX_FLAGS
        # Each start compiles such programs again. JAX would warn of it each time.
        message = 'Error writing persistent compilation cache entry'
        warnings.filterwarnings('ignore', message=message)


def _keep_compiled_programs():
    os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.1')
    try:
        cache = Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache', 'neptune_jax/xla').expanduser()
    except RuntimeError:  # nothing says where the home folder is
        return
    existing = next(filter(os.path.exists, (cache, *cache.absolute().parents)))
    if not os.access(existing, os.W_OK):  # JAX would warn of each program
        return
    # Hosts may share the folder. A program may use instructions that another processor lacks.
    instructions = re.search('^flags.*$', _cpuinfo(), re.MULTILINE)
    digest = hashlib.sha256(instructions[0].encode() if instructions else b'').hexdigest()
    os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(cache / digest[:8]))


def _keep_freed_memory():
    # XLA allocates the scratch memory of a step and frees it again, each step. glibc returns blocks
    # of that size to the kernel, which clears each page when it is touched again.
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_ARENA_MAX, 1)


def _knows_amx():
    # XLA aborts the process if it does not know a flag. Before 0.12 these flags gained nothing.
    version = tuple(int(part) for part in metadata.version('jaxlib').split('.')[:2])
    return (0, 12) <= version < (0, 13) and 'amx_bf16' in _cpuinfo()


def _cpuinfo():
    try:
        return Path('/proc/cpuinfo').read_text()
    except OSError:
        return ''
