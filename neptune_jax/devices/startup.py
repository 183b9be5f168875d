"""What every command sets before it imports JAX, so that it starts fast and runs fast."""

import ctypes
import hashlib
import os
import re
from importlib import metadata
from pathlib import Path

# Numbers of options of mallopt in malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8

# They make bfloat16 convolutions use AMX, the matrix instructions of newer Intel processors.
_AMX_FLAGS = '--xla_cpu_use_onednn=true --xla_cpu_experimental_onednn_custom_call=true'


def prepare():
    """Keeps compiled programs and freed memory for later; turns AMX on where there is any.

    What the environment already says, JAX_COMPILATION_CACHE_DIR and XLA_FLAGS, is respected. JAX
    reads the first when it is imported: called later, as by measurements that are to compile anew,
    this keeps no programs.
    """
    _keep_compiled_programs()
    _keep_freed_memory()
    if 'XLA_FLAGS' not in os.environ and _knows_amx():
        os.environ['XLA_FLAGS'] = _AMX_FLAGS


def _keep_compiled_programs():
    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache', 'neptune_jax/xla')
    # A program may hold instructions that the processor of another host, which shares it, lacks.
    instructions = re.search('^flags.*$', _cpuinfo(), re.MULTILINE)
    digest = hashlib.sha256(instructions[0].encode() if instructions else b'').hexdigest()
    os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(cache / digest[:8]))
    os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.1')


def _keep_freed_memory():
    # XLA asks for a step's scratch memory and frees it again, each step. glibc gives blocks as
    # large as that back to the kernel, which fills each page with zeros when it is next touched.
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_ARENA_MAX, 1)


def _knows_amx():
    # An XLA that does not know a flag ends the process; before 0.12 they gained nothing.
    version = tuple(int(part) for part in metadata.version('jaxlib').split('.')[:2])
    return (0, 12) <= version < (0, 13) and 'amx_bf16' in _cpuinfo()


def _cpuinfo():
    try:
        return Path('/proc/cpuinfo').read_text()
    except OSError:
        return ''
