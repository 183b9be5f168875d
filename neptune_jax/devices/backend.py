"""Importing JAX and starting its devices: what the environment has wrong is one line."""

import contextlib
import os
import re

from neptune_jax.errors import UserError, one_line

# The variables that decide what JAX starts, by the beginning of their names.
_DECISIVE = ('JAX_PLATFORM', 'JAX_NUM_CPU_DEVICES', 'CUDA_VISIBLE_DEVICES', 'XLA_FLAGS')

_MOST_CPU_DEVICES = 4096  # with many more, JAX does not start within minutes

# Values of JAX's settings with which no step can be compiled or no data can be placed.
_REFUSED = {
    'jax_disable_jit': (True,),
    'jax_no_tracing': (True,),
    'jax_no_execution': (True,),
    'jax_use_simplified_jaxpr_constants': (True,),
    'jax_numpy_dtype_promotion': ('strict',),  # Optax needs the standard one
    'jax_transfer_guard': ('disallow', 'disallow_explicit'),
}


def import_jax() -> None:
    """Imports JAX. It does not start a device yet.

    Raises:
        UserError: the environment holds a setting that JAX or XLA does not know, or one with which
            no step can be compiled.
    """
    try:
        import jax
    except Exception as error:
        raise UserError(
            f'JAX cannot be imported: {one_line(error)}; its settings are the variables JAX_* of '
            'the environment'
        ) from error
    for name, refused in _REFUSED.items():
        if getattr(jax.config, name, None) in refused:
            raise UserError(
                f'{name.upper()} is set in the environment to a value with which no training can '
                'run; unset it'
            )
    if jax.config.jax_num_cpu_devices > _MOST_CPU_DEVICES:
        raise UserError(
            f'JAX_NUM_CPU_DEVICES={jax.config.jax_num_cpu_devices} is more than '
            f'{_MOST_CPU_DEVICES:,}'
        )
    if 'XLA_FLAGS' in os.environ:
        _check_xla_flags()


def devices() -> list:
    """Returns JAX's devices. The first call starts them.

    Raises:
        UserError: the devices that the environment asks for are not there.
    """
    import jax

    try:
        return jax.devices()
    except Exception as error:  # RuntimeError, ValueError and AssertionError
        reason = f'JAX finds no device: {one_line(error)}{_decisive_settings()}'
        raise UserError(reason) from error


def _decisive_settings():
    names = sorted(name for name in os.environ if name.startswith(_DECISIVE))
    found = ', '.join(f'{name}={os.environ[name]!r}' for name in names)
    return f'; the environment sets {found}' if found else ''


def _check_xla_flags():
    """Raises UserError if XLA does not accept XLA_FLAGS.

    XLA would end the process without a word of ours. So a copy of the process, in which no device
    is started yet, starts the CPU first. That takes about 20 milliseconds.
    """
    import jax

    receiver, sender = os.pipe()
    process = os.fork()
    if not process:
        os.dup2(sender, 2)
        with contextlib.suppress(Exception):  # a mistake in another setting is found later
            jax.config.update('jax_platforms', 'cpu')
            jax.devices()
        os._exit(0)
    os.close(sender)
    with open(receiver, errors='replace') as file:
        output = file.read()
    if os.waitpid(process, 0)[1]:
        # F1125 14:06:45.841380   25090 parse_flags_from_env.cc:234] Unknown flag in XLA_FLAGS: ...
        found = re.search(r'^[EF]\d.*?\] (.*)', output, re.MULTILINE)
        reason = found[1] if found else 'XLA ends the process'
        raise UserError(f'XLA_FLAGS={os.environ["XLA_FLAGS"]!r} is not accepted: {reason}')
