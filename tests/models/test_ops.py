import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from neptune_jax.models import ops

DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')

# Convolutions of the networks: side of the image, channels, features, kernel, stride, padding.
LAYERS = {
    'cnn3/1': (28, 1, 32, 3, 1, 'SAME'),
    'cnn3/2': (14, 32, 64, 3, 1, 'SAME'),
    'cnn3/3': (7, 64, 128, 3, 1, 'SAME'),
    'simple_net/1': (28, 1, 6, 5, 1, 'VALID'),
    'simple_net/2': (12, 6, 16, 5, 1, 'VALID'),
    'resnet20/first': (32, 3, 16, 3, 1, 'SAME'),
    'resnet20/16': (32, 16, 16, 3, 1, 'SAME'),
    'resnet20/16-32': (32, 16, 32, 3, 2, 'SAME'),
    'resnet20/32': (16, 32, 32, 3, 1, 'SAME'),
    'resnet20/64': (8, 64, 64, 3, 1, 'SAME'),
}


@pytest.fixture(scope='module', autouse=True)
def gradients_in_parts():
    """Weight gradients of small arrays too are added up from parts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ops, '_PART', 1)
        yield


def lax_conv(x, kernel, strides, padding):
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=DIMENSIONS)


def value_and_gradients(conv, x, kernel, *args):
    """Of a loss whose gradient with respect to the output differs from pixel to pixel."""

    def forward(x, kernel):
        return conv(x, kernel, *args)

    @jax.jit
    def run(x, kernel, weights):
        y, transpose = jax.vjp(forward, x, kernel)
        return forward(x, kernel), y, *transpose(weights)

    y = jax.eval_shape(forward, x, kernel)
    # Whole numbers, which bfloat16 holds exactly.
    weights = np.random.default_rng(0).integers(-3, 4, y.shape).astype(y.dtype)
    return [np.asarray(leaf, np.float32) for leaf in run(x, kernel, weights)]


def draw(shape, kernel_shape, dtype):
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], shape).astype(dtype)
    return x, jax.random.normal(keys[1], kernel_shape).astype(dtype)


def assert_close(found, expected, dtype):
    # Of the largest element: what is nearly 0 is a difference of large numbers.
    tolerance = {'float32': 1e-5, 'bfloat16': 0.03}[dtype]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * (abs(other).max() + 1e-6))


@pytest.mark.parametrize('in_loop', [False, True], ids=['plain', 'in a loop'])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@settings(deadline=None, max_examples=4, derandomize=True, phases=[Phase.generate])
@given(data=st.data())
def test_convolution_equals_lax_in_value_and_gradients(data, dtype, in_loop):
    kernel_shape = (
        *(data.draw(st.integers(1, 5)) for _ in range(2)),
        *(data.draw(st.sampled_from([1, 2, 3, 6, 16, 17])) for _ in range(2)),
    )
    batch = data.draw(st.sampled_from([1, 5, 16, 37]))
    shape = batch, *(data.draw(st.integers(9, 12)) for _ in range(2)), kernel_shape[2]
    strides = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    pads = st.tuples(st.integers(0, 3), st.integers(0, 3))
    padding = data.draw(st.sampled_from(['SAME', 'VALID']) | st.tuples(pads, pads))
    x, kernel = draw(shape, kernel_shape, dtype)
    args = x, kernel, strides, padding
    if in_loop:
        with ops.loop_body():
            found = value_and_gradients(ops.conv, *args)
    else:
        found = value_and_gradients(ops.conv, *args)
    expected = value_and_gradients(lax_conv, *(a.astype(jnp.float32) for a in args[:2]), *args[2:])
    assert_close(found, expected, dtype)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('layer', LAYERS)
def test_convolution_equals_lax_in_the_layers_of_the_networks(layer, dtype):
    batch = ops._FEWEST_EXAMPLES + 4  # two parts
    size, channels, features, width, stride, padding = LAYERS[layer]
    x, kernel = draw((batch, size, size, channels), (width, width, channels, features), dtype)
    found = value_and_gradients(ops.conv, x, kernel, (stride, stride), padding)
    x, kernel = x.astype(jnp.float32), kernel.astype(jnp.float32)
    expected = value_and_gradients(lax_conv, x, kernel, (stride, stride), padding)
    assert_close(found, expected, dtype)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_gradients_have_the_type_of_what_they_belong_to(dtype):
    x, kernel = draw((2, 6, 6, 3), (3, 3, 3, 4), dtype)
    grads = jax.grad(lambda *args: ops.conv(*args).astype(jnp.float32).sum(), (0, 1))(x, kernel)
    assert [grad.dtype for grad in grads] == [dtype, dtype]


def test_convolution_under_vmap_over_kernels_and_in_a_scan():
    x, _ = draw((5, 8, 8, 4), (3, 3, 4, 17), 'float32')
    kernels = jax.random.normal(jax.random.key(1), (3, 3, 3, 4, 17))

    def gradients(conv, kernel):
        return jax.grad(lambda kernel: jnp.sin(conv(x, kernel, (1, 1), 'SAME')).sum())(kernel)

    expected = jnp.stack([gradients(lax_conv, kernel) for kernel in kernels])
    mapped = jax.vmap(functools.partial(gradients, ops.conv))(kernels)
    with ops.loop_body():
        in_loop = jax.jit(jax.vmap(functools.partial(gradients, ops.conv)))
        assert 'convolution' not in in_loop.lower(kernels).as_text()
        _, scanned = jax.lax.scan(lambda _, k: (None, gradients(ops.conv, k)), None, kernels)
        assert_close([mapped, scanned, in_loop(kernels)], [expected] * 3, 'float32')


def test_what_is_no_plain_convolution_is_left_to_lax():
    x, kernel = draw((2, 9, 9, 4), (3, 3, 2, 6), 'float32')
    options = {'rhs_dilation': (2, 2), 'feature_group_count': 2, 'dimension_numbers': DIMENSIONS}
    found = ops.conv(x, kernel, (1, 1), 'SAME', **options)
    expected = jax.lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', **options)
    np.testing.assert_array_equal(found, expected)


def test_a_flax_layer_computes_the_same_with_it():
    x, _ = draw((4, 10, 10, 3), (1, 1, 1, 1), 'float32')
    ours = nn.Conv(5, (3, 3), strides=2, conv_general_dilated=ops.conv)
    theirs = nn.Conv(5, (3, 3), strides=2)
    params = theirs.init(jax.random.key(0), x)
    np.testing.assert_allclose(ours.apply(params, x), theirs.apply(params, x), atol=1e-6)


@pytest.mark.parametrize('differentiated', [False, True])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('shape', [(2, 28, 28, 3), (1, 7, 5, 2), (3, 2, 3, 1), (1, 9, 12, 4)])
@pytest.mark.parametrize('size', [1, 2, 3])
def test_max_pooling_equals_lax_in_value_and_gradient(shape, size, dtype, differentiated):
    if 0 in (shape[1] // size, shape[2] // size):
        pytest.skip('the window is larger than the image')
    # Few different values: there are ties in most windows.
    x = jnp.asarray(np.random.default_rng(0).integers(-2, 3, shape), dtype)

    def flax_pool(x):
        return nn.max_pool(x, (size, size), strides=(size, size))

    if not differentiated:
        np.testing.assert_array_equal(ops.max_pool(x, size), flax_pool(x))
        return
    expected, transpose = jax.vjp(flax_pool, x)
    found, our_transpose = jax.vjp(lambda x: ops.max_pool(x, size), x)
    np.testing.assert_array_equal(found, expected)
    weights = jax.random.normal(jax.random.key(0), found.shape, dtype)
    np.testing.assert_array_equal(our_transpose(weights)[0], transpose(weights)[0])


def test_of_equal_elements_the_first_gets_the_gradient():
    x = jnp.array([[5.0, 5.0], [1.0, 5.0]]).reshape(1, 2, 2, 1)
    grad = jax.grad(lambda x: ops.max_pool(x).sum())(x)
    np.testing.assert_array_equal(grad.reshape(2, 2), [[1, 0], [0, 0]])


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
