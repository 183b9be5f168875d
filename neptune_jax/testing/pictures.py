"""Pictures for tests and benchmarks: drawn ones, and changed copies of others."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

CORNERS = {'circle': 60, 'square': 4, 'triangle': 3}  # of the polygon that draws a shape


def draw_shapes(folder: Path, count: int, seed: int = 0) -> None:
    """Writes `count` colour photographs, as it were, of each shape: FOLDER/circle/0.jpg and so on.

    They differ in size, aspect ratio and colours, and in the place, size and turn of the shape;
    they have blur and noise.
    """
    rng = np.random.default_rng(seed)
    for name, corners in CORNERS.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            width, height = (int(side) for side in rng.integers(90, 200, 2))
            below, above = rng.integers(140, 256, 3), rng.integers(0, 110, 3)
            image = Image.new('RGB', (width, height), tuple(below.tolist()))
            radius = min(width, height) * rng.uniform(0.3, 0.45)
            x, y = width * rng.uniform(0.45, 0.55), height * rng.uniform(0.45, 0.55)
            turn = rng.uniform(-15, 15)
            ImageDraw.Draw(image).regular_polygon(
                (x, y, radius), corners, turn, fill=tuple(above.tolist())
            )
            image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 2)))
            noisy = np.asarray(image) + rng.normal(0, rng.uniform(2, 10), (height, width, 3))
            image = Image.fromarray(np.rint(noisy).clip(0, 255).astype(np.uint8))
            image.save(folder / name / f'{number}.jpg', quality=85)


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
