"""A search: what Optuna suggests for the next trial, from the run directories of the others.

The study lives in memory, for one question. So there is no storage that a crash could damage, and
trials that were killed are what their directories say.
"""

import itertools
import math
import warnings
from collections.abc import Sequence

import numpy as np

from neptune_jax.errors import UserError
from neptune_jax.runs import files
from neptune_jax.sweeping import objectives
from neptune_jax.sweeping.objectives import Objective
from neptune_jax.sweeping.space import Dimension, Overrides
from neptune_jax.sweeping.trials import Trial

SAMPLERS = ('tpe', 'gp', 'random', 'qmc')
_REPEATS = 20  # questions until a suggestion is new
_MOST_LISTED = 100_000  # points of a finite space, of which one that is new is looked for


def check(sampler: str) -> None:
    """Raises UserError if a library is missing that the sampler needs."""
    try:
        import optuna  # noqa: F401

        if sampler == 'gp':
            import torch  # type: ignore[import-not-found]  # noqa: F401
    except ImportError as error:
        extra = 'torch' if error.name == 'torch' else '"neptune_jax[sweep]"'
        raise UserError(f'--sampler={sampler} needs {error.name}: pip install {extra}') from error


def suggest(
    dimensions: Sequence[Dimension],
    trials: Sequence[Trial],
    number: int,
    *,
    sampler: str,
    objective: Objective,
    seed: int,
) -> Overrides | None:
    """Returns the fields of a new trial, unlike all others; None if all of them exist already.

    The suggestion depends on the other trials as they are now, the seed and the number, and on
    nothing else.

    Args:
        dimensions: the space.
        trials: the other trials.
        number: that of the new one.
        sampler: one of SAMPLERS.
        objective: what is to be made better.
        seed: that of the sweep.
    """
    others = {_key(_params(dimensions, trial.overrides)) for trial in trials}
    known = [_frozen(dimensions, trial, objective) for trial in trials]
    for repeat in range(_REPEATS):
        digits = np.random.SeedSequence([seed, number, repeat]).generate_state(1)
        params = _ask(dimensions, known, number, sampler, objective, seed, int(digits[0]))
        if _key(params) not in others:
            return _overrides(dimensions, params)
        if sampler == 'qmc':
            break
    # Few choices are left: draw one of them.
    remaining = list(itertools.islice(_remaining(dimensions, others), _MOST_LISTED))
    if not remaining:
        return None
    rng = np.random.default_rng([seed, number])
    return _overrides(dimensions, remaining[rng.integers(len(remaining))])


def _ask(dimensions, known, number, sampler, objective, seed, sampler_seed):
    if sampler == 'qmc':
        return _sobol(dimensions, number, seed)
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    samplers = optuna.samplers
    create = {
        'tpe': samplers.TPESampler,  # multivariate, with a constant liar
        'random': samplers.RandomSampler,
        'gp': samplers.GPSampler,
    }[sampler]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of what is experimental in Optuna
        study = optuna.create_study(
            direction='maximize' if objective.sign > 0 else 'minimize',
            sampler=create(seed=sampler_seed),
        )
        study.add_trials(known)
        return study.ask(_distributions(dimensions)).params


def _sobol(dimensions, number, seed):
    """Returns a point of a scrambled Sobol sequence, which fills the space evenly."""
    from scipy.stats import qmc

    sequence = qmc.Sobol(len(dimensions), scramble=True, rng=np.random.default_rng(seed))
    point = sequence.fast_forward(number).random(1)[0] if number else sequence.random(1)[0]
    return {each.name: each.at(u) for each, u in zip(dimensions, point, strict=True)}


def _distributions(dimensions):
    from optuna import distributions

    def one(each):
        if each.choices:
            return distributions.CategoricalDistribution(list(each.choices))
        kind = distributions.IntDistribution if each.is_whole else distributions.FloatDistribution
        return kind(each.low, each.high, log=each.log)

    return {each.name: one(each) for each in dimensions}


def _frozen(dimensions, trial, objective):
    """Returns a trial as Optuna sees it: its state, value and validations are of its directory."""
    from optuna.trial import TrialState, create_trial

    summary, status = trial.summary, trial.status
    states = {'finished': TrialState.COMPLETE, 'pruned': TrialState.PRUNED}
    state, value = states.get(status, TrialState.RUNNING), None
    if status == 'finished':
        value = objective.of_best(summary)
    if status == 'failed' or (status == 'finished' and value is None):
        # A search that ignored failures would suggest what fails, or diverges, again and again.
        state, value = TrialState.COMPLETE, objective.worst
    seen = {}
    if status == 'pruned':
        curve = objectives.read_curve(trial, objective)
        best = curve.best(curve.epoch)
        seen = {math.ceil(curve.epoch): objective.worst if best is None else best}
    return create_trial(
        state=state,
        params=_params(dimensions, trial.overrides),
        distributions=_distributions(dimensions),
        value=value,
        intermediate_values=seen,
    )


def _params(dimensions, overrides):
    """Returns what a sampler has suggested for a trial, from the fields that the trial sets."""
    found = {}
    for each in dimensions:
        value = overrides[each.name]
        if each.choices:
            texts = [text for text, known in each.choices.items() if files.encode(known) == value]
            value = texts[0]
        found[each.name] = value
    return found


def _overrides(dimensions, params):
    return {each.name: files.encode(each.value(params[each.name])) for each in dimensions}


def _key(params):
    return tuple(sorted(params.items()))


def _remaining(dimensions, others):
    """Yields the points of a finite space that no trial has."""
    if math.prod(each.count for each in dimensions) > 100 * _MOST_LISTED:
        return
    axes = [
        list(each.choices) or [each.kind(each.low + i) for i in range(int(each.count))]
        for each in dimensions
    ]
    for point in itertools.product(*axes):
        params = dict(zip((each.name for each in dimensions), point, strict=True))
        if _key(params) not in others:
            yield params
