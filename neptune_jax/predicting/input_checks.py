"""Whether images look like those of the training, by three figures that are often wrong.

White on black against black on white, another shape, colour against grey: a network answers all the
same, and is often wrong with confidence.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from neptune_jax.data.sources.images import Converted

# How far outside of the training's range a mean grey is, as a share of the range.
CLEARLY_OUTSIDE = 0.1  # where there are so few images that chance could be the reason:
FEW = 8
FAR_OUTSIDE = 0.5  # for what is only darker or brighter: photographs vary
STRETCHED = 1.1  # an aspect ratio further out than by this factor differs


def differences(inputs: dict[str, Any], images: Sequence[Converted]) -> list[str]:
    """Returns how images clearly differ from those of the training, a line each; [] if they do not.

    Args:
        inputs: what the training images looked like (data/inputs.py); {} if it is not known.
        images: some of the new ones, spread over all.
    """
    if not inputs or not images:
        return []
    found = [_grey(inputs['grey'], images), _aspect_ratio(inputs['aspect_ratio'], images)]
    return [each for each in [*found, _colour(inputs['colour'], images)] if each]


def _most(differ):
    return differ.mean() > 0.5


def _grey(training, images):
    greys = np.array([each.image.mean() / 255 for each in images])
    low, high = training['low'], training['high']
    mean = greys.mean()
    figures = (
        f'mean grey {mean:.2f} (0 is black, 1 white), in the training {training["mean"]:.2f}, '
        f'and {low:.2f} to {high:.2f} in 98% of its images'
    )
    inverted = np.abs(1 - greys - training['mean']) < np.abs(greys - training['mean'])
    outside = np.maximum(low - greys, greys - high) / (high - low + 1e-6)
    if _most(inverted & (outside > (CLEARLY_OUTSIDE if len(images) < FEW else 0))):
        kinds = ('white on black', 'black on white')
        here, there = kinds if mean < training['mean'] else kinds[::-1]
        return f'{figures}: maybe they are {here}, and those of the training {there}'
    if _most(outside > FAR_OUTSIDE):
        return f'{figures}: they are {"darker" if mean < training["mean"] else "brighter"}'
    return ''


def _aspect_ratio(training, images):
    ratios = np.array([each.raw_shape[1] / each.raw_shape[0] for each in images])
    low, high = training['low'], training['high']
    if not _most((ratios < low / STRETCHED) | (ratios > high * STRETCHED)):
        return ''
    return (
        f'width / height {ratios.min():.2f} to {ratios.max():.2f} (median '
        f'{np.median(ratios):.2f}), in the training {low:.2f} to {high:.2f}'
    )


def _colour(training, images):
    in_colour = np.array([each.raw_shape[2] == 3 for each in images])
    if 0.01 <= training <= 0.99 or not _most(in_colour != (training > 0.5)):
        return ''
    share = np.mean(in_colour == (training < 0.5))
    if training < 0.5:
        return f'{share:.0%} of them have 3 channels, those of the training 1 (grey)'
    return f'{share:.0%} of them have 1 channel (grey), those of the training 3'
