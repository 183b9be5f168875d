"""Does an exported model predict what its run does? Asked as its users will: in other processes."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from PIL import Image

from neptune_jax.errors import UserError
from neptune_jax.exporting.folder import FORMATS, PROGRAM
from neptune_jax.inference.predictor import Predictor

TOLERANCE = 1e-5  # of a probability
TOLERANCE_BFLOAT16 = 0.05  # whose numbers have three digits

# What a program must not need: this package and its network library, and for ONNX also JAX.
_ABSENT = {
    'stablehlo': ('neptune_jax', 'flax', 'onnxruntime'),
    'onnx': ('neptune_jax', 'flax', 'jax', 'jaxlib'),
}

# Runs a program in a process in which some packages cannot be found.
_WITHOUT = """\
import runpy, sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        absent = name.partition('.')[0] in {absent!r}
        return None if absent else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Without, sys.meta_path)
sys.argv[:] = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


class Checked(NamedTuple):
    """What the check of one file has found."""

    file: str
    images: int
    difference: float  # the largest, of a probability or a parameter
    tolerance: float

    @property
    def is_equal(self) -> bool:
        """Whether the file gives the numbers of the run. NaN is no number of the run."""
        return self.difference <= self.tolerance


def check(predictor: Predictor, folder: str | Path, formats: Sequence[str]) -> list[Checked]:
    """Compares each format of an exported model with the run on a few images of all kinds.

    Args:
        predictor: of the run.
        folder: that folder.write has written.
        formats: keys of FORMATS.

    Raises:
        UserError: a library is missing, or predict.py fails.
    """
    lowest = TOLERANCE_BFLOAT16 if _computes_in_bfloat16(predictor) else TOLERANCE
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        paths = _write_images(Path(temporary), predictor.image_shape)
        expected = predictor(np.stack([predictor.read(path) for path in paths]))
        for name in formats:
            if name == 'safetensors':
                difference = _difference_of_weights(predictor, Path(folder) / FORMATS[name])
                found.append(Checked(FORMATS[name], 0, difference, 0.0))
                continue
            probabilities = run_program(folder, paths, absent=_ABSENT[name])
            difference = float(np.abs(probabilities - expected).max())
            found.append(Checked(FORMATS[name], len(paths), difference, lowest))
    return found


def run_program(
    folder: str | Path, paths: Sequence[str | Path], absent: Sequence[str] = ()
) -> np.ndarray:
    """Returns what predict.py of an exported model prints for image files, float64[n, K].

    Args:
        folder: of the exported model.
        paths: of the image files.
        absent: packages that its process cannot import.

    Raises:
        UserError: it fails, or cannot read a file.
    """
    code = _WITHOUT.format(absent=tuple(absent))
    command = [sys.executable, '-I', '-c', code, str(Path(folder) / PROGRAM), *map(str, paths)]
    process = subprocess.run(command, capture_output=True, text=True)
    lines = process.stdout.splitlines()
    rows = [json.loads(line) for line in lines if line.startswith('{')]
    errors = [row['error'] for row in rows if 'error' in row]
    if process.returncode or errors or len(rows) != len(paths):
        reason = (errors or process.stderr.strip().splitlines() or ['no reason given'])[-1]
        raise UserError(f'{Path(folder) / PROGRAM} fails: {reason.removeprefix("error: ")}')
    return np.array([list(row['probabilities'].values()) for row in rows])


def _difference_of_weights(predictor, path):
    from safetensors.numpy import load_file

    written = load_file(path)
    own = flatten_dict(jax.tree.map(np.asarray, predictor.variables), sep='/')
    if written.keys() != own.keys():
        return np.inf
    return max(float(np.abs(written[name] - own[name]).max(initial=0)) for name in own)


def _computes_in_bfloat16(predictor):
    return getattr(predictor.model, 'dtype', '') == 'bfloat16'


def _write_images(folder, image_shape):
    """Writes seeded pictures of several sizes and modes; returns their paths."""
    height, width, _ = image_shape
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 4), np.uint8)
    rows, columns = np.mgrid[:height, :width] / max(height, width)
    ramps = np.stack([rows, columns, 1 - rows, (rows + columns) / 2], axis=-1) * 255
    pictures = {
        'grey.png': Image.fromarray(noise[..., 0]),
        'colour.png': Image.fromarray(np.ascontiguousarray(noise[..., :3])),
        'ramps.png': Image.fromarray(ramps[..., :3].astype(np.uint8)),
        'transparent.png': Image.fromarray(ramps.astype(np.uint8)),
        'large.png': Image.fromarray(noise[..., :3].repeat(3, axis=0).repeat(2, axis=1)),
    }
    for name, picture in pictures.items():
        picture.save(folder / name)
    return [folder / name for name in pictures]
