"""The images on which two runs differ, as a figure."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from neptune_jax.data.dataset import Dataset
from neptune_jax.reporting import figures, names

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def differences(
    data: Dataset,
    examples: np.ndarray,
    one: Mapping[str, np.ndarray],
    other: Mapping[str, np.ndarray],
    run_names: Sequence[str],
) -> 'Figure':
    """Draws examples that one run classifies correctly and another one does not.

    Half of them are those that only the first run gets right, half those that only the other one
    does; those with the largest difference of the loss first.

    Args:
        data: that the examples belong to.
        examples: int[n], the numbers of the tested examples.
        one, other: `loss`, `prediction` and `confidence` of each example, arrays [n], by each run.
        run_names: of the two runs.
    """
    labels = data.labels[examples]
    right = [run['prediction'] == labels for run in (one, other)]
    gap = np.nan_to_num(other['loss'] - one['loss'])
    shown, counts = [], []
    for sign, only in ((1, right[0] & ~right[1]), (-1, right[1] & ~right[0])):
        found = np.flatnonzero(only)
        counts.append(len(found))
        shown.append(found[np.argsort(-sign * gap[found], kind='stable')])
    half = -(-figures.MISTAKES_SHOWN // 2)
    first = max(half, figures.MISTAKES_SHOWN - counts[1])
    chosen = np.concatenate([shown[0][:first], shown[1]])[: figures.MISTAKES_SHOWN]

    def prediction(run, i):
        name = names.shown(data.class_names[run['prediction'][i]], 14, run['prediction'][i])
        return f'{name} {run["confidence"][i]:.0%}'

    captions = [
        f'A {prediction(one, i)}\nB {prediction(other, i)}\n'
        f'is {names.shown(data.class_names[labels[i]], 16, labels[i])} (test #{i})'
        for i in chosen
    ]
    a, b = (names.shown(name, 30) for name in run_names)
    title = f'A: {a}, B: {b}; only A is right: {counts[0]:,}, only B: {counts[1]:,}; some of them:'
    return figures.captioned(data.read_images(examples[chosen]), captions, title, lines=3)
