"""What a network looks at: how much less sure it is of its answer where the image is covered."""

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from neptune_jax.errors import UserError
from neptune_jax.inference.predictor import Predictor
from neptune_jax.predicting.image_files import read
from neptune_jax.predicting.rows import Prediction

STEPS = 12  # places of the patch along each side of an image
MAX_NAME = 80  # characters of a file's name in that of its picture


def occlusion_map(
    predict: Callable[[np.ndarray], np.ndarray],
    image: np.ndarray,
    fill: float,
    steps: int = STEPS,
) -> np.ndarray:
    """Returns float32[H, W]: how far the probability of the top class falls where it is covered.

    A patch as large as two steps covers one place of the image after the other (Zeiler and Fergus,
    2014, section 4.2). The value of a pixel is the mean over the patches that cover it.

    Args:
        predict: from uint8[n, H, W, C] to probabilities float32[n, K]. It is called once.
        image: uint8[H, W, C].
        fill: the grey of the patch, 0 (black) to 1 (white).
        steps: places along each side; fewer where the image has fewer pixels.
    """
    height, width, _ = image.shape
    spans = [(row, column) for row in _spans(height, steps) for column in _spans(width, steps)]
    images = np.repeat(image[None], len(spans) + 1, axis=0)
    for covered, (rows, columns) in zip(images[1:], spans, strict=True):
        covered[rows, columns] = round(255 * fill)
    probabilities = predict(images)
    top = probabilities[0].argmax()
    drops = probabilities[0, top] - probabilities[1:, top]
    total, count = np.zeros((2, height, width), np.float32)
    for drop, (rows, columns) in zip(drops, spans, strict=True):
        total[rows, columns] += drop
        count[rows, columns] += 1
    return total / count


def _spans(length, steps):
    """Returns the slices of overlapping patches along a side."""
    edges = [round(length * i / steps) for i in range(steps + 1)] if length > steps else None
    if edges is None:
        return [slice(i, i + 1) for i in range(length)]
    return [slice(start, stop) for start, stop in zip(edges, edges[2:], strict=False)]


class Explainer:
    """Draws a picture for each file into a folder."""

    def __init__(self, predictor: Predictor, folder: str) -> None:
        # Imported here because Matplotlib takes longer than predicting a few files.
        from neptune_jax.reporting import explanations

        self.folder, self._predictor = Path(folder), predictor
        self._draw = explanations.explanation
        grey = predictor.inputs.get('grey')
        self._fill = grey['mean'] if grey else 0.5

    def __call__(self, prediction: Prediction, image: np.ndarray) -> None:
        """Draws the picture of a file.

        Args:
            prediction: of the file.
            image: uint8[H, W, C], as the network gets it.

        Raises:
            UserError: the picture cannot be written.
        """
        own_size = self._predictor.conversion._replace(size=None, channels=3)
        given = read(prediction.file, own_size)
        covered = occlusion_map(self._probabilities, image, self._fill)
        path = self.folder / picture_name(prediction.file)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            shown = image if isinstance(given, str) else given.image  # str: it is gone meanwhile
            self._draw(prediction.file, shown, image, prediction.top, covered).savefig(path)
        except OSError as error:
            raise UserError(
                f'--explain={self.folder}: {path} cannot be written: {error}'
            ) from error

    def _probabilities(self, images):
        return self._predictor(images, batch_size=len(images))


def picture_name(file: str) -> str:
    """Returns a name for the picture of a file: safe on any system, and another for each file."""
    stem = re.sub(r'[^\w-]+', '_', os.path.splitext(os.path.basename(file))[0], flags=re.ASCII)
    digest = hashlib.blake2b(os.fsencode(file), digest_size=4).hexdigest()
    return f'{stem[:MAX_NAME]}_{digest}.png'


def check_new(folder: str, files: Sequence[str], resume: bool) -> None:
    """Raises UserError if a folder has a picture of one of the files, or is none."""
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise UserError(f'--explain={folder} is no folder')
    if resume or not os.path.isdir(folder):
        return
    there = set(os.listdir(folder))
    for file in files:
        if picture_name(file) in there:
            raise UserError(
                f'--explain={folder} has the picture of {file!r} already; give another folder'
            )
