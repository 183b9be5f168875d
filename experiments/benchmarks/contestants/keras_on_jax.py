"""Keras 3 on JAX, by compile, fit and predict."""

import keras
import numpy as np
from keras import layers

from experiments.benchmarks.contestants import CLASSES, LEARNING_RATE
from experiments.benchmarks.contestants.contestant import (
    EVAL_BATCH,
    PADDING,
    Contestant,
)


def cnn(x, features, kernel_size, padding, hidden):
    for width in features:
        x = layers.Conv2D(width, kernel_size, padding=padding.lower(), activation='relu')(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Flatten()(x)
    for width in hidden:
        x = layers.Dense(width, activation='relu')(x)
    return layers.Dense(CLASSES)(x)


def resnet(x, depth):
    def conv(x, width, stride=1):
        x = layers.Conv2D(width, 3, stride, use_bias=False)(layers.ZeroPadding2D()(x))
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)

    x = layers.ReLU()(conv(x, 16))
    for width in (16, 32, 64):
        for _ in range((depth - 2) // 6):
            missing = width - x.shape[-1]
            stride = 2 if missing else 1
            y = conv(layers.ReLU()(conv(x, width, stride)), width)
            shortcut = x[:, ::stride, ::stride]
            shortcut = keras.ops.pad(shortcut, ((0, 0), (0, 0), (0, 0), (0, missing)))
            x = layers.ReLU()(layers.Add()([y, shortcut]))
    return layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x))


class Keras(Contestant):
    def __init__(self, *args):
        super().__init__(*args)
        images = keras.Input(self.images.shape[1:])
        logits = (resnet if 'depth' in self.network else cnn)(images, **self.network)
        self.model = keras.Model(images, logits)
        self._copy_params()
        self.models = {False: self.model, True: self._augmented_model()}
        for model in self.models.values():
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile(optimizer=keras.optimizers.Adam(LEARNING_RATE), loss=loss)
        first = self.images[:EVAL_BATCH], self.labels[:EVAL_BATCH]
        self.loss = float(self.model.evaluate(*first, batch_size=EVAL_BATCH, verbose=0))

    def _copy_params(self):
        kinds = {'Conv2D': 'Conv', 'BatchNormalization': 'BatchNorm', 'Dense': 'Dense'}
        count = dict.fromkeys(kinds.values(), 0)
        for layer in self.model.layers:
            kind = kinds.get(type(layer).__name__)
            if kind:
                name = f'{kind}_{count[kind]}'
                count[kind] += 1
                for variable in layer.trainable_variables:
                    field = {'gamma': 'scale', 'beta': 'bias'}.get(variable.name, variable.name)
                    variable.assign(self.params[f'{name}/{field}'])

    def _augmented_model(self):
        """Returns the model with layers before it that act in training alone."""
        height, width, _ = shape = self.images.shape[1:]
        images = keras.Input(shape)
        # Zeros around an image and a random crop of it are a random shift.
        shift = layers.RandomTranslation(
            PADDING / height, PADDING / width, fill_mode='constant', interpolation='nearest'
        )
        return keras.Model(images, self.model(layers.RandomFlip('horizontal')(shift(images))))

    def train(self, steps):
        rows = np.concatenate([self.next_batch() for _ in range(steps)])
        self.models[self.augmented].fit(
            self.images[rows],
            self.labels[rows],
            batch_size=self.batch_size,
            shuffle=False,  # they are drawn at random already
            verbose=0,
        )

    def evaluate(self, count):
        logits = self.model.predict(self.test_images[:count], batch_size=EVAL_BATCH, verbose=0)
        return float(np.mean(logits.argmax(-1) == self.test_labels[:count]))
