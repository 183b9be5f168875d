"""Test-time augmentation: the mean of the probabilities of several views of each image.

`flip` adds the mirror image. `shift` adds four views that are moved up, down, left and right, by a
32nd of the side, at least by a pixel; the rows and columns at the edge are repeated. `flip,shift`
has both, ten views: each of the five places, and its mirror image.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from neptune_jax.learning import losses

STEPS = 32  # a shift is the side of the image divided by it


def _flip(images):
    return [images, images[:, :, ::-1]]


def _shift(images):
    height, width = images.shape[1:3]
    down, right = (max(1, round(side / STEPS)) for side in (height, width))
    padded = jnp.pad(images, ((0, 0), (down, down), (right, right), (0, 0)), mode='edge')
    places = ((down, right), (0, right), (2 * down, right), (down, 0), (down, 2 * right))
    return [padded[:, y : y + height, x : x + width] for y, x in places]


VIEWS = {'flip': _flip, 'shift': _shift}


def views(images: jax.Array, names: Sequence[str]) -> list[jax.Array]:
    """Returns the views of images [B, H, W, C], the images themselves first.

    Args:
        images: of any type.
        names: some of VIEWS.
    """
    found = [images]
    for name in names:
        found = [view for each in found for view in VIEWS[name](each)]
    return found


def count(names: Sequence[str]) -> int:
    """Returns the number of views of an image."""
    return len(jax.eval_shape(lambda images: views(images, names), jnp.zeros((1, 8, 8, 1))))


def averaged(logits: Callable, names: Sequence[str], loss: Callable) -> Callable:
    """Returns a function like `logits` whose probabilities are the means over the views.

    Its results are logits of these means, so loss, prediction and temperature are computed of them
    as of those of one view.

    Args:
        logits: a pure function of (variables, images uint8[B, H, W, C]) to float32[B, K].
        names: some of VIEWS.
        loss: that the model was trained with; it decides what the probabilities are.
    """

    def of_views(variables, images):
        each = views(images, names)
        found = logits(variables, jnp.concatenate(each))
        return _logits_of_mean(found.reshape(len(each), len(images), -1), loss)

    return of_views


def _logits_of_mean(logits, loss):
    """Returns the logits [B, K] of the mean probability over logits [views, B, K]."""
    if loss is losses.bce:  # log(p / (1 - p)); the number of views cancels out
        chosen = jax.nn.logsumexp(jax.nn.log_sigmoid(logits), axis=0)
        return chosen - jax.nn.logsumexp(jax.nn.log_sigmoid(-logits), axis=0)
    return jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=0) - jnp.log(len(logits))
