"""Images drawn from a seed, easy to tell apart: for benchmarks and tests of any size."""

import math
import os
import shutil
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from ml_collections import ConfigDict

from neptune_jax.data.sources.builder import VERSION, ImageBuilder, Preparation
from neptune_jax.data.sources.images import check_image_shape
from neptune_jax.errors import UserError


def preparation(config: ConfigDict, data_dir: Path) -> Preparation:
    """Returns the Preparation of synthetic images; a sixth of them are the test split.

    Args:
        config: the `data` group: `examples`, `classes`, `image_size`, `channels` and `split_seed`.
        data_dir: the folder of prepared data.

    Raises:
        UserError: a shape that no image has, too few examples for the classes, or more images than
            the disk has room for.
    """
    check_image_shape(config.image_size, config.channels)
    examples, classes, seed = config.examples, config.classes, config.split_seed
    if not 2 <= classes <= examples // 6:
        raise UserError(
            f'data.classes={classes} of data.examples={examples}: there must be at least two '
            'classes, and six examples for each'
        )
    shape = (*(tuple(config.image_size) or (32, 32)), config.channels or 3)
    _check_room(config, data_dir, math.prod(shape))
    name = f'{examples}x{"x".join(map(str, shape))}_{classes}_{seed}'

    def create_builder():
        return Synthetic(
            name, data_dir=data_dir, examples=examples, classes=classes, shape=shape, seed=seed
        )

    return Preparation(data_dir / Synthetic.name / name / VERSION, create_builder)


def _check_room(config, data_dir, image_bytes):
    """Raises UserError unless the disk has room for the images, memory for a pattern a class."""
    folder = next(each for each in (data_dir, *data_dir.absolute().parents) if each.is_dir())
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    for field, needed, there in (
        ('examples', config.examples * image_bytes, shutil.disk_usage(folder).free),
        ('classes', config.classes * image_bytes * 8, memory),
    ):
        if needed > there:
            raise UserError(
                f'data.{field}={config[field]} with images of {image_bytes:,} bytes needs '
                f'{needed / 2**30:,.1f} GiB, but there are {there / 2**30:,.1f} GiB'
            )


class Synthetic(ImageBuilder):
    """Each class is a random pattern; an image is the pattern of its class with noise added."""

    name = 'synthetic'

    def __init__(
        self,
        config_name: str,
        *,
        data_dir: Path,
        examples: int,
        classes: int,
        shape: tuple[int, int, int],
        seed: int,
    ) -> None:
        self.CLASS_NAMES = tuple(str(label) for label in range(classes))
        self.IMAGE_SHAPE = shape
        self.examples, self.seed = examples, seed
        config = tfds.core.BuilderConfig(name=config_name, version=self.VERSION)
        super().__init__(data_dir=data_dir, config=config)

    def _split_generators(self, dl_manager):
        test = self.examples // 6
        return {
            'train': self._generate_examples(0, self.examples - test),
            'test': self._generate_examples(self.examples - test, self.examples),
        }

    def _generate_examples(self, start, stop):
        rng = np.random.default_rng(self.seed)
        classes = len(self.CLASS_NAMES)
        patterns = rng.uniform(64, 192, (classes, *self.IMAGE_SHAPE))
        for i in range(start, stop):
            noise = np.random.default_rng((self.seed, i)).normal(0, 32, self.IMAGE_SHAPE)
            image = np.rint(patterns[i % classes] + noise).clip(0, 255).astype(np.uint8)
            yield i, {'image': image, 'label': i % classes}
