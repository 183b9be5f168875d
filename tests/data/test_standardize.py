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


def test_presets_are_fixed_numbers():
    mean, deviation = standardize.PRESETS['imagenet']
    expected = (IMAGES / 255 - np.array(mean)) / np.array(deviation)
    np.testing.assert_allclose(apply('imagenet'), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match=r"data.standardize='mnist' has 1 channels, the images 3"):
        apply('mnist')


@pytest.mark.parametrize('name', ['mean_std', 'min_max'])
def test_a_constant_channel_becomes_zero(name):
    images = IMAGES.copy()
    images[..., 1] = 77
    np.testing.assert_allclose(apply(name, images)[..., 1], np.zeros((50, 6, 5)), atol=1e-6)


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match=r"data.standardize='z'.*mean_std, min_max, none"):
        apply('z')
