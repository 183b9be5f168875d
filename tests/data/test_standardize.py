import json

import numpy as np
import pytest

from neptune_jax.data import standardize
from neptune_jax.errors import UserError

IMAGES = np.random.default_rng(0).integers(20, 200, (50, 6, 5, 3)).astype(np.uint8)
TRAIN = np.arange(40)  # the others must not matter


def index(images):
    wide = images.astype(np.int64)
    return {
        'sum': wide.sum(axis=(1, 2)),
        'squares': (wide**2).sum(axis=(1, 2)),
        'low': images.min(axis=(1, 2)),
        'high': images.max(axis=(1, 2)),
    }


def apply(name, images=IMAGES):
    standardizer = standardize.fit(index(images), TRAIN, images.shape[1:], name)
    return np.asarray(standardizer(images.astype(np.float32) / 255))


def test_mean_std_equals_numpy():
    pixels = IMAGES / 255
    train = pixels[TRAIN]
    expected = (pixels - train.mean(axis=(0, 1, 2))) / train.std(axis=(0, 1, 2))
    np.testing.assert_allclose(apply('mean_std'), expected, rtol=1e-4, atol=1e-5)
    assert apply('mean_std').dtype == np.float32


def test_min_max_fills_the_unit_interval():
    standardised = apply('min_max')[TRAIN]
    np.testing.assert_allclose(standardised.min(axis=(0, 1, 2)), np.zeros(3), atol=1e-6)
    np.testing.assert_allclose(standardised.max(axis=(0, 1, 2)), np.ones(3), rtol=1e-6)


def test_per_image_standardises_each_image_by_itself():
    pixels = IMAGES / 255
    axes = (1, 2, 3)
    expected = pixels - pixels.mean(axis=axes, keepdims=True)
    expected /= pixels.std(axis=axes, keepdims=True)
    np.testing.assert_allclose(apply('per_image'), expected, rtol=1e-3, atol=1e-4)
    flat = apply('per_image', np.full_like(IMAGES, 9))
    np.testing.assert_allclose(flat, np.zeros(IMAGES.shape), atol=1e-6)


def test_none_only_scales():
    np.testing.assert_allclose(apply('none'), IMAGES / 255, rtol=1e-6)


# Means and deviations over all pixels of the official training splits. ImageNet's are those of
# torchvision.
PUBLISHED = {
    'mnist': ([0.1307], [0.3081]),
    'fashion_mnist': ([0.2860], [0.3530]),
    'cifar10': ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
    'cifar100': ([0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762]),
    'imagenet': ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
}


@pytest.mark.parametrize('name', PUBLISHED)
def test_presets_are_the_published_numbers(name):
    mean, deviation = np.array(PUBLISHED[name])
    images = IMAGES[..., : len(mean)]
    expected = (images / 255 - mean) / deviation
    np.testing.assert_allclose(apply(name, images), expected, rtol=1e-4, atol=1e-5)


def test_a_preset_for_other_channels_is_refused():
    assert set(PUBLISHED) == set(standardize.PRESETS)
    with pytest.raises(UserError, match=r"data.standardize='mnist' has 1 channels, the images 3"):
        apply('mnist')


@pytest.mark.parametrize('name', ['mean_std', 'min_max'])
def test_a_constant_channel_becomes_zero(name):
    images = IMAGES.copy()
    images[..., 1] = 77
    np.testing.assert_allclose(apply(name, images)[..., 1], np.zeros((50, 6, 5)), atol=1e-6)


@pytest.mark.parametrize('name', ['mean_std', 'min_max', 'none', 'per_image', 'imagenet'])
def test_what_a_checkpoint_keeps_of_it_standardises_alike(name):
    fitted = standardize.fit(index(IMAGES), TRAIN, IMAGES.shape[1:], name)
    kept = json.loads(json.dumps(fitted.to_dict()))
    pixels = IMAGES.astype(np.float32) / 255
    found = standardize.Standardizer.from_dict(kept)(pixels)
    np.testing.assert_array_equal(found, fitted(pixels))


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match=r"data.standardize='z'.*mean_std, min_max, none"):
        apply('z')
