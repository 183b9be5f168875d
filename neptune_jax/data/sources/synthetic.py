"""Separable images by seed: for benchmarks and tests of any size."""

import numpy as np
import tensorflow_datasets as tfds

from neptune_jax.data.sources.builder import ImageBuilder


class Synthetic(ImageBuilder, skip_registration=True):
    """Each class is a random pattern; an image is its class's pattern under noise."""

    name = 'synthetic'

    def __init__(self, *, data_dir, examples, classes, image_size, channels, seed):
        self.CLASS_NAMES = tuple(str(number) for number in range(classes))
        self.IMAGE_SHAPE = (*image_size, channels)
        self.examples, self.seed = examples, seed
        height, width = image_size
        config = tfds.core.BuilderConfig(
            name=f'{examples}x{height}x{width}x{channels}_{classes}_{seed}', version=self.VERSION
        )
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
