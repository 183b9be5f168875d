"""Near duplicates: images that a person takes for the same picture, though their pixels differ.

Such are copies that were encoded again, resized, made a little brighter or moved by one pixel. Each
image gets a short sketch, in which a k-d tree finds candidates. These are compared in detail.
"""

import functools
from collections.abc import Callable

import numpy as np

CELLS = 16  # in each direction, over which pixels are averaged
# Measured in experiments/benchmarks/near_duplicates.py: what changes leave, and other images lack.
MIN_CORRELATION = 0.999  # of the cells
MAX_DIFFERENCE = 0.35  # of a cell, in standard deviations of the cells
MAX_GAIN = 1.15  # ratio of the standard deviations
MAX_BRIGHTER = 26  # difference of the means, in grey levels
# An image with less in it has no near duplicates: too many images would be like it.
MIN_CONTRAST = 2.0  # standard deviation of the cells, in grey levels
MIN_CELLS = 6.0  # that hold the contrast
MIN_DIRECTIONS = 0.05  # of the contrast is across the main direction, in images that have moved

_WINDOWS = ((0, 0), (0, 1), (1, 0), (1, 1), (1, -1))  # the other four are these, seen from the copy
_MOVES = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x)
_SMALLEST = 16  # pixels a side, of images that may have moved by one
_FREQUENCIES = 5  # in each direction, of a sketch
_NEIGHBOURS = 4  # candidates for each image and window
_PAIRS = 1000  # that are compared at once
_CHANNELS: dict[int, np.ndarray] = {
    1: np.ones((1, 1), np.float32),
    3: np.array([[1, 1, 1], [1, -1, 0], [1, 1, -2]], np.float32)
    / np.sqrt(np.array([[3], [2], [6]], np.float32)),
}


def sketch(images: np.ndarray) -> np.ndarray:
    """Returns float16[n, windows, d], in which near duplicates are close to each other.

    The pixels inside a margin of one pixel, and those in windows moved by one pixel, are averaged
    to 16x16 cells. Their deviations from the mean, with length 1, are transformed by an orthonormal
    cosine transform, whose lowest frequencies are the sketch. So two sketches are at most as far
    from each other as the cells are. NaN where the image has too little contrast.

    Args:
        images: uint8[n, H, W, C], C = 1 or 3; small ones have a single window, without a margin.
    """
    transform = _transform(images.shape[-1])
    sketches = []
    for window in _WINDOWS if min(images.shape[1:3]) >= _SMALLEST else (None,):
        deviations, _, contrast = _cells(images, window)
        found = deviations.reshape(len(images), -1) @ transform
        weights = (deviations**2).sum(axis=-1)
        cells = 1 / np.maximum((weights**2).sum(axis=(1, 2)), 1e-12)
        found[(contrast < MIN_CONTRAST) | (cells < MIN_CELLS)] = np.nan
        sketches.append(found.astype(np.float16))
    return np.stack(sketches, axis=1)


def are_near(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns bool[n]: whether each first image is a near duplicate of the second one.

    Args:
        first, second: uint8[n, H, W, C].
    """
    near = _are_alike(_cells(first), _cells(second))
    if min(first.shape[1:3]) >= _SMALLEST:
        inner = _cells(second, (0, 0))
        may_move = _varies_in_two_directions(inner[0])
        for move in _MOVES:
            near |= may_move & _are_alike(_cells(first, move), inner)
    return near


def _are_alike(first, second):
    """Returns bool[n] for the results of `_cells`."""
    (cells, mean, contrast), (other_cells, other_mean, other_contrast) = first, second
    distance = np.abs(cells - other_cells)
    gain = np.maximum(contrast, other_contrast) / np.minimum(contrast, other_contrast)
    return (
        ((distance**2).sum(axis=(1, 2, 3)) <= 2 * (1 - MIN_CORRELATION))
        & (distance.max(axis=(1, 2, 3)) <= MAX_DIFFERENCE / np.sqrt(cells[0].size))
        & (gain <= MAX_GAIN)
        & (np.abs(mean - other_mean) <= MAX_BRIGHTER)
    )


def find(
    sketches: np.ndarray,
    digests: np.ndarray,
    order: np.ndarray,
    read: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Returns int64[N]: for each image the earlier one that it nearly duplicates, or -1.

    The earlier one is no near duplicate itself, so chains of small changes do not add up. Of images
    with equal pixels, the first one is compared, and the others have the same result.

    Args:
        sketches: float16[N, windows, d].
        digests: bytes[N], equal for images with equal pixels.
        order: int64[N], the numbers of all images, those first that are to be kept.
        read: returns images uint8[n, H, W, C] by their numbers int64[n].
    """
    _, first, copies = np.unique(digests[order], return_index=True, return_inverse=True)
    originals = order[first]
    near = np.full(len(order), -1)
    kept = originals
    while len(kept):  # of many copies of one picture, some find the first in a later round
        pairs = _near_pairs(sketches, kept, order, read)
        for later, earlier in pairs:
            first_of_kind = earlier if near[earlier] < 0 else near[earlier]
            if near[later] < 0 and (
                first_of_kind == earlier
                or are_near(read(np.array([later])), read(np.array([first_of_kind])))[0]
            ):
                near[later] = first_of_kind
        found = np.unique(pairs)
        kept = found[near[found] < 0] if (near[found] >= 0).any() else found[:0]
        _point_to_kept(near, read)
    near[order] = near[originals][copies.ravel()]
    return near


def _point_to_kept(near, read):
    """Replaces, for images that nearly duplicate one which is not kept, that one by its own."""
    stale = np.flatnonzero((near >= 0) & (near[near] >= 0))
    for part in np.split(stale, range(_PAIRS, len(stale), _PAIRS)):
        if len(part):
            firsts = near[near[part]]
            near[part] = np.where(are_near(read(part), read(firsts)), firsts, -1)


def _near_pairs(sketches, examples, order, read):
    """Returns int64[n, 2]: near duplicates and an earlier image each, in the order of images."""
    # Imported here because only the preparation of a data set needs it.
    from scipy.spatial import cKDTree

    known = examples[np.isfinite(sketches[examples]).all(axis=(1, 2))]
    if len(known) < 2:
        return np.zeros((0, 2), np.int64)
    tree = cKDTree(sketches[known, 0])
    radius = 1.01 * np.sqrt(2 * (1 - MIN_CORRELATION))  # the sketches are rounded
    pairs = []
    for window in range(sketches.shape[1]):
        _, found = tree.query(
            sketches[known, window], k=_NEIGHBOURS + 1, distance_upper_bound=radius, workers=-1
        )
        image, column = np.nonzero(found < len(known))
        pairs.append(np.stack([known[image], known[found[image, column]]], axis=1))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    candidates = np.concatenate(pairs)
    candidates = candidates[candidates[:, 0] != candidates[:, 1]]
    ranks = np.unique(np.sort(rank[candidates], axis=1)[:, ::-1], axis=0)
    candidates = order[ranks]
    near = [
        are_near(read(chunk[:, 0]), read(chunk[:, 1]))
        for chunk in np.split(candidates, range(_PAIRS, len(candidates), _PAIRS))
        if len(chunk)
    ]
    return candidates[np.concatenate(near)] if near else candidates


def _cells(images, move=None):
    """Returns the deviations of the cells from their mean, and what was divided out.

    The deviations are float32[n, 16, 16, C] with length 1 for each image; their mean is float32[n],
    their standard deviation float32[n]. With a move (down, right), they are of the pixels inside a
    margin of one pixel that has moved so.
    """
    if move:
        height, width = images.shape[1:3]
        y, x = 1 + move[0], 1 + move[1]
        images = images[:, y : y + height - 2, x : x + width - 2]
    count, height, width, channels = images.shape
    rows = images.reshape(count, height, -1).astype(np.float32)
    cells = _averages(height) @ rows
    cells = _averages(width) @ cells.reshape(count, CELLS, width, channels)
    mean = cells.mean(axis=(1, 2, 3), keepdims=True)
    contrast = cells.std(axis=(1, 2, 3), keepdims=True)
    length = np.maximum(contrast, 1e-3) * np.sqrt(cells[0].size)
    return (cells - mean) / length, mean.ravel(), np.maximum(contrast, 1e-3).ravel()


def _varies_in_two_directions(deviations):
    """Returns bool[n]. Bars look moved when they are others, so they do not vary enough.

    The smaller eigenvalue of the structure tensor is compared with the larger one.
    """
    down = deviations[:, 1:, :-1] - deviations[:, :-1, :-1]
    right = deviations[:, :-1, 1:] - deviations[:, :-1, :-1]
    a, b, c = (
        (u * v).sum(axis=(1, 2, 3)) for u, v in ((down, down), (down, right), (right, right))
    )
    root = np.sqrt((a - c) ** 2 + 4 * b**2)
    return a + c - root >= MIN_DIRECTIONS * (a + c + root)


@functools.cache
def _averages(size):
    """Returns float32[16, size]: the share of each pixel in each cell."""
    edges = np.arange(CELLS + 1) * size / CELLS
    pixels = np.arange(size)
    ends = np.minimum(edges[1:, None], pixels + 1)
    starts = np.maximum(edges[:-1, None], pixels)
    return ((ends - starts).clip(0) * CELLS / size).astype(np.float32)


@functools.cache
def _transform(channels):
    """Returns float32[256 C, d]: the lowest frequencies of the orthonormal cosine transform.

    Colours are transformed to grey and two differences. The mean, which is 0, is left out.
    """
    angles = np.pi / CELLS * np.outer(np.arange(_FREQUENCIES), np.arange(CELLS) + 0.5)
    cosines = np.sqrt(2 / CELLS) * np.cos(angles)
    cosines[0] /= np.sqrt(2)
    rows = np.kron(np.kron(cosines, cosines), _CHANNELS[channels])[1:]
    return np.ascontiguousarray(rows.T, np.float32)
