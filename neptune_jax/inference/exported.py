"""Predictions of an exported model: a folder that `python -m neptune_jax.export` has written."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import jax
from jax import export

from neptune_jax.data.sources.images import Conversion
from neptune_jax.data.standardize import Standardizer
from neptune_jax.errors import UserError, is_out_of_memory, one_line
from neptune_jax.inference.predictor import Predictor
from neptune_jax.learning import losses
from neptune_jax.runs import files

STABLEHLO, ABOUT = 'model.stablehlo', 'preprocessing.json'

# What turns logits into probabilities, by its name in preprocessing.json: the loss it belongs to.
LOSS = {'softmax': losses.cross_entropy, 'sigmoid': losses.bce}


def is_export(folder: str | Path) -> bool:
    """Whether a folder holds an exported model, rather than a run."""
    return (Path(folder) / ABOUT).is_file()


@dataclasses.dataclass(frozen=True)
class ExportedPredictor(Predictor):
    """A Predictor whose network is a StableHLO program with its parameters inside.

    `model` is that program, a jax.export.Exported, and `variables` is empty.
    """

    @classmethod
    def from_export(cls, folder: str | Path) -> 'ExportedPredictor':
        """Returns the predictor of a folder that `neptune_jax.export` has written.

        Raises:
            UserError: it holds no exported model, no StableHLO program, a damaged one, or one that
                a newer JAX has written.
        """
        folder = Path(folder)
        if not is_export(folder):
            raise UserError(f'{str(folder)!r} holds no exported model: there is no {ABOUT}')
        try:
            about = files.read_json(folder / ABOUT)
            temperature = about['temperature']
            shown = f'logits are divided by the temperature {temperature:.4g} of the run'
            return cls(
                workdir=str(folder),
                step=about['step'],
                model=_read_program(folder / STABLEHLO, about),
                variables={},
                classes=tuple(about['classes']),
                image_shape=tuple(about['image_shape']),
                conversion=Conversion.from_dict(about['conversion']),
                standardizer=Standardizer.from_dict(about['standardize']),
                inputs=about['inputs'],
                loss=LOSS[about['probabilities']],
                temperature=temperature,
                notes=(shown,) if temperature != 1 else (),
            )
        except (KeyError, TypeError, ValueError) as error:  # JSON, but not that of an export
            raise UserError(
                f'{folder / ABOUT} is damaged ({one_line(error)}); export the run again'
            ) from error

    def logits(self, variables: dict, images: jax.Array) -> jax.Array:
        """Returns logits float32[B, K] for images uint8[B, H, W, C]. A pure function."""
        return self.model.call(images)['logits']

    def probabilities(self, variables: dict, images: jax.Array) -> jax.Array:
        """Returns probabilities float32[B, K] for images uint8[B, H, W, C]. A pure function."""
        return self.model.call(images)['probabilities']


def _read_program(path: Path, about: dict[str, Any]) -> export.Exported:
    written, here = about['versions']['jax'], jax.__version__
    if not path.is_file():
        raise UserError(
            f'{path} is missing; export the run again with stablehlo among the --formats'
        )
    if _version(written) > _version(here):
        raise UserError(
            f'{path} was written with JAX {written} and cannot be read by JAX {here}; install '
            f"'jax>={written}', or export the run again with this version"
        )
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != about['sha256'][path.name]:
        raise UserError(f'{path} is damaged or from another export; export the run again')
    try:
        return export.deserialize(bytearray(content))
    except ImportError as error:
        raise UserError(
            'reading StableHLO needs flatbuffers: pip install "neptune_jax[export]"'
        ) from error
    except Exception as error:  # of whatever a later JAX raises for what it no longer reads
        if is_out_of_memory(error):
            raise
        raise UserError(
            f'{path}, written with JAX {written}, cannot be read by JAX {here}: {one_line(error)}'
        ) from error


def _version(text):
    """Returns major and minor, from which on the format may change."""
    return tuple(int(part) for part in text.split('.')[:2])
