"""Changed copies of pictures: encoded again, resized, brighter or moved. For tests, benchmarks."""

import io

import numpy as np
from PIL import Image


def encoded(images: np.ndarray, quality: int) -> np.ndarray:
    """Returns uint8[n, H, W, C] after JPEG of a quality."""
    changed = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image.squeeze()).save(file, 'jpeg', quality=quality)
        changed.append(np.asarray(Image.open(file)).reshape(image.shape))
    return np.stack(changed)


def resized(images: np.ndarray, factor: float) -> np.ndarray:
    """Returns images made smaller or larger, then of the old size as the preparation does it."""
    height, width = images.shape[1:3]
    changed = []
    for image in images:
        other = Image.fromarray(image.squeeze()).resize(
            (round(width * factor), round(height * factor)), Image.Resampling.BICUBIC
        )
        back = other.resize((width, height), Image.Resampling.BILINEAR)
        changed.append(np.asarray(back).reshape(image.shape))
    return np.stack(changed)


def scaled(images: np.ndarray, factor: float, offset: float = 0) -> np.ndarray:
    """Returns uint8, images * factor + offset."""
    return np.rint(images * float(factor) + offset).clip(0, 255).astype(np.uint8)


def moved(images: np.ndarray, down: int, right: int) -> np.ndarray:
    """Returns images moved by at most one pixel; the edge is repeated."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), 'edge')
    height, width = images.shape[1:3]
    return padded[:, 1 - down : 1 - down + height, 1 - right : 1 - right + width]
