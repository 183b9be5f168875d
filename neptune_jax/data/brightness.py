"""How bright the prepared images are: splits of two scales are refused, black images named."""

import itertools
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from neptune_jax.data.sources.raw import EXAMPLES_REPORTED
from neptune_jax.data.sources.source import Source
from neptune_jax.data.sources.white import DIM, differ
from neptune_jax.errors import UserError


def check(config: ConfigDict, source: Source, index: dict[str, np.ndarray]) -> list[str]:
    """Compares the brightest pixels of the official splits, whatever their types and files are.

    Numbers of one type are compared before, as they are (sources/white.py).

    Args:
        config: the `data` group.
        source: the Source of the examples.
        index: what `source.index()` returns.

    Returns:
        A note for the screen if two splits cannot be of one scale but `data.white` is set.

    Raises:
        UserError: two splits cannot be of one scale, and `data.white` is not set.
    """
    highs = {split: int(index['high'][part].max()) for split, part in source.splits.items()}
    for one, other in itertools.permutations(highs, 2):
        if differ(highs[one], highs[other]):
            ranges = (
                f'the pixels of {one} lie in 0 to {highs[one]}, those of {other} in 0 to '
                f'{highs[other]} of 255'
            )
            if config.white:
                return [ranges]
            raise UserError(
                f'data.name={config.name!r}: {ranges}, which cannot be of one scale; rescale the '
                'images of one split, or set --config.data.white=255 if both are right'
            )
    return []


def rules(source: Source, index: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns the rule `nearly_black` for data_report.json: images without a pixel above 1 of 255.

    They may be of another scale than the others. In data sets that are all dark, none is named.
    """
    high = index['high'].max(axis=1)
    found = np.flatnonzero(high <= 1)
    if not len(found) or high.max() < DIM:
        return {}
    examples = [source.name(example) for example in found[:EXAMPLES_REPORTED]]
    return {'nearly_black': {'count': len(found), 'examples': examples}}
