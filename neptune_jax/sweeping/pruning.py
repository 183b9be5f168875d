"""Which trials to give up early, because others were better after the same number of epochs."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence

from neptune_jax.sweeping.objectives import Curve, Objective, read_curve
from neptune_jax.sweeping.trials import DONE, Trial

PEERS = 4  # other trials that the median rule needs
REDUCTION = 3  # asha: one trial in so many goes on from each rung


def median(curve: Curve, others: Iterable[Curve]) -> str:
    """Returns why a trial is to be given up, or ''. The rule of Golovin et al. (Vizier, 2017).

    It is given up if its best value so far is worse than the median of the best values that the
    others had after the same number of epochs. Trials that have not been that far do not count, and
    there must be four that do. None is given up before it has trained for an epoch.
    """
    best = curve.best(curve.epoch)
    found = [value for other in others if (value := other.best(curve.epoch)) is not None]
    if best is None or curve.epoch < 1 or len(found) < PEERS:
        return ''
    middle = statistics.median(found)
    if curve.sign * best >= curve.sign * middle:
        return ''
    return (
        f'{best:.4f} after {curve.epoch:.3g} epochs is worse than the median {middle:.4f} of '
        f'{len(found)} others'
    )


def asha(curve: Curve, others: Iterable[Curve]) -> str:
    """Returns why a trial is to be given up, or ''.

    Asynchronous successive halving (Li et al., 2020) in the form that stops trials: after 1, 3, 9,
    ... epochs a trial goes on if it is in the best third of all that have been that far, itself
    included. Of fewer than three trials none is given up.
    """
    if curve.epoch < 1:
        return ''
    rung = _rung(curve.epoch)
    best = curve.best(rung)
    found = [value for other in others if (value := other.best(rung)) is not None]
    count = len(found) + 1
    if best is None or count < REDUCTION:
        return ''
    better = sum(curve.sign * value > curve.sign * best for value in found)
    if better < count // REDUCTION:
        return ''
    return f'{best:.4f} after {rung:.3g} epochs: {better} of {count} trials were better'


def _rung(epoch):
    """Returns the last of 1, 3, 9, ... epochs that have passed."""
    return float(REDUCTION ** math.floor(math.log(epoch, REDUCTION) + 1e-9))


# The rules, with the epoch that each compares at. A trial is judged once there.
RULES: dict[str, tuple[Callable, Callable]] = {
    'median': (median, lambda epoch: epoch),
    'asha': (asha, _rung),
}


class Pruner:
    """Judges trials while they train, by what all run directories hold."""

    def __init__(self, rule: str, objective: Objective) -> None:
        """Starts with no trial judged.

        Args:
            rule: a key of RULES.
            objective: what trials are compared by.
        """
        self._rule, self._judged_at = RULES[rule]
        self._objective = objective
        self._judged: dict[str, float] = {}  # the last epoch, by the trial's name
        self._done: dict[str, Curve] = {}  # of trials that train no more

    def reason(self, trial: Trial, trials: Sequence[Trial]) -> str:
        """Returns why a trial that trains is to be given up; '' if it is not, or was judged before.

        Args:
            trial: the trial.
            trials: all trials of the sweep; `trial` may be among them.
        """
        curve = read_curve(trial, self._objective)
        if not 1 <= curve.epoch < curve.length:
            return ''
        epoch = self._judged_at(curve.epoch)
        if epoch <= self._judged.get(trial.name, 0):
            return ''
        self._judged[trial.name] = epoch
        return self._rule(curve, [self._curve(each) for each in trials if each.name != trial.name])

    def _curve(self, trial):
        if trial.name not in self._done:
            curve = read_curve(trial, self._objective)
            if trial.status not in DONE:
                return curve
            self._done[trial.name] = curve
        return self._done[trial.name]
