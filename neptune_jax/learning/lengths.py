"""Lengths of training as a config writes them: '500 steps', '2 epochs', '5%', '60 seconds'."""

import re

from neptune_jax.errors import UserError


def in_seconds(length: str) -> float | None:
    """Returns a length such as '60 seconds' in seconds, or None if it has another unit."""
    match = re.fullmatch(r'\s*(\d+(?:\.\d+)?)\s*seconds?\s*', str(length))
    return float(match[1]) if match else None


def in_steps(
    length: str, field: str, *, total_steps: int, steps_per_epoch: int, batch_size: int
) -> int:
    """Returns a length as a whole number of optimizer steps.

    Args:
        length: a number and a unit: `step(s)`, `epoch(s)`, `example(s)`, or `%` of the run.
        field: the config field that it comes from, for the error message.
        total_steps: steps of the whole run.
        steps_per_epoch: steps of one pass over the training split.
        batch_size: examples of a step.

    Raises:
        UserError: `length` is no such text.
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
