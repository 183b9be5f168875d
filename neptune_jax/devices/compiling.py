"""Compiling programs for devices, without the fusions that XLA's CPU backend gets wrong."""

from typing import Any

import jax


def compile_lowered(lowered: jax.stages.Lowered, options: dict[str, Any]) -> jax.stages.Compiled:
    """Compiles a lowered program."""
    return lowered.compile(compiler_options=options)
