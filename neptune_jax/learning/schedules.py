"""Learning-rate schedules from the `optim` group: functions from the step to the rate."""

import math
from collections.abc import Callable

import jax
import optax
from ml_collections import ConfigDict

from neptune_jax.errors import UserError, choose_or_import

_LARGEST = 1e38  # learning rate, as in defaults.FIELDS


def _constant(config, decay_steps, in_steps):
    return optax.constant_schedule(config.learning_rate)


def _step(config, decay_steps, in_steps):
    # Papers count the boundaries from the start of the run; this schedule starts after the warm-up.
    warmup = in_steps(config.warmup, 'optim.warmup')
    boundaries = [in_steps(length, 'optim.decay_at') - warmup for length in config.decay_at]
    if boundaries != sorted(set(boundaries)) or any(boundary <= 0 for boundary in boundaries):
        raise UserError(f'optim.decay_at={config.decay_at} must increase, from after optim.warmup')
    # Later ones never come, and may be beyond int32.
    boundaries = [boundary for boundary in boundaries if boundary < decay_steps]
    try:
        factors = [config.decay_factor**n for n in range(len(boundaries) + 1)]
    except OverflowError:
        factors = [math.inf]
    rates = [config.learning_rate * factor for factor in factors]
    is_traced = isinstance(config.learning_rate, jax.Array)  # then it was checked before
    if not is_traced and not max(rates) <= _LARGEST:
        raise UserError(
            f'optim.decay_factor={config.decay_factor} makes the learning rate more than '
            f'{_LARGEST:.0e}'
        )
    return optax.join_schedules([optax.constant_schedule(rate) for rate in rates], boundaries)


def _cosine(config, decay_steps, in_steps):
    return optax.cosine_decay_schedule(config.learning_rate, decay_steps)


def _linear(config, decay_steps, in_steps):
    return optax.linear_schedule(config.learning_rate, 0.0, decay_steps)


# Functions of (the optim group, steps after the warm-up, in_steps) to an Optax schedule that starts
# after the warm-up.
SCHEDULES = {'constant': _constant, 'step': _step, 'cosine': _cosine, 'linear': _linear}


def create_schedule(
    config: ConfigDict, total_steps: int, in_steps: Callable[[str, str], int]
) -> optax.Schedule:
    """Returns a function from the step (0 for the first) to the learning rate.

    Args:
        config: the `optim` group; its learning rate may be traced (learning.numbers). `schedule` is
            a key of SCHEDULES or 'package.module:name' of such a function.
        total_steps: steps of the whole run; 'cosine' and 'linear' reach 0 there.
        in_steps: converts a length, given with the name of its field, to steps
            (`lengths.in_steps`).

    Raises:
        UserError: an unknown schedule, or a warm-up longer than the run.
    """
    warmup = in_steps(config.warmup, 'optim.warmup')
    if warmup >= total_steps:
        raise UserError(
            f'optim.warmup={config.warmup!r} is {warmup} steps, the whole run only {total_steps}'
        )
    create = choose_or_import(SCHEDULES, config.schedule, 'optim.schedule')
    schedule = create(config, total_steps - warmup, in_steps)
    if not warmup:
        return schedule
    # The first step has a rate above 0, and the first one after the warm-up has the full rate.
    ramp = optax.linear_schedule(config.learning_rate / (warmup + 1), config.learning_rate, warmup)
    return optax.join_schedules([ramp, schedule], [warmup])
