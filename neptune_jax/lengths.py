"""Lengths of training as a config writes them: '500 steps', '2 epochs', '10000 examples', '5%'."""

import re

from neptune_jax.errors import UserError


def in_seconds(length):
    """Returns `length` in seconds where it is a text such as '60 seconds', else None."""
    match = re.fullmatch(r'\s*(\d+(?:\.\d+)?)\s*seconds?\s*', str(length))
    return match and float(match[1])


def in_steps(length, field, *, total_steps, steps_per_epoch, batch_size):
    """Returns `length` as a whole number of optimizer steps.

    Args:
        length: a number and a unit: `step(s)`, `epoch(s)`, `example(s)`, or `%` of the run.
        field: the config field it came from, for the error message.
        total_steps: steps of the whole run.
        steps_per_epoch: steps of one pass over the training split.
        batch_size: examples a step.

    Raises:
        UserError: where `length` is not such a text.
    """
    match = re.fullmatch(r'\s*(\d+(?:\.\d+)?)\s*(?:(step|epoch|example)s?|%)\s*', str(length))
    if not match:
        raise UserError(
            f'{field}={length!r} is not a length; write it like '
            "'500 steps', '2 epochs', '10000 examples' or '5%'"
        )
    steps_per_unit = {
        'step': 1,
        'epoch': steps_per_epoch,
        'example': 1 / batch_size,
        None: total_steps / 100,
    }
    return round(float(match[1]) * steps_per_unit[match[2]])
