"""Which examples train and which are held out: stratified splits, folds and subsets, by a seed."""

import numpy as np

from neptune_jax.errors import UserError


def stratified(
    examples: np.ndarray,
    labels: np.ndarray,
    fraction: float,
    seed: int,
    field: str = 'data.val_fraction',
) -> tuple[np.ndarray, np.ndarray]:
    """Holds out the same fraction of each class.

    Args:
        examples: int[n], the numbers of the examples to split.
        labels: int[N], the label of every example, also of those that are not split.
        fraction: of each class, in [0, 1), rounded to whole examples.
        seed: decides which examples are held out.
        field: the config field that the fraction comes from, for the error message.

    Returns:
        Two increasing arrays that together hold each of the examples once: the rest, and those
        that are held out (none if the fraction is 0).

    Raises:
        UserError: a fraction outside [0, 1), or one that leaves a side empty.
    """
    if not 0 <= fraction < 1:
        raise UserError(f'{field}={fraction} must be at least 0 and below 1')
    classes = _shuffled_classes(examples, labels, seed)
    counts = [round(fraction * len(members)) for members in classes]
    held_out = np.sort(
        np.concatenate([members[:n] for members, n in zip(classes, counts, strict=True)])
    )
    rest = np.setdiff1d(examples, held_out)
    if not len(rest) or (fraction and not len(held_out)):
        raise UserError(
            f'{field}={fraction} of {len(examples)} training examples leaves '
            f'{len(rest)} to train and {len(held_out)} held out; neither may be empty'
        )
    return rest, held_out


def fold(
    examples: np.ndarray, labels: np.ndarray, number: int, folds: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Divides examples into folds, over which each class is spread evenly, and holds out one.

    Args:
        examples, labels, seed: as for `stratified`.
        number: of the fold that is held out, from 0.
        folds: the number of folds, at least 2.

    Returns:
        Two increasing arrays: the examples of all other folds, and those that are held out.

    Raises:
        UserError: a fold that does not exist or has no examples.
    """
    if folds < 2 or not 0 <= number < folds:
        raise UserError(
            f'data.fold={number} of data.folds={folds}: there must be at least two folds, and '
            'they count from 0'
        )
    # The examples are dealt like cards, class after class without a new start. So the sizes of the
    # folds differ by at most one, in total and in each class.
    dealt = np.concatenate(_shuffled_classes(examples, labels, seed))
    held_out = np.sort(dealt[number::folds])
    if not len(held_out):
        raise UserError(f'data.folds={folds} are more than the {len(examples)} training examples')
    return np.setdiff1d(examples, held_out), held_out


def subset(examples: np.ndarray, labels: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Returns `size` examples of each class, increasing; all of a class that has fewer.

    With the same seed a larger subset contains the smaller ones.
    """
    if size < 1:
        raise UserError(f'data.subset={size} must be at least 1')
    classes = _shuffled_classes(examples, labels, seed)
    return np.sort(np.concatenate([members[:size] for members in classes]))


def _shuffled_classes(examples, labels, seed):
    """Returns the examples of each class in an order that the seed decides."""
    rng = np.random.default_rng(seed)
    own = labels[examples]
    return [rng.permutation(examples[own == label]) for label in np.unique(own)]
