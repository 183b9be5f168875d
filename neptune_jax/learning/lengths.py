"""Lengths of training as a config writes them: '500 steps', '2 epochs', '5%', '60 seconds'."""

from neptune_jax.errors import UserError
from neptune_jax.fields import parse_length

_UNITS = 'steps epochs examples %'


def in_seconds(length: str) -> float | None:
    """Returns a length such as '60 seconds' in seconds, or None if it has another unit."""
    try:
        return parse_length('', length, 'seconds')[0]
    except UserError:
        return None


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
    number, unit = parse_length(field, length, _UNITS)
    steps_per_unit = {
        'step': 1,
        'epoch': steps_per_epoch,
        'example': 1 / batch_size,
        '%': total_steps / 100,
    }
    return round(number * steps_per_unit[unit])
