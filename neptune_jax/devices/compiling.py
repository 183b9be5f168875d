"""Compiling programs without the fusions that XLA's CPU backend computes wrongly.

On a CPU, XLA hands parts of a program to the library YNNPACK. Some of these fusions return wrong
numbers. `docs/numerics.md` describes which ones, and how they were found.
"""

import logging
import re
from collections.abc import Callable
from typing import Any

import jax
import jaxlib

_log = logging.getLogger(__name__)

# YNNPACK computes single products and convolutions; XLA computes everything else.
SEPARATE = {
    'xla_cpu_experimental_ynn_fusion_type': (
        'LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION,LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT'
    )
}

_PRODUCTS = {'dot', 'convolution'}
_REDUCTIONS = {'reduce', 'reduce-window'}

# An instruction in the text of a program: name, dimensions, operation and operands.
_INSTRUCTION = re.compile(r'\s*(?:ROOT )?%?([\w.-]+) = \w+\[([\d,]*)\]\S* ([\w-]+)\((.*?)\)')


def compile_lowered(lowered: jax.stages.Lowered, options: dict[str, Any]) -> jax.stages.Compiled:
    """Compiles a lowered program, without fusions that may return wrong numbers.

    A program for a CPU that has such a fusion is compiled a second time.

    Args:
        lowered: the program, which may call an exported one.
        options: compiler options of XLA.

    Raises:
        RuntimeError: XLA makes such a fusion even when it is told not to.
    """
    compiled = lowered.compile(compiler_options=options)
    fusions = _unsafe_fusions_of(compiled)
    if not fusions:
        return compiled
    _log.debug('compiling again without the fusions %s', ', '.join(fusions))
    compiled = lowered.compile(compiler_options=options | SEPARATE)
    fusions = _unsafe_fusions_of(compiled)
    if fusions:
        raise RuntimeError(
            f'XLA makes fusions that may return wrong numbers: {", ".join(fusions)}. Set '
            "XLA_FLAGS='--xla_cpu_experimental_ynn_fusion_type=' or use another version of jaxlib."
        )
    return compiled


def jit(function: Callable, **options: Any) -> Any:
    """Returns `jax.jit(function)` that never makes such fusions on a CPU, whatever it compiles.

    It is for functions that JAX compiles when they are called. `compile_lowered` makes faster
    programs, because it keeps the other fusions of YNNPACK.

    Args:
        function: what to compile.
        **options: further arguments of `jax.jit`.
    """
    on_cpu = jax.default_backend() == 'cpu'
    return jax.jit(function, compiler_options=SEPARATE if on_cpu else None, **options)


def _unsafe_fusions_of(compiled):
    if compiled.runtime_executable().client.platform != 'cpu':
        return []
    return unsafe_fusions(compiled.as_text())


def unsafe_fusions(hlo: str, jaxlib_version: tuple[int, ...] | None = None) -> list[str]:
    """Returns the names of the YNNPACK fusions in a program that may return wrong numbers.

    Args:
        hlo: the optimised program, as `jax.stages.Compiled.as_text` returns it.
        jaxlib_version: the version that compiled it, the installed one by default.
    """
    calls = [line for line in hlo.splitlines() if '"__ynn_fusion"' in line]
    if not calls:
        return []
    computations = {}
    for text in hlo.split('\n}\n'):
        header, _, body = text.strip().rpartition('\n\n')[2].partition(' {\n')
        computations[header.partition(' ')[0].lstrip('%')] = body
    names = [re.findall(r'\bcalls=%?([\w.-]+)', line)[0] for line in calls]
    version = jaxlib_version or jaxlib.version.__version_info__
    return [name for name in names if _is_unsafe(computations[name], version)]


def _is_unsafe(computation, version):
    lines = computation.splitlines()
    instructions = [match.groups() for match in map(_INSTRUCTION.match, lines) if match]
    if len(instructions) < len(lines):
        return True  # a form of instruction that is not known here
    operations = {operation for _, _, operation, _ in instructions} - {'parameter', 'constant'}
    if not operations & _REDUCTIONS:
        return False
    if 'reduce' in operations and operations & _PRODUCTS:
        return True
    rank = {name: len(dims.split(',')) if dims else 0 for name, dims, _, _ in instructions}
    if version < (0, 12):
        if 'reduce-window' in operations and len(operations) > 1:
            return True
        if max(rank.values()) >= 7:
            return True
    # The values that YNNPACK keeps as fewer numbers than they have elements.
    broadcast = set()
    for name, _, operation, operands in instructions:
        arrays = [operand for operand in re.findall(r'%([\w.-]+)', operands) if rank[operand]]
        if operation in _PRODUCTS | _REDUCTIONS:
            if broadcast.intersection(arrays):
                return True
        elif operation in ('broadcast', 'iota') or (arrays and broadcast.issuperset(arrays)):
            broadcast.add(name)
    return False
