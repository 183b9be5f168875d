"""Numbers of a config that a compiled step gets as arguments.

So runs that differ in them alone share one program, which is then compiled once: the seeds and the
learning rates of a sweep.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

Numbers = Mapping[str, Any]  # by the names of the fields: scalars, also traced ones

_OPTIM = ('learning_rate', 'weight_decay', 'momentum', 'clip_norm')


def of(config: ConfigDict) -> dict[str, np.ndarray]:
    """Returns these numbers of a whole config, int32[] or float32[] each.

    A number that is 0 is none of them: it leaves a part of the step out. Neither are those of
    optimizers, schedules and losses of the user's own, which may do anything with a Python number.
    """
    found = {'seed': np.asarray(config.seed, np.int32)}
    if ':' not in config.optim.name + config.optim.schedule:
        values = {f'optim.{name}': config.optim[name] for name in _OPTIM if config.optim[name]}
        found |= {name: np.asarray(value, np.float32) for name, value in values.items()}
    if config.loss.label_smoothing and ':' not in config.loss.name:
        found['loss.label_smoothing'] = np.asarray(config.loss.label_smoothing, np.float32)
    return found


def substitute(optim: ConfigDict, numbers: Numbers) -> ConfigDict:
    """Returns the `optim` group with these numbers in the place of its own."""
    optim = optim.copy_and_resolve_references()
    with optim.unlocked(), optim.ignore_type():
        for name, value in numbers.items():
            if name.startswith('optim.'):
                optim[name.removeprefix('optim.')] = value
    return optim
