"""Networks as ONNX models, against ONNX Runtime at several batch sizes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from ml_collections import ConfigDict

from neptune_jax import models
from neptune_jax.devices import compiling
from neptune_jax.exporting.onnx_writer import model as onnx_model

SHAPE = (12, 10, 3)


class Residual(nn.Module):
    """Bottleneck with a projection, as in ResNets for large images and in WRN."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(8, (7, 7), strides=2, padding=3, use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=True)(x))
        x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        y = nn.silu(nn.Conv(4, (1, 1))(x))
        y = nn.Conv(16, (3, 3), strides=2, padding='SAME')(y)
        x = nn.Conv(16, (1, 1), strides=2)(x) + y
        return nn.Dense(5)(jnp.tanh(x).mean((1, 2)))


class DenseNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            y = nn.elu(nn.GroupNorm(num_groups=1)(x))
            x = jnp.concatenate([x, nn.Conv(4, (3, 3), kernel_dilation=2)(y)], axis=-1)
        x = nn.Conv(6, (3, 2), padding=((0, 1), (2, 1)))(x)
        x = nn.avg_pool(x, (2, 2), (2, 2))
        x = nn.avg_pool(x, (3, 3), (2, 2), padding='SAME', count_include_pad=False)
        return nn.Dense(5)(x.reshape(x.shape[0], -1))


class ConvNeXt(nn.Module):
    """Patches, depthwise convolution, LayerNorm, GELU in both forms, a learned scale."""

    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm()(nn.Conv(8, (2, 2), strides=2)(x))
        y = nn.Conv(8, (5, 5), feature_group_count=8)(x)
        y = nn.gelu(nn.Dense(16)(nn.LayerNorm()(y)), approximate=False)
        y = nn.gelu(nn.Dense(8)(y), approximate=True)
        x = x + y * self.param('gamma', nn.initializers.normal(), (8,))
        return nn.Dense(5)(nn.LayerNorm()(x.mean((1, 2))))


class Mixer(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(6, (2, 2), strides=2)(x).reshape(x.shape[0], -1, 6)
        y = nn.Dense(30)(nn.gelu(nn.Dense(7)(nn.LayerNorm()(x).swapaxes(1, 2))))
        x = x + y.swapaxes(1, 2)
        return nn.Dense(5)(x.mean(1))


class ViT(nn.Module):
    """Patches by reshaping, a class token, positions, attention, and the token alone at the end."""

    @nn.compact
    def __call__(self, x):
        n, h, w, c = x.shape
        x = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
        x = nn.Dense(8)(x.reshape(n, h * w // 4, 4 * c))
        token = self.param('token', nn.initializers.normal(), (1, 1, 8))
        x = jnp.concatenate([jnp.broadcast_to(token, (n, 1, 8)), x], axis=1)
        x = x + self.param('positions', nn.initializers.normal(), (1, x.shape[1], 8))
        x = x + nn.MultiHeadDotProductAttention(num_heads=2)(nn.LayerNorm()(x))
        mask = jnp.tril(jnp.ones((x.shape[1], x.shape[1]), bool))[None, None]
        q, k, v = jnp.split(nn.Dense(24)(x), 3, axis=-1)
        heads = [y.reshape(*y.shape[:2], 2, 4) for y in (q, k, v)]
        x = x + jax.nn.dot_product_attention(*heads, mask=mask).reshape(x.shape)
        return nn.Dense(5)(x[:, 0])


class Recurrent(nn.Module):
    """GRU and LSTM over the rows of an image; loops of JAX that run backwards and without input."""

    @nn.compact
    def __call__(self, x):
        x = x.reshape(*x.shape[:2], -1)
        x = nn.Bidirectional(nn.RNN(nn.LSTMCell(4)), nn.RNN(nn.OptimizedLSTMCell(4)))(x)
        x = nn.RNN(nn.GRUCell(6), reverse=True, keep_order=True)(x)
        last, means = jax.lax.scan(
            lambda carry, row: (0.5 * carry + row, carry.mean(-1)),
            x[:, 0],
            x.swapaxes(0, 1),
            reverse=True,
        )
        last = jax.lax.fori_loop(0, 3, lambda turn, carry: jnp.tanh(carry * (turn + 1.5)), last)
        return nn.Dense(5)(jnp.concatenate([last, means.T, x[:, -1]], axis=-1))


class Selu(nn.Module):
    """Activations and slices that the others do not have."""

    @nn.compact
    def __call__(self, x):
        x = jnp.pad(x, ((0, 0), (1, 2), (0, 0), (0, 0)), constant_values=0.5)
        x = jax.lax.pad(x, 0.0, ((0, 0, 0), (-1, 1, 0), (0, 0, 0), (0, 0, 0)))
        x = x[:, ::2, ::-1][:, 1:, 2:5, :2] * jax.lax.rsqrt(jnp.square(x[:, :7, 2:5, 1:]) + 1)
        x = nn.selu(x) + nn.softplus(x) + nn.hard_swish(x) + nn.leaky_relu(x) + nn.relu6(x)
        x = x + nn.log_softmax(x) + jnp.cumsum(x, 1) + x.max(-1, keepdims=True) + x**3 + 2.0**x
        x = jnp.where((x > 1) & ~(x == 3), x % 1.5, jnp.log1p(jnp.exp(-jnp.abs(x))))
        x = x.reshape(-1, 21) / 8
        row = jnp.broadcast_to(self.param('row', nn.initializers.normal(), (2,)), (x.shape[0], 2))
        x = nn.remat(nn.Dense)(5)(jnp.concatenate([x, row], axis=1)).reshape(-1, 2, 5).sum(1)
        largest = jax.nn.one_hot(x.argmax(-1), 5)
        return x * largest + jnp.sign(x).prod(-1, keepdims=True)


NETWORKS = [Residual, DenseNet, ConvNeXt, Mixer, ViT, Recurrent, Selu]


def draw(module):
    """Returns variables of which no two elements are equal."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, *SHAPE)))
    rng = np.random.default_rng(0)

    def normal(leaf):
        return rng.normal(0.1, 2 / np.prod(leaf.shape[:-1]) ** 0.5, leaf.shape).astype(np.float32)

    statistics = jax.tree.map(lambda leaf: abs(normal(leaf)) + 0.1, shapes.get('batch_stats', {}))
    return {'params': jax.tree.map(normal, shapes['params']), 'batch_stats': statistics}


def write(module, variables):
    def function(variables, images):
        logits = module.apply(variables, images.astype(jnp.float32) / 255)
        return {'logits': logits, 'probabilities': jax.nn.softmax(logits)}

    return function, onnx_model.write(function, variables, SHAPE, {'classes': '[]'})


def run(content, images):
    session = onnxruntime.InferenceSession(content, providers=['CPUExecutionProvider'])
    return dict(
        zip(['logits', 'probabilities'], session.run(None, {'images': images}), strict=True)
    )


def assert_equal_at_all_batch_sizes(content, function, variables):
    images = np.random.default_rng(0).integers(0, 256, (64, *SHAPE), np.uint8)
    expected = compiling.jit(function)(variables, images)
    assert np.ptp(expected['logits'], axis=0).max() > 0.01  # images matter
    for size in (1, 7, 64):
        found = run(content, images[:size])
        for name, tolerance in (('logits', 1e-4), ('probabilities', 1e-5)):
            np.testing.assert_allclose(found[name], expected[name][:size], rtol=0, atol=tolerance)


@pytest.mark.parametrize('network', NETWORKS, ids=lambda network: network.__name__)
def test_networks_of_all_kinds_equal_onnx_runtime(network, standard_promotion):
    with jax.numpy_rank_promotion('allow'):
        variables = draw(network())
        function, content = write(network(), variables)
        assert_equal_at_all_batch_sizes(content, function, variables)


@pytest.mark.parametrize('name', models.MODELS)
def test_each_model_of_the_package_equals_onnx_runtime(name):
    module = models.create_model(ConfigDict({'name': name}), num_classes=10)
    variables = module.init(jax.random.key(0), jnp.zeros((1, *SHAPE)))
    function, content = write(module, variables)
    assert_equal_at_all_batch_sizes(content, function, variables)
