import jax
import numpy as np
import pytest

from configs import resnet20
from neptune_jax import models
from neptune_jax.errors import UserError
from neptune_jax.learning.state import count_params
from neptune_jax.models.resnet import ResNet

RNG = np.random.default_rng(0)


# He et al. (2015), table 6, in millions: 0.27, 0.46, 0.66, 0.85 and 1.7.
@pytest.mark.parametrize(
    ('depth', 'millions'), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)]
)
def test_networks_have_the_parameters_of_the_paper(depth, millions):
    config = resnet20.get_config()
    config.model.depth = depth
    model, images = models.create_model(config.model, 10), np.zeros((1, 32, 32, 3), np.float32)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), images))['params']
    np.testing.assert_allclose(count_params(params) / 1e6, millions, atol=0.05 * millions)


def test_kernels_are_drawn_as_in_the_paper_on_rectifiers():
    model, images = ResNet(10, depth=8, width=32), np.zeros((1, 8, 8, 3), np.float32)
    params = model.init(jax.random.key(0), images)['params']
    for number, channels in ((1, 32), (4, 64), (6, 128)):
        # He et al., 2015, 'Delving deep into rectifiers', equation 10.
        deviation = np.sqrt(2 / (9 * channels))
        kernel = np.asarray(params[f'Conv_{number}']['kernel'])
        assert kernel.std() == pytest.approx(deviation, rel=0.03)


def convolution(x, kernel, stride):
    """3x3, padded by one zero, in NumPy."""
    windows = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(windows, (3, 3), axis=(1, 2))
    return np.einsum('nyxchw,hwcf->nyxf', windows[:, ::stride, ::stride], kernel)


@pytest.mark.parametrize(('depth', 'shape'), [(8, (8, 8, 1)), (14, (7, 10, 3))])
def test_forward_pass_by_hand(depth, shape):
    blocks = (depth - 2) // 6
    model, images = ResNet(3, depth, width=2), RNG.normal(size=(4, *shape)).astype(np.float32)
    variables = model.init(jax.random.key(0), images)
    # Statistics and biases start at 0 and 1; give them values that show.
    variables = jax.tree.map(
        lambda leaf: leaf + np.float32(RNG.uniform(0, 0.5, leaf.shape) * (leaf.ndim == 1)),
        variables,
    )
    logits = model.apply(variables, images)

    params, stats = jax.tree.map(np.float64, (variables['params'], variables['batch_stats']))
    layers = iter(range(depth - 1))

    def normalized(x, stride=1):
        number = next(layers)
        x = convolution(x, params[f'Conv_{number}']['kernel'], stride)
        mean, var = (stats[f'BatchNorm_{number}'][name] for name in ('mean', 'var'))
        scale, bias = (params[f'BatchNorm_{number}'][name] for name in ('scale', 'bias'))
        return (x - mean) / np.sqrt(var + 1e-5) * scale + bias

    x = np.maximum(normalized(images.astype(np.float64)), 0)
    # The first block of the second and of the third stage has stride 2 (section 4.2).
    strides = [1] * blocks + 2 * [2, *[1] * (blocks - 1)]
    widths = np.repeat([2, 4, 8], blocks)
    for stride, width in zip(strides, widths, strict=True):
        y = normalized(np.maximum(normalized(x, stride), 0))
        assert y.shape[-1] == width
        shortcut = np.zeros(y.shape)
        shortcut[..., : x.shape[-1]] = x[:, ::stride, ::stride]
        x = np.maximum(y + shortcut, 0)
    expected = x.mean(axis=(1, 2)) @ params['Dense_0']['kernel'] + params['Dense_0']['bias']
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'depth': 18}, r'model.depth=18 must be 8, 14, 20, 26, 32, ...: 6n \+ 2'),
        ({'width': 0}, 'model.width=0 must be at least 1'),
        (
            {'dtype': 'float16'},
            "model.dtype='float16' is unknown; choose one of: float32, bfloat16",
        ),
    ],
)
def test_what_cannot_be_built_is_refused(fields, message):
    with pytest.raises(UserError, match=message):
        ResNet(10, **fields)
