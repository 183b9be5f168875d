"""What the images of a training look like, so that later ones can be compared with them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

TAIL = 1  # percent of the images on each side that lie outside of a range


def describe(
    index: dict[str, np.ndarray], examples: np.ndarray, image_shape: Sequence[int]
) -> dict[str, Any]:
    """Returns what the training images look like, a JSON value.

    Args:
        index: of the source, as Source.index returns it.
        examples: int[n], the numbers of the training examples.
        image_shape: (height, width, channels).

    Returns:
        `grey`: the mean of all pixels, in [0, 1], and the range of the means of the images.
        `aspect_ratio`: the range of width / height before the images were resized.
        `colour`: the share of images that had three channels.
        A range has `low` and `high`, the 1st and the 99th percentile.
    """
    height, width, _ = image_shape
    grey = index['sum'][examples].mean(axis=1) / (255 * height * width)
    if 'raw_shape' in index:
        heights, widths, raw_channels = index['raw_shape'][examples].T
    else:
        heights, widths, raw_channels = np.array([image_shape]).T
    return {
        'grey': {'mean': float(grey.mean())} | _range(grey),
        'aspect_ratio': _range(widths / heights),
        'colour': float(np.mean(raw_channels == 3)),
    }


def _range(values):
    low, high = np.percentile(values, (TAIL, 100 - TAIL))
    return {'low': float(low), 'high': float(high)}
