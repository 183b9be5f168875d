"""The trained parameters of a run, read without anything but its directory."""

import json
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from neptune_jax.errors import UserError, is_out_of_memory, one_line
from neptune_jax.runs import reader
from neptune_jax.runs.checkpoints import verify


class Weights(NamedTuple):
    """The trained parameters of a run."""

    workdir: str
    step: int
    preprocessing: dict  # data.dataset.Dataset.preprocessing of the training
    params: dict  # the averaged ones if the run kept an average
    batch_stats: dict  # likewise


def read_weights(workdir: str | Path) -> Weights:
    """Returns the Weights of a run's best checkpoint, as NumPy arrays.

    Raises:
        UserError: the directory has no checkpoint, or its best one is damaged.
    """
    step = reader.best_step(workdir)
    if step is None:
        what = ' whose loss is finite' if reader.checkpoint_steps(workdir) else ''
        raise UserError(f'{str(workdir)!r} holds no run with a checkpoint{what}')
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
