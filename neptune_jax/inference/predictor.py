"""Predictions of a trained model, from its run directory alone."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from neptune_jax import models
from neptune_jax.data.standardize import Standardizer
from neptune_jax.devices import compiling
from neptune_jax.errors import UserError, choose_or_import
from neptune_jax.learning import losses, steps
from neptune_jax.runs import reader
from neptune_jax.runs.weights import read_weights


def standardise(standardizer: Standardizer, images: jax.Array) -> jax.Array:
    """Returns float32[B, H, W, C], standardised, for images uint8[B, H, W, C]."""
    return standardizer(images.astype(jnp.float32) / 255)


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A trained model with its preprocessing: images in, probabilities out."""

    model: Any  # a Flax module
    variables: dict  # 'params' (averaged ones if the run kept an average) and 'batch_stats'
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]  # (height, width, channels)
    standardizer: Standardizer
    loss: Callable  # that the model was trained with
    step: int  # of the checkpoint
    _programs: dict = dataclasses.field(default_factory=dict, repr=False)  # by batch size

    @classmethod
    def from_run(cls, workdir: str | Path) -> 'Predictor':
        """Returns the Predictor of a run's best checkpoint. Nothing else is read, no data set.

        Raises:
            UserError: the directory holds no run with a checkpoint, or a damaged one.
        """
        config = ConfigDict(reader.read_config(workdir))
        if not config:
            raise UserError(f'{str(workdir)!r} holds no run: there is no config.json')
        weights = read_weights(workdir)
        preprocessing = weights.preprocessing
        classes = tuple(preprocessing['classes'])
        return cls(
            model=models.create_model(_as_tuples(config.model), len(classes)),
            variables={'params': weights.params, 'batch_stats': weights.batch_stats},
            classes=classes,
            image_shape=tuple(preprocessing['image_shape']),
            standardizer=Standardizer.from_dict(preprocessing['standardize']),
            loss=choose_or_import(losses.LOSSES, config.loss.name, 'loss.name'),
            step=weights.step,
        )

    def logits(self, variables: dict, images: jax.Array) -> jax.Array:
        """Returns logits float32[B, K] for images uint8[B, H, W, C]. A pure function."""
        images = standardise(self.standardizer, images)
        return steps.predict_step(variables, images, model=self.model)

    def __call__(self, images: np.ndarray, batch_size: int = 512) -> np.ndarray:
        """Returns the probability of each class, float32[n, K].

        With the loss `bce` the classes are not exclusive, and the probabilities need not sum to 1.

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
        program = self._program(batch_size)
        parts = []
        for start in range(0, len(images), batch_size):
            part = images[start : start + batch_size]
            padding = ((0, batch_size - len(part)), (0, 0), (0, 0), (0, 0))
            parts.append(np.asarray(program(self.variables, np.pad(part, padding)))[: len(part)])
        return np.concatenate(parts or [np.zeros((0, len(self.classes)), np.float32)])

    def _program(self, batch_size):
        if batch_size not in self._programs:

            def probabilities(variables, images):
                return losses.probabilities(self.logits(variables, images), self.loss)

            images = jax.ShapeDtypeStruct((batch_size, *self.image_shape), jnp.uint8)
            lowered = jax.jit(probabilities).lower(self.variables, images)
            self._programs[batch_size] = compiling.compile_lowered(lowered, {})
        return self._programs[batch_size]


def _as_tuples(config):
    """Returns a group with tuples for the lists that JSON made of them."""
    return ConfigDict(
        {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
    )
