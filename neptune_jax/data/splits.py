"""Which examples train, which validate, and which are left out of an experiment."""

import numpy as np

from neptune_jax.errors import UserError


def stratified(examples, labels, fraction, seed, field='data.val_fraction'):
    """Splits examples so that each class gives the same fraction of its own.

    Args:
        examples: int[n], indices of the examples to split.
        labels: int[N], of all examples.
        fraction: of each class, in [0, 1); rounded to whole examples.
        seed: which ones.
        field: the config field the fraction came from, for the error message.

    Returns:
        Two increasing arrays of indices that together hold each example once: the rest, and the
        held-out ones (none where the fraction is 0).

    Raises:
        UserError: a fraction outside [0, 1), or one that leaves a side empty.
    """
    if not 0 <= fraction < 1:
        raise UserError(f'{field}={fraction} must be at least 0 and below 1')
    rest, held_out = [], []
    for members in _shuffled_classes(examples, labels, seed):
        cut = round(fraction * len(members))
        held_out.append(members[:cut])
        rest.append(members[cut:])
    rest, held_out = np.sort(np.concatenate(rest)), np.sort(np.concatenate(held_out))
    if not len(rest) or (fraction and not len(held_out)):
        raise UserError(
            f'{field}={fraction} of {len(examples)} training examples leaves '
            f'{len(rest)} to train and {len(held_out)} held out; neither may be empty'
        )
    return rest, held_out


def fold(examples, labels, number, folds, seed):
    """Splits examples into all folds but one, and that one; each class is spread evenly.

    Args:
        examples, labels, seed: as for `stratified`.
        number: which fold is held out, from 0.
        folds: how many there are, at least 2.

    Raises:
        UserError: a fold that does not exist, or that is empty.
    """
    if folds < 2 or not 0 <= number < folds:
        raise UserError(
            f'data.fold={number} of data.folds={folds}: there must be two folds at least, and '
            'they count from 0'
        )
    # Where one class ends in its round of the folds, the next goes on: folds differ by one at most.
    dealt = np.concatenate(_shuffled_classes(examples, labels, seed))
    held_out = np.sort(dealt[number::folds])
    if not len(held_out):
        raise UserError(f'data.folds={folds} are more than the {len(examples)} training examples')
    return np.setdiff1d(examples, held_out), held_out


def subset(examples, labels, size, seed):
    """Returns `size` examples of each class, increasing; all of a class that has no more."""
    if size < 1:
        raise UserError(f'data.subset={size} must be at least 1')
    classes = _shuffled_classes(examples, labels, seed)
    return np.sort(np.concatenate([members[:size] for members in classes]))


def _shuffled_classes(examples, labels, seed):
    rng = np.random.default_rng(seed)
    own = labels[examples]
    return [rng.permutation(examples[own == label]) for label in np.unique(own)]
