import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neptune_jax import ops


@pytest.mark.parametrize('shape', [(2, 28, 28, 3), (1, 7, 5, 2), (3, 2, 3, 1), (1, 9, 12, 4)])
@pytest.mark.parametrize('size', [1, 2, 3])
def test_value_and_gradient_equal_lax_where_no_two_elements_are_equal(shape, size):
    # A permutation has no ties.
    x = np.random.default_rng(0).permutation(np.prod(shape)).reshape(shape).astype(np.float32)
    window = (size, size)
    if 0 in (shape[1] // size, shape[2] // size):
        pytest.skip('the window is larger than the image')

    def ours(x):
        return jnp.sum(jnp.sin(ops.max_pool(x, size)))

    def theirs(x):
        return jnp.sum(jnp.sin(nn.max_pool(x, window, strides=window)))

    np.testing.assert_array_equal(ops.max_pool(x, size), nn.max_pool(x, window, strides=window))
    np.testing.assert_allclose(jax.grad(ours)(x), jax.grad(theirs)(x), rtol=1e-6)


def test_equal_elements_share_the_gradient():
    x = jnp.array([[5.0, 5.0], [1.0, 0.0]]).reshape(1, 2, 2, 1)
    grad = jax.grad(lambda x: ops.max_pool(x).sum())(x)
    np.testing.assert_array_equal(grad.reshape(2, 2), [[0.5, 0.5], [0.0, 0.0]])


def test_dropout_keeps_the_mean_and_drops_by_example_and_layer():
    keys = jax.random.split(jax.random.key(0), 40)
    x = jnp.ones((40, 500))
    found = ops.dropout(x, 0.2, keys, layer=0)
    np.testing.assert_allclose(jnp.unique(found), [0, 1.25])
    # 20,000 draws: five standard deviations of the share are 0.014.
    np.testing.assert_allclose((found == 0).mean(), 0.2, atol=0.014)
    half = ops.dropout(x[20:], 0.2, keys[20:], layer=0)  # whatever the batch around an example
    np.testing.assert_array_equal(half, found[20:])
    assert (ops.dropout(x, 0.2, keys, layer=1) != found).mean() > 0.2
    assert ops.dropout(x, 0, None, layer=0) is x
