"""Learning-rate schedules and the Optax chain, from the config."""

import jax
import optax

from neptune_jax.errors import UserError, choose


def _constant(config, decay_steps, in_steps):
    return optax.constant_schedule(config.learning_rate)


def _step(config, decay_steps, in_steps):
    # Papers count the boundaries from the start of the run; this schedule starts after the warm-up.
    warmup = in_steps(config.warmup, 'optim.warmup')
    boundaries = [in_steps(length, 'optim.decay_at') - warmup for length in config.decay_at]
    if boundaries != sorted(set(boundaries)) or any(boundary <= 0 for boundary in boundaries):
        raise UserError(f'optim.decay_at={config.decay_at} must increase, from after optim.warmup')
    rates = [config.learning_rate * config.decay_factor**n for n in range(len(boundaries) + 1)]
    return optax.join_schedules([optax.constant_schedule(rate) for rate in rates], boundaries)


def _cosine(config, decay_steps, in_steps):
    return optax.cosine_decay_schedule(config.learning_rate, decay_steps)


def _linear(config, decay_steps, in_steps):
    return optax.linear_schedule(config.learning_rate, 0.0, decay_steps)


SCHEDULES = {'constant': _constant, 'step': _step, 'cosine': _cosine, 'linear': _linear}


def create_schedule(config, total_steps, in_steps):
    """Returns a function from the step (0 for the first) to the learning rate.

    Args:
        config: the `optim` group.
        total_steps: steps of the whole run; 'cosine' and 'linear' reach 0 there.
        in_steps: from a length and its field's name to steps (`lengths.in_steps`).

    Raises:
        UserError: an unknown schedule, or a warm-up longer than the run.
    """
    warmup = in_steps(config.warmup, 'optim.warmup')
    if warmup >= total_steps:
        raise UserError(
            f'optim.warmup={config.warmup!r} is {warmup} steps, the whole run only {total_steps}'
        )
    schedule = choose(SCHEDULES, config.schedule, 'optim.schedule')(
        config, total_steps - warmup, in_steps
    )
    if not warmup:
        return schedule
    # The first step has a rate above 0 and the first one after the warm-up has the full rate.
    ramp = optax.linear_schedule(config.learning_rate / (warmup + 1), config.learning_rate, warmup)
    return optax.join_schedules([ramp, schedule], [warmup])


def decay_mask(params):
    """Returns a tree of bools: True for what weight decay shrinks.

    Those are kernels. Biases and the scales of normalisation layers have one dimension and are
    left alone: shrinking them does not regularise the function they are part of.
    """
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _sgd(config, weight_decay):
    momentum = (
        optax.trace(config.momentum, config.nesterov) if config.momentum else optax.identity()
    )
    return optax.chain(weight_decay, momentum)


def _adam(config, weight_decay):
    return optax.chain(weight_decay, optax.scale_by_adam())


def _adamw(config, weight_decay):
    return optax.chain(optax.scale_by_adam(), weight_decay)


OPTIMIZERS = {'sgd': _sgd, 'adam': _adam, 'adamw': _adamw}


def create_optimizer(config, schedule):
    """Returns the Optax chain: clip the gradient, scale it, decay weights, apply the rate.

    Weight decay is L2 regularisation of the loss for 'sgd' and 'adam' (it enters the gradient)
    and decoupled for 'adamw' (Loshchilov and Hutter, 2019, algorithm 2, with the decay
    multiplied by the learning rate, as everywhere in practice).

    Args:
        config: the `optim` group.
        schedule: from the step to the learning rate.

    Raises:
        UserError: an unknown optimizer, or a negative number.
    """
    for field in ('learning_rate', 'momentum', 'weight_decay', 'clip_norm'):
        if not config[field] >= 0:
            raise UserError(f'optim.{field}={config[field]} must not be negative')
    create = choose(OPTIMIZERS, config.name, 'optim.name')
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    decay = (
        optax.add_decayed_weights(config.weight_decay, mask=decay_mask)
        if config.weight_decay
        else optax.identity()
    )
    return optax.chain(clip, create(config, decay), optax.scale_by_learning_rate(schedule))
