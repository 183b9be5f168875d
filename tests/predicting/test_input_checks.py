"""Warnings about images that do not look like the training's: raised where due, not elsewhere."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from neptune_jax.data import dataset
from neptune_jax.data.sources.images import Converted
from neptune_jax.predicting.input_checks import differences
from neptune_jax.runs import reader


def converted(images, height=0, width=0, channels=0):
    """Returns the Converted of images uint8[n, H, W, C], which had another shape before."""
    shape = images.shape[1:]
    raw_shape = (height or shape[0], width or shape[1], channels or shape[2])
    return [Converted(image, [], raw_shape) for image in images]


@pytest.fixture(scope='module')
def mini(finished_run):
    """What the training split looks like, and the test images."""
    data = dataset.load(ConfigDict(reader.read_config(finished_run)).data)
    return data.inputs, data.read_images(data.splits['test'])


def test_test_images_are_like_those_of_the_training_and_inverted_ones_are_not(mini):
    inputs, images = mini
    order = np.random.default_rng(0).permutation(len(images))
    for number in range(0, 480, 16):
        some = images[order[number : number + 16]]
        assert differences(inputs, converted(some)) == []
        (warning,) = differences(inputs, converted(255 - some))
        assert 'maybe they are black on white, and those of the training white on' in warning
        assert differences(inputs, converted(some[:3])) == []
    # One alone says less.
    assert sum(bool(differences(inputs, converted(image[None]))) for image in images) <= 5
    inverted = [differences(inputs, converted(255 - image[None])) for image in images]
    assert sum(map(bool, inverted)) >= 350


def test_the_figures_are_those_that_were_compared(mini):
    inputs, images = mini
    (warning,) = differences(inputs, converted(255 - images))
    for figure in (1 - images.mean() / 255, inputs['grey']['mean'], inputs['grey']['high']):
        assert f'{figure:.2f}' in warning


def test_shape_and_colour(mini):
    inputs, images = mini
    found = differences(inputs, converted(images, height=30, width=40, channels=3))
    assert found == [
        'width / height 1.33 to 1.33 (median 1.33), in the training 1.00 to 1.00',
        '100% of them have 3 channels, those of the training 1 (grey)',
    ]
    assert differences(inputs, converted(images, height=30, width=31)) == []
    colour = inputs | {'colour': 1.0}
    assert differences(colour, converted(images)) == [
        '100% of them have 1 channel (grey), those of the training 3'
    ]
    assert differences(inputs | {'colour': 0.4}, converted(images, channels=3)) == []
    assert differences(inputs | {'colour': 0.6}, converted(images)) == []


PHOTOS = {
    'grey': {'mean': 0.45, 'low': 0.12, 'high': 0.83},
    'aspect_ratio': {'low': 0.66, 'high': 1.78},
    'colour': 0.99,
}


def test_photographs_are_like_photographs():
    random = np.random.default_rng(0)
    for _ in range(50):
        greys = random.normal(115, 40, (16, 1, 1, 1)).clip(0, 255)
        images = (greys * np.ones((1, 8, 8, 3))).astype(np.uint8)
        height, width = random.choice([(480, 640), (640, 480), (500, 333), (600, 600)])
        assert differences(PHOTOS, converted(images, height, width)) == []
        assert differences(PHOTOS, converted(255 - images, height, width)) == []


def test_nearly_black_images_and_an_unknown_training():
    images = converted(np.full((9, 8, 8, 3), 1, np.uint8))
    inputs = PHOTOS | {'grey': {'mean': 0.5, 'low': 0.4, 'high': 0.6}}
    (warning,) = differences(inputs, images)
    assert warning.endswith('they are darker')
    assert differences({}, images) == []
    assert differences(inputs, []) == []
