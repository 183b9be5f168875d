"""Which examples train and which are held out, by a seed: splits, folds and subsets.

The splits of standard data sets are stratified. Those of one's own images depend on each image
alone (`by_content`), because people add images to a folder and remove some.
"""

import hashlib
import math

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
    _check_fraction(fraction, field)
    classes = _shuffled_classes(examples, labels, seed)
    counts = [round(fraction * len(members)) for members in classes]
    held_out = np.sort(
        np.concatenate([members[:n] for members, n in zip(classes, counts, strict=True)])
    )
    rest = np.setdiff1d(examples, held_out)
    if not len(rest) or (fraction and not len(held_out)):
        largest = max(map(len, classes), default=0)
        raise UserError(
            f'{field}={fraction} of {len(examples)} training examples leaves '
            f'{len(rest)} to train and {len(held_out)} held out; neither may be empty, and each '
            f'class is divided by itself: set --config.{field}={_possible(largest, len(rest))}'
        )
    return rest, held_out


def by_content(
    examples: np.ndarray,
    labels: np.ndarray,
    contents: np.ndarray,
    test_fraction: float,
    val_fraction: float,
    seed: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Holds examples out by a hash of their content: to add or remove others moves none of them.

    The hash of an example and the seed is a number u in [0, 1). The example is in the test split
    if u < test_fraction, in the validation split if it is not and
    u < test_fraction + (1 - test_fraction) * val_fraction, and else trains. So equal contents are
    in the same split, and the sizes of the splits vary as those of random draws do.

    From a class with enough different contents, one for each split that is not to be empty, each
    of these gets at least one: the test split the lowest u, then the validation split the next,
    and the highest u trains. Every class trains with at least one. This is the one case in which
    an example may move when others of its class are added or removed; a content that several
    classes have never moves.

    Args:
        examples: int[n], increasing: the numbers of the examples to split.
        labels: int[N], the label of every example, also of those that are not split.
        contents: bytes16[N], the hash of the content of every example.
        test_fraction, val_fraction: in [0, 1); the latter of what is left after the test split.
        seed: decides which examples are held out.

    Returns:
        Three increasing arrays that together hold each of the examples once: those that train,
        those that validate and those that test.

    Raises:
        UserError: a fraction outside [0, 1), or one above 0 that holds nothing out.
    """
    fractions = {'test': test_fraction, 'val': val_fraction}
    for split, fraction in fractions.items():
        _check_fraction(fraction, f'data.{split}_fraction')
    own, u = labels[examples], uniform(contents[examples], seed)
    limits = np.array([test_fraction, test_fraction + (1 - test_fraction) * val_fraction])
    part = np.searchsorted(limits, u, side='right')  # 0: test, 1: validation, 2: training

    _, content = np.unique(u, return_inverse=True)
    pairs = np.unique(np.stack([content, own], axis=1), axis=0)
    of_one_class = (np.bincount(pairs[:, 0]) == 1)[content]
    wanted = np.array([fraction > 0 for fraction in fractions.values()], int)
    for label in np.unique(own):
        members = of_one_class & (own == label)
        values, ranks = np.unique(u[members], return_inverse=True)
        least_test, least_val = wanted if len(values) > wanted.sum() else (0, 0)
        tested, held_out = np.searchsorted(values, limits)
        tested = min(max(tested, least_test), len(values) - 1 - least_val)
        held_out = min(max(held_out, tested + least_val), len(values) - 1)
        part[members] = (ranks >= tested).astype(int) + (ranks >= held_out)

    for number, (split, fraction) in enumerate(fractions.items()):
        if fraction and number not in part:
            raise UserError(
                f'data.{split}_fraction={fraction} of {len(examples)} training images holds none '
                f'out, and no class has {wanted.sum() + 1} different images of its own, one for '
                f'each split; add images, or set --config.data.{split}_fraction=0'
            )
    train, val, test = (examples[part == number] for number in (2, 1, 0))
    return train, val, test


def uniform(contents: np.ndarray, seed: int) -> np.ndarray:
    """Returns float64[n] in [0, 1): the first 53 bits of a hash of each content and the seed.

    Args:
        contents: bytes16[n].
        seed: a different seed gives independent numbers.
    """
    data, size = contents.tobytes(), contents.dtype.itemsize
    suffix = str(seed).encode()
    hashes = b''.join(
        hashlib.blake2b(data[i : i + size] + suffix, digest_size=8).digest()
        for i in range(0, len(data), size)
    )
    return (np.frombuffer(hashes, '>u8') >> 11) / 2.0**53


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
    if folds > len(examples):
        raise UserError(
            f'data.folds={folds} are more than the {len(examples)} training examples; set '
            '--config.data.folds to fewer'
        )
    return np.setdiff1d(examples, held_out), held_out


def subset(examples: np.ndarray, labels: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Returns `size` examples of each class, increasing; all of a class that has fewer.

    With the same seed a larger subset contains the smaller ones.
    """
    if size < 1:
        raise UserError(f'data.subset={size} must be at least 1')
    classes = _shuffled_classes(examples, labels, seed)
    return np.sort(np.concatenate([members[:size] for members in classes]))


def _check_fraction(fraction, field):
    if not 0 <= fraction < 1:
        raise UserError(f'{field}={fraction} must be at least 0 and below 1')


def _possible(largest, rest):
    """Returns which fractions divide the largest class, as a text; `rest`: of a wrong fraction."""
    if largest < 2:
        return '0'
    if rest:
        return f'{math.ceil(100 / largest) / 100} or more, or 0 for no such split'
    return f'{math.floor(100 * (largest - 1) / largest) / 100} or less'


def _shuffled_classes(examples, labels, seed):
    """Returns the examples of each class in an order that the seed decides."""
    rng = np.random.default_rng(seed)
    own = labels[examples]
    return [rng.permutation(examples[own == label]) for label in np.unique(own)]
