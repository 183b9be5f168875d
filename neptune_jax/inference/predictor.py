"""Predictions of a trained model, from its run directory alone."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from neptune_jax import models
from neptune_jax.data.sources import files, images
from neptune_jax.data.sources.images import Conversion
from neptune_jax.data.standardize import Standardizer
from neptune_jax.devices import compiling
from neptune_jax.errors import UserError, check_choice, choose_or_import
from neptune_jax.learning import losses, steps
from neptune_jax.runs import reader
from neptune_jax.runs.weights import read_weights

DEFAULT_RESIZE = 'pad'  # where the training had no rule, because all its images had one size


def standardise(standardizer: Standardizer, images: jax.Array) -> jax.Array:
    """Returns float32[B, H, W, C], standardised, for images uint8[B, H, W, C]."""
    return standardizer(images.astype(jnp.float32) / 255)


def logits(
    variables: dict, images: jax.Array, *, model: Any, standardizer: Standardizer
) -> jax.Array:
    """Returns logits float32[B, K] for images uint8[B, H, W, C]. A pure function."""
    return steps.predict_step(variables, standardise(standardizer, images), model=model)


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A trained model with its preprocessing: images in, probabilities out."""

    workdir: str  # of the run
    step: int  # of the checkpoint
    model: Any  # a Flax module
    variables: dict  # 'params' (averaged ones if the run kept an average) and 'batch_stats'
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]  # (height, width, channels)
    conversion: Conversion  # how a file becomes an image
    standardizer: Standardizer
    inputs: dict  # what the training images looked like (data/inputs.py); {} for an earlier run
    loss: Callable  # that the model was trained with
    temperature: float = 1.0  # logits are divided by it (Guo et al., 2017)
    notes: tuple[str, ...] = ()  # what a person should know before using it, a line each
    _programs: dict = dataclasses.field(default_factory=dict, repr=False)  # by batch size

    @classmethod
    def from_run(
        cls, workdir: str | Path, checkpoint: str | int = 'best', resize: str = ''
    ) -> 'Predictor':
        """Returns the Predictor of a checkpoint of a run. Nothing else is read, no data set.

        Args:
            workdir: the run directory.
            checkpoint: 'best', 'last', or a step.
            resize: how files of another size become images: 'stretch', 'crop' or 'pad'. '': as in
                the training; if all its images had one size, 'pad'.

        Raises:
            UserError: the directory holds no run with such a checkpoint, or it is damaged.
        """
        config = ConfigDict(reader.read_config(workdir))
        if not config:
            raise UserError(f'{str(workdir)!r} holds no run: there is no config.json')
        weights = read_weights(workdir, checkpoint)
        preprocessing = weights.preprocessing
        classes = tuple(preprocessing['classes'])
        image_shape = tuple(preprocessing['image_shape'])
        conversion, notes = _conversion(preprocessing, image_shape, config.data, resize)
        calibration = reader.read_calibration(workdir, weights.step)
        temperature = calibration.get('temperature', 1.0)
        if calibration:
            notes.append(f'logits are divided by the temperature {temperature:.4g} of the run')
        return cls(
            workdir=str(workdir),
            step=weights.step,
            model=models.create_model(_as_tuples(config.model), len(classes)),
            variables={'params': weights.params, 'batch_stats': weights.batch_stats},
            classes=classes,
            image_shape=image_shape,
            conversion=conversion,
            standardizer=Standardizer.from_dict(preprocessing['standardize']),
            inputs=preprocessing.get('inputs', {}),
            loss=choose_or_import(losses.LOSSES, config.loss.name, 'loss.name'),
            temperature=temperature,
            notes=tuple(notes),
        )

    def logits(self, variables: dict, images: jax.Array) -> jax.Array:
        """Returns logits float32[B, K] for images uint8[B, H, W, C]. A pure function."""
        found = logits(variables, images, model=self.model, standardizer=self.standardizer)
        return found if self.temperature == 1 else found / self.temperature

    def probabilities(self, variables: dict, images: jax.Array) -> jax.Array:
        """Returns probabilities float32[B, K] for images uint8[B, H, W, C]. A pure function.

        With the loss `bce` the classes are not exclusive, and the probabilities need not sum to 1.
        """
        return losses.probabilities(self.logits(variables, images), self.loss)

    def __call__(self, images: np.ndarray, batch_size: int = 512) -> np.ndarray:
        """Returns `probabilities` of images, float32[n, K].

        Args:
            images: uint8[n, H, W, C] of `image_shape`.
            batch_size: images at once.

        Raises:
            UserError: images of another shape or type.
        """
        images = np.asarray(images)
        if images.shape[1:] != self.image_shape or images.dtype != np.uint8:
            raise UserError(
                f'images of shape {images.shape} and type {images.dtype}; this model takes uint8 '
                f'[n, {", ".join(map(str, self.image_shape))}]'
            )
        batch_size = max(1, min(batch_size, len(images)))
        program = self.compiled(batch_size)
        parts = []
        for start in range(0, len(images), batch_size):
            part = images[start : start + batch_size]
            padding = ((0, batch_size - len(part)), (0, 0), (0, 0), (0, 0))
            parts.append(np.asarray(program(np.pad(part, padding)))[: len(part)])
        return np.concatenate(parts or [np.zeros((0, len(self.classes)), np.float32)])

    def compiled(self, batch_size: int) -> Callable[[np.ndarray], jax.Array]:
        """Returns a compiled function from images uint8[batch_size, H, W, C] to probabilities.

        It returns before the float32[batch_size, K] are computed. Programs are kept.
        """
        if batch_size not in self._programs:
            images = jax.ShapeDtypeStruct((batch_size, *self.image_shape), jnp.uint8)
            lowered = jax.jit(self.probabilities).lower(self.variables, images)
            program = compiling.compile_lowered(lowered, {})
            variables = jax.device_put(self.variables)
            self._programs[batch_size] = lambda images: program(variables, images)
        return self._programs[batch_size]

    def read(self, file: str | Path | BinaryIO) -> np.ndarray:
        """Returns uint8[H, W, C] of `image_shape` for an image file, as the training would.

        Raises:
            decoding.Unreadable: it holds no image that can be used.
            OSError: it cannot be read now.
        """
        if isinstance(file, (str, Path)):
            return files.decode_file(str(file), self.conversion).image
        return images.decode(file, self.conversion).image


def _conversion(preprocessing, image_shape, config, resize):
    """Returns the Conversion of later files, and notes on what is not as in the training."""
    if 'conversion' in preprocessing:
        conversion = Conversion.from_dict(preprocessing['conversion'])
    else:  # a checkpoint of an earlier version
        clean = config.get('clean', {})
        fields = {'missing_pixels': 'mean', 'max_pixels': Conversion().max_pixels}
        conversion = Conversion(
            size=image_shape[:2],
            channels=image_shape[2],
            resize=config.get('resize', ''),
            white=config.get('white', 0.0),
            **{name: clean.get(name, default) for name, default in fields.items()},
        )
    if resize:
        check_choice(resize, images.RESIZE, '--resize')
        return conversion._replace(resize=resize), []
    if conversion.resize:
        return conversion, []
    height, width, _ = image_shape
    note = (
        f'the training had images of {height}x{width} pixels alone; others are padded and resized '
        f'(--resize={DEFAULT_RESIZE})'
    )
    return conversion._replace(resize=DEFAULT_RESIZE), [note]


def _as_tuples(config):
    """Returns a group with tuples for the lists that JSON made of them."""
    return ConfigDict(
        {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
    )
