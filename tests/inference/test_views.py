"""Views of images by NumPy; the mean of their probabilities, for both kinds of losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from neptune_jax.inference import views
from neptune_jax.learning import losses

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 5, 70, 3)).astype(np.uint8)


def moved(image, down, right):
    """An image moved by NumPy alone; what comes in repeats the edge."""
    rows = np.clip(np.arange(image.shape[0]) - down, 0, image.shape[0] - 1)
    columns = np.clip(np.arange(image.shape[1]) - right, 0, image.shape[1] - 1)
    return image[rows][:, columns]


def test_the_views_of_an_image():
    shifts = [(0, 0), (1, 0), (-1, 0), (0, 2), (0, -2)]  # 70 / 32 is 2 pixels to the side
    expected = [moved(IMAGES[1], *shift) for shift in shifts]
    found = [np.asarray(view[1]) for view in views.views(IMAGES, ['shift'])]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(
        [view[1] for view in views.views(IMAGES, ['flip'])], [IMAGES[1], IMAGES[1, :, ::-1]]
    )
    both = {np.asarray(view[1]).tobytes() for view in views.views(IMAGES, ['flip', 'shift'])}
    mirrored = [each[:, ::-1] for each in expected]
    assert both == {each.tobytes() for each in [*expected, *mirrored]}
    assert views.count(['flip', 'shift']) == len(both) == 10


@pytest.mark.parametrize(
    ('loss', 'probabilities'),
    [(losses.cross_entropy, scipy.special.softmax), (losses.bce, scipy.special.expit)],
)
def test_the_probabilities_are_means_over_the_views(loss, probabilities):
    weights = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32) / 20

    def logits(weights, images):
        pixels = jnp.asarray(images, jnp.float32)
        return (pixels * jnp.linspace(0, 1, 70).reshape(1, 1, 70, 1)).mean(axis=(1, 2)) @ weights

    def p(values):
        values = np.asarray(values, float)
        return probabilities(values, **({'axis': 1} if loss is losses.cross_entropy else {}))

    found = jax.jit(views.averaged(logits, ['flip', 'shift'], loss))(weights, IMAGES)
    each = [p(logits(weights, view)) for view in views.views(IMAGES, ['flip', 'shift'])]
    np.testing.assert_allclose(p(found), np.mean(each, axis=0), rtol=1e-5)
    assert np.ptp(each, axis=0).max() > 0.01  # the views differ
