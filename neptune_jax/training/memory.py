"""Out of memory, on a device or the host: one line with what was asked for and what to reduce."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
from ml_collections import ConfigDict

from neptune_jax.errors import UserError, is_out_of_memory, one_line
from neptune_jax.experiment import Experiment


@contextlib.contextmanager
def explained(config: ConfigDict, experiment: Experiment | None = None) -> Iterator[None]:
    """Turns an error of NumPy, JAX or the system that says so into a UserError.

    Args:
        config: of the training.
        experiment: what was made from it, if that succeeded.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reason, needs = one_line(error, 200), _needs(config, experiment)
        raise UserError(f'out of memory ({reason}); {needs}') from error


def _needs(config, experiment):
    asked = [f'{group}.batch_size={config[group].batch_size}' for group in ('train', 'eval')]
    ways = ['reduce train.batch_size or eval.batch_size', 'raise train.accumulate']
    if experiment is None:
        ways += ['use smaller images (data.image_size)', 'set data.mode=stream']
    else:
        data = experiment.dataset
        if data.mode == 'device':
            asked.append(f'{mebibytes(data.images.nbytes)} of images on each device')
            ways.append('set data.mode=host')
        elif data.mode == 'host':
            asked.append(f'{mebibytes(data.images.nbytes)} of images in host memory')
            ways.append('set data.mode=stream')
        size = mebibytes(nbytes(experiment.abstract_state))
        asked.append(f'{size} of parameters, optimizer state and averages on each device')
        ways.append('make the network of config.model smaller')
    return f'this training asks for {", ".join(asked)}; {", ".join(ways[:-1])}, or {ways[-1]}'


def nbytes(tree: Any) -> int:
    """Returns the size of a pytree of arrays, or of their shapes and types."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def mebibytes(size: int) -> str:
    """Returns a number of bytes as text."""
    return f'{size / 2**20:,.2f} MiB'
