import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy import signal, special, stats

from neptune_jax import models
from neptune_jax.errors import UserError
from neptune_jax.learning.state import count_params
from neptune_jax.models.cnn import CNN


def init(model, shape):
    return model.init(jax.random.key(0), jnp.zeros((1, *shape)))['params']


@pytest.mark.parametrize(
    ('name', 'shape', 'count'),
    [
        ('cnn', (28, 28, 1), 50_186),
        ('cnn3', (28, 28, 1), 104_202),
        ('simple_net', (28, 28, 1), 70_934),
        ('net', (32, 32, 3), 1_147_466),
    ],
)
def test_the_four_networks_have_the_parameters_they_should(name, shape, count):
    config = importlib.import_module(f'configs.{name}').get_config()
    model = models.create_model(config.model, 10)
    assert count_params(jax.eval_shape(lambda: init(model, shape))) == count


def test_forward_pass_by_hand():
    """One 3x3 convolution, leaky ReLU, pool and dense layer, written out in NumPy."""
    model = CNN(num_classes=3, features=(2,))
    image = np.random.default_rng(0).normal(size=(6, 5, 1)).astype(np.float32)
    params = init(model, image.shape)
    # Biases start at zero; give them values that show.
    params = jax.tree.map(lambda leaf: leaf + 0.1 * (leaf.ndim == 1), params)
    logits = model.apply({'params': params}, image[None])[0]

    kernel, bias = (np.asarray(params['Conv_0'][key]) for key in ('kernel', 'bias'))
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    convolved = np.zeros((6, 5, 2))
    for y, x in np.ndindex(6, 5):
        window = padded[y : y + 3, x : x + 3]
        convolved[y, x] = np.einsum('hwi,hwio->o', window, kernel) + bias
    activated = np.where(convolved > 0, convolved, 0.01 * convolved)
    pooled = np.array(
        [[activated[y : y + 2, x : x + 2].max(axis=(0, 1)) for x in (0, 2)] for y in (0, 2, 4)]
    )
    dense = params['Dense_0']
    expected = pooled.ravel() @ np.asarray(dense['kernel']) + np.asarray(dense['bias'])
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


def by_hand(model, variables, images):
    """The logits of a CNN without training, float64, layer by layer with SciPy."""
    params, stats = jax.tree.map(np.float64, (variables['params'], variables.get('batch_stats')))
    activation = ACTIVATIONS[model.activation]
    x = np.float64(images)
    for number in range(len(model.features)):
        conv = params[f'Conv_{number}']
        y = np.stack(
            [
                sum(
                    signal.correlate(x[..., i], kernel[None, :, :, i], model.padding.lower())
                    for i in range(x.shape[-1])
                )
                for kernel in np.moveaxis(conv['kernel'], -1, 0)
            ],
            axis=-1,
        )
        y += conv.get('bias', 0)
        if model.norm == 'batch':
            norm, running = params[f'BatchNorm_{number}'], stats[f'BatchNorm_{number}']
            y = (y - running['mean']) / np.sqrt(running['var'] + 1e-5)
            y = y * norm['scale'] + norm['bias']
        y = activation(y)
        rows, columns = y.shape[1] // 2, y.shape[2] // 2
        y = y[:, : 2 * rows, : 2 * columns].reshape(len(y), rows, 2, columns, 2, -1)
        x = y.max(axis=(2, 4))
    x = x.reshape(len(x), -1)
    for number in range(len(model.hidden) + 1):
        dense = params[f'Dense_{number}']
        x = x @ dense['kernel'] + dense['bias']
        x = activation(x) if number < len(model.hidden) else x
    return x


ACTIVATIONS = {
    'relu': lambda x: np.maximum(x, 0),
    'leaky_relu': lambda x: np.where(x > 0, x, 0.01 * x),
    'elu': lambda x: np.where(x > 0, x, np.expm1(x)),
    'gelu': lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    'silu': lambda x: x * special.expit(x),
    'tanh': np.tanh,
    'sigmoid': special.expit,
}


PLAIN = {'features': (2, 3), 'hidden': (4, 3)}
NORMALIZED = {'features': (3,), 'kernel_size': 5, 'padding': 'VALID', 'norm': 'batch'}


@pytest.mark.parametrize(
    ('activation', 'fields'),
    [*((name, PLAIN) for name in ACTIVATIONS), ('relu', NORMALIZED), ('silu', NORMALIZED)],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_every_layer_by_hand(activation, fields):
    rng = np.random.default_rng(0)
    model = models.create_model(ConfigDict({'name': 'cnn', 'activation': activation} | fields), 3)
    images = rng.normal(0, 2, (2, 9, 8, 2)).astype(np.float32)
    variables = model.init(jax.random.key(0), images)
    # Statistics and biases start at 0 and 1; give them values that show.
    variables = jax.tree.map(
        lambda leaf: leaf + np.float32(rng.uniform(-0.5, 0.5, leaf.shape) * (leaf.ndim == 1)),
        variables,
    )
    expected = by_hand(model, variables, images)
    np.testing.assert_allclose(model.apply(variables, images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('hidden', [(), (6,)])
def test_dropout_is_before_every_dense_layer_also_the_output_layer(hidden):
    model = CNN(num_classes=1, features=(), hidden=hidden, activation='relu', dropout=0.25)
    images = np.ones((500, 2, 3, 1), np.float32)
    params = init(model, (2, 3, 1))
    # The first layer gives as many ones as it gets pixels, the output layer sums what it gets.
    output = params.pop(f'Dense_{len(hidden)}')
    params = jax.tree.map(lambda leaf: jnp.full_like(leaf, leaf.ndim == 1), params)
    params[f'Dense_{len(hidden)}'] = jax.tree.map(
        lambda leaf: jnp.full_like(leaf, leaf.ndim == 2), output
    )
    keys = {'dropout': jax.random.split(jax.random.key(0), 500)}
    kept = 0.75 * np.asarray(model.apply({'params': params, 'keys': keys}, images, train=True))
    np.testing.assert_allclose(kept, kept.round(), atol=1e-5)
    frequencies = np.bincount(kept.round().astype(int).ravel(), minlength=7)
    expected = 500 * stats.binom.pmf(np.arange(7), 6, 0.75)
    assert stats.chisquare(frequencies, expected).pvalue > 1e-3


@pytest.mark.parametrize('distribution', ['uniform', 'normal'])
@pytest.mark.parametrize(
    ('scheme', 'variance'),
    [
        ('xavier', 2 / (9 * 32 + 9 * 64)),  # Glorot and Bengio, 2010, equation 12
        ('he', 2 / (9 * 32)),  # He et al., 2015, equation 10
        ('lecun', 1 / (9 * 32)),  # LeCun et al., 1998, equation 16
    ],
)
def test_kernels_are_drawn_as_asked(scheme, variance, distribution):
    model = CNN(num_classes=10, kernel_init=f'{scheme}_{distribution}')
    kernel = np.asarray(init(model, (28, 28, 1))['Conv_1']['kernel'])
    assert kernel.std() == pytest.approx(np.sqrt(variance), rel=0.02)
    # A uniform distribution ends at the square root of 3 deviations; Flax cuts a normal one off
    # at two deviations of the one before it was cut.
    bound = np.sqrt(3 * variance) if distribution == 'uniform' else 2.28 * np.sqrt(variance)
    assert 0.97 * bound < np.abs(kernel).max() < bound


def test_xavier_uniform_fills_its_interval():
    kernel = init(CNN(num_classes=10), (28, 28, 1))['Conv_1']['kernel']
    bound = np.sqrt(6 / (9 * 32 + 9 * 64))  # Glorot and Bengio, 2010, equation 16
    assert np.abs(kernel).max() <= bound
    np.testing.assert_allclose(kernel.std(), bound / np.sqrt(3), rtol=0.02)


@pytest.mark.parametrize('shape', [(8, 8, 1), (32, 32, 3), (31, 45, 4), (64, 64, 3)])
def test_networks_adapt_to_the_image(shape):
    model = CNN(num_classes=7, features=(4, 4, 4), hidden=(5,), activation='relu')
    logits = jax.eval_shape(
        lambda: model.apply({'params': init(model, shape)}, jnp.zeros((2, *shape)))
    )
    assert logits.shape == (2, 7)


@pytest.mark.parametrize('padding', ['SAME', 'VALID'])
def test_an_image_too_small_for_the_pools_is_refused(padding):
    with pytest.raises(UserError, match='images of 6x6 are too small'):
        init(CNN(num_classes=2, features=(4, 4, 4), padding=padding), (6, 6, 1))


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'name': 'lenet'}, r"model.name='lenet' is unknown; choose one of: cnn, resnet"),
        ({'norm': 'layer'}, r"model.norm='layer' is unknown; choose one of: none, batch"),
        ({'dropout': 1.0}, r'model.dropout=1.0 must be at least 0 and below 1'),
        (
            {'widths': (3,)},
            r'model.widths is no field of CNN; it has: activation, dropout',
        ),
        ({'activation': 'rule'}, r"model.activation='rule' is unknown; choose one of: relu"),
        ({'kernel_init': 'x'}, r'model.kernel_init.*xavier_uniform'),
        ({'padding': 'same'}, r'model.padding.*SAME, VALID'),
        ({'features': (32, 0)}, r'model.features\[1\]=0 must be at least 1 and below 2'),
        ({'hidden': ('a',)}, r'model.hidden'),
        ({'hidden': (2**31,)}, r'model.hidden\[0\]=2147483648 must be at least 1 and below 2'),
        ({'features': 4}, r'model.features=4 must be a tuple, not int'),
        ({'features': (True,)}, r'model.features\[0\]=True must be a whole number, not bool'),
        ({'features': (4.0,)}, r'model.features\[0\]=4.0 must be a whole number, not float'),
        ({'kernel_size': 2**31}, r'model.kernel_size=2147483648 must be at least 1 and below 2'),
        ({'dropout': float('nan')}, r'model.dropout=nan must be at least 0 and below 1'),
        ({'dropout': -0.1}, r'model.dropout=-0.1 must be at least 0 and below 1'),
        ({'dropout': None}, r'model.dropout=None must be a number, not NoneType'),
        ({'kernel_size': 0}, r'model.kernel_size=0'),
    ],
)
def test_what_cannot_be_built_is_refused(fields, message):
    with pytest.raises(UserError, match=message):
        models.create_model(ConfigDict({'name': 'cnn'} | fields), 10)


def test_batch_normalisation_and_dropout_are_there_in_training_alone():
    model = CNN(num_classes=3, features=(4,), hidden=(8,), norm='batch', dropout=0.5)
    images = jax.random.normal(jax.random.key(1), (16, 6, 6, 1)) * 3 + 5
    variables = model.init(jax.random.key(0), images)
    assert 'bias' not in variables['params']['Conv_0']

    def apply(key):
        keys = jax.random.split(jax.random.key(key), 16)
        with_keys = variables | {'keys': {'dropout': keys}}
        return model.apply(with_keys, images, train=True, mutable=['batch_stats'])

    (first, updated), (second, _) = apply(0), apply(1)
    assert (first != second).any()
    conv = variables['params']['Conv_0']['kernel']
    x = jax.lax.conv_general_dilated(
        images, conv, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    np.testing.assert_allclose(
        updated['batch_stats']['BatchNorm_0']['mean'], 0.1 * x.mean(axis=(0, 1, 2)), rtol=1e-4
    )
    np.testing.assert_array_equal(model.apply(variables, images), model.apply(variables, images))


@pytest.mark.usefixtures('standard_promotion')  # Flax's batch normalisation needs it
def test_bfloat16_layers_have_float32_parameters_statistics_and_logits():
    fields = {'num_classes': 3, 'features': (8,), 'hidden': (8,), 'norm': 'batch'}
    images = jax.random.normal(jax.random.key(1), (16, 8, 8, 1))
    exact = CNN(**fields)
    variables = exact.init(jax.random.key(0), images)
    model = CNN(**fields, dtype='bfloat16')

    def apply(model):
        return model.apply(variables, images, train=True, mutable=['batch_stats'])

    (logits, updated), (expected, _) = apply(model), apply(exact)
    leaves = jax.tree.leaves((model.init(jax.random.key(0), images), updated, logits))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype('float32')}
    assert (logits != expected).any()
    np.testing.assert_allclose(logits, expected, atol=0.1)
