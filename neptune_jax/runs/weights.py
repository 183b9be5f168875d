"""The trained parameters of a run, read without anything but its directory."""

import json
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from neptune_jax.errors import UserError, is_out_of_memory, one_line
from neptune_jax.runs import files, reader
from neptune_jax.runs.checkpoints import verify


class Weights(NamedTuple):
    """The trained parameters of a run."""

    workdir: str
    step: int
    preprocessing: dict  # data.dataset.Dataset.preprocessing of the training
    params: dict  # the averaged ones if the run kept an average
    batch_stats: dict  # likewise


def read_weights(workdir: str | Path, checkpoint: str | int = 'best') -> Weights:
    """Returns the Weights of a run's checkpoint, as NumPy arrays.

    Args:
        workdir: the run directory.
        checkpoint: 'best', 'last', or the step of one.

    Raises:
        UserError: the directory has no such checkpoint, or it is damaged.
    """
    files.check_characters(workdir)
    step = _step(workdir, checkpoint)
    directory = Path(workdir).absolute() / 'checkpoints'
    folder = directory / str(step)
    try:
        verify(directory, step)
        with ocp.StandardCheckpointer() as checkpointer:
            state = jax.tree.map(np.asarray, checkpointer.restore(folder / 'state'))
        data = json.loads((folder / 'data' / 'metadata').read_text())
    except Exception as error:  # damaged files make the libraries below raise anything
        if is_out_of_memory(error):
            raise
        raise UserError(
            f'{folder} is damaged ({one_line(error)}); resume that run, which uses an earlier '
            'checkpoint, or remove that folder'
        ) from error
    params = state.get('ema') or state['params']
    # Earlier versions did not average the batch statistics.
    batch_stats = state.get('ema_batch_stats') or state.get('batch_stats') or {}
    return Weights(str(workdir), step, data, params, batch_stats)


def _step(workdir, checkpoint):
    steps = reader.checkpoint_steps(workdir)
    if checkpoint == 'best' or not steps:
        step = reader.best_step(workdir)
        if step is None:
            what = ' whose loss is finite' if steps else ''
            raise UserError(f'{str(workdir)!r} holds no run with a checkpoint{what}')
        return step
    if checkpoint == 'last':
        return steps[-1]
    if not str(checkpoint).isdecimal() or int(checkpoint) not in steps:
        raise UserError(
            f'{str(workdir)!r} has no checkpoint {checkpoint!r}; choose best, last, or one of the '
            f'steps {", ".join(map(str, steps))}'
        )
    return int(checkpoint)
