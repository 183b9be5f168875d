import numpy as np
import pytest

from neptune_jax.data import standardize
from neptune_jax.errors import UserError

IMAGES = np.random.default_rng(0).integers(20, 200, (50, 6, 5, 3)).astype(np.uint8)


def apply(name, images=IMAGES):
    return np.asarray(standardize.fit(IMAGES, name)(images))


def test_mean_std_equals_numpy():
    pixels = IMAGES / 255
    expected = (pixels - pixels.mean(axis=(0, 1, 2))) / pixels.std(axis=(0, 1, 2))
    np.testing.assert_allclose(apply('mean_std'), expected, rtol=1e-4, atol=1e-5)
    assert apply('mean_std').dtype == np.float32


def test_min_max_fills_the_unit_interval():
    standardised = apply('min_max')
    np.testing.assert_allclose(standardised.min(axis=(0, 1, 2)), np.zeros(3), atol=1e-6)
    np.testing.assert_allclose(standardised.max(axis=(0, 1, 2)), np.ones(3), rtol=1e-6)


def test_none_only_scales():
    np.testing.assert_allclose(apply('none'), IMAGES / 255, rtol=1e-6)


@pytest.mark.parametrize('name', ['mean_std', 'min_max'])
def test_a_constant_channel_becomes_zero(name):
    images = IMAGES.copy()
    images[..., 1] = 77
    standardised = np.asarray(standardize.fit(images, name)(images))
    np.testing.assert_allclose(standardised[..., 1], np.zeros((50, 6, 5)), atol=1e-6)


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match=r"data.standardize='z'.*mean_std, min_max, none"):
        standardize.fit(IMAGES, 'z')
