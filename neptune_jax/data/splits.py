"""Which examples train and which validate."""

import numpy as np

from neptune_jax.errors import UserError


def stratified(examples, labels, fraction, seed):
    """Splits examples so that each class gives the same fraction of its own.

    Args:
        examples: int[n], indices of the examples to split.
        labels: int[N], of all examples.
        fraction: of each class, in [0, 1); rounded to whole examples.
        seed: which ones.

    Returns:
        Two increasing arrays of indices that together hold each example once: the rest, and the
        held-out ones (none where the fraction is 0).

    Raises:
        UserError: a fraction outside [0, 1), or one that leaves a side empty.
    """
    if not 0 <= fraction < 1:
        raise UserError(f'data.val_fraction={fraction} must be at least 0 and below 1')
    rng = np.random.default_rng(seed)
    rest, held_out = [], []
    for label in np.unique(labels[examples]):
        members = rng.permutation(examples[labels[examples] == label])
        cut = round(fraction * len(members))
        held_out.append(members[:cut])
        rest.append(members[cut:])
    rest, held_out = np.sort(np.concatenate(rest)), np.sort(np.concatenate(held_out))
    if not len(rest) or (fraction and not len(held_out)):
        raise UserError(
            f'data.val_fraction={fraction} of {len(examples)} training examples leaves '
            f'{len(rest)} to train and {len(held_out)} to validate; neither may be empty'
        )
    return rest, held_out
