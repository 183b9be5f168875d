"""Weights that PyTorch networks have saved, in the same networks here: equal logits."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import load_file, save_file

from neptune_jax import experiment as experiments
from neptune_jax.errors import UserError
from neptune_jax.models import torch_names, weights_file
from neptune_jax.models.cnn import CNN
from neptune_jax.models.resnet import ResNet
from tests.models import torch_twins


class Bottleneck(nn.Module):
    width: int
    stride: int
    downsample: bool

    @nn.compact
    def __call__(self, x):
        def conv(name, features, kernel, stride=1):
            size, padding = (kernel, kernel), kernel // 2
            return nn.Conv(features, size, stride, padding, use_bias=False, name=name)

        def norm(name):
            return nn.BatchNorm(use_running_average=True, name=name)

        y = nn.relu(norm('bn1')(conv('conv1', self.width, 1)(x)))
        y = nn.relu(norm('bn2')(conv('conv2', self.width, 3, self.stride)(y)))
        y = norm('bn3')(conv('conv3', 4 * self.width, 1)(y))
        if self.downsample:
            x = conv('downsample_0', 4 * self.width, 1, self.stride)(x)
            x = norm('downsample_1')(x)
        return nn.relu(y + x)


class ResNet50(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (7, 7), 2, 3, use_bias=False, name='conv1')(x)
        x = nn.relu(nn.BatchNorm(use_running_average=True, name='bn1')(x))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        x = Bottleneck(2, 1, True, name='layer1_0')(x)
        x = Bottleneck(2, 1, False, name='layer1_1')(x)
        x = Bottleneck(3, 2, True, name='layer2_0')(x)
        return nn.Dense(10, name='fc')(x.mean((1, 2)))


class PatchEmbed(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Conv(6, (4, 4), 4, name='proj')(x)


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x):
        qkv = nn.Dense(18, name='qkv')(x).reshape(*x.shape[:2], 3, 2, 3)
        y = jax.nn.dot_product_attention(*(qkv[:, :, i] for i in range(3)))
        return nn.Dense(6, name='proj')(y.reshape(x.shape))


class Mlp(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(6, name='fc2')(nn.gelu(nn.Dense(8, name='fc1')(x), approximate=False))


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = x + Attention(name='attn')(nn.LayerNorm(name='norm1')(x))
        return x + Mlp(name='mlp')(nn.LayerNorm(name='norm2')(x))


class VisionTransformer(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = PatchEmbed(name='patch_embed')(x).reshape(x.shape[0], -1, 6)
        token = self.param('cls_token', nn.initializers.zeros, (1, 1, 6))
        x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, 6)), x], axis=1)
        x = Block(name='blocks_0')(x + self.param('pos_embed', nn.initializers.zeros, (1, 5, 6)))
        return nn.Dense(10, name='head')(nn.LayerNorm(name='norm')(x)[:, 0])


NETWORKS = {
    'resnet8': ResNet(num_classes=10, depth=8, width=3),
    'cnn': CNN(num_classes=10, features=(4, 5), hidden=(7,), norm='batch'),
    'resnet50': ResNet50(),
    'vit': VisionTransformer(),
}


def logits(name, path):
    """Of the network here, with weights from a file of its twin."""
    network, shape = NETWORKS[name], torch_twins.SHAPES[name]
    images = torch_twins.images(name).astype(np.float32) / 255
    variables = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *shape)))
    expected = flatten_dict(variables, sep='/')
    arrays = weights_file.read(str(path), 'torch', expected)
    assert {key: array.shape for key, array in arrays.items()} == {
        key: leaf.shape for key, leaf in expected.items()
    }
    return jax.jit(network.apply)(unflatten_dict(arrays, sep='/'), images)


@pytest.mark.parametrize('name', NETWORKS)
def test_weights_of_a_twin_give_its_logits(name):
    with np.load(torch_twins.FOLDER / 'logits.npz') as stored:
        expected = stored[name]
    assert np.ptp(expected, axis=0).min() > 1e-3  # of several images
    with jax.numpy_rank_promotion('allow'):
        found = logits(name, torch_twins.FOLDER / f'{name}.safetensors')
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('name', NETWORKS)
def test_the_twins_are_as_they_were_when_their_files_were_written(name):
    pytest.importorskip('torch')
    with np.load(torch_twins.FOLDER / 'logits.npz') as stored:
        np.testing.assert_allclose(torch_twins.logits(name), stored[name], rtol=1e-5, atol=1e-5)
    saved = load_file(torch_twins.FOLDER / f'{name}.safetensors')
    for key, array in torch_twins.create(name).state_dict().items():
        np.testing.assert_array_equal(array.numpy(), saved[key])


def test_modules_are_numbered_in_the_order_of_their_numbers():
    arrays = {f'layer{i}.0.conv1.weight': np.zeros((1, 1, 1, 1)) for i in (10, 2, 1)}
    found = torch_names.in_order(arrays | {'conv1.weight': np.zeros((1, 1, 1, 1))})
    assert found == {
        'conv1': 'Conv_0',
        'layer1.0.conv1': 'Conv_1',
        'layer2.0.conv1': 'Conv_2',
        'layer10.0.conv1': 'Conv_3',
    }


@pytest.fixture
def resnet(config):
    config.model = {'name': 'resnet', 'depth': 8, 'width': 3}
    config.parallel.num_devices = 1
    config.checkpoint.names = 'torch'
    config.checkpoint.restore_from = str(torch_twins.FOLDER / 'resnet8.safetensors')
    return config


def test_a_run_starts_from_a_file_also_with_other_classes(resnet, tmp_path):
    experiment = experiments.create(resnet)
    weights = experiments.read_initial_weights(experiment)
    state = experiments.init_state(experiment, weights)
    own = load_file(resnet.checkpoint.restore_from)
    assert weights.step is None and not weights.reinitialized
    np.testing.assert_array_equal(state.params['Dense_0']['kernel'], own['fc.weight'].T)
    np.testing.assert_array_equal(state.batch_stats['BatchNorm_0']['var'], own['bn1.running_var'])

    own['fc.weight'], own['fc.bias'] = own['fc.weight'][:4], own['fc.bias'][:4]
    own['conv1.weight'] = own['conv1.weight'].astype(np.float16)
    resnet.checkpoint.restore_from = str(tmp_path / 'four.safetensors')
    save_file(own, resnet.checkpoint.restore_from)
    weights = experiments.read_initial_weights(experiment)
    assert weights.num_classes == 4
    assert weights.reinitialized == ['params/Dense_0/bias', 'params/Dense_0/kernel']
    assert weights.arrays['params/Conv_0/kernel'].dtype == np.float32
    assert np.isfinite(
        experiments.init_state(experiment, weights).params['Dense_0']['kernel']
    ).all()


def test_a_file_that_is_no_start_is_refused(resnet, tmp_path, monkeypatch):
    experiment = experiments.create(resnet)

    def refused(message, **fields):
        resnet.checkpoint.update(fields)
        with pytest.raises(UserError, match=r'^checkpoint\.' + message) as error:
            experiments.read_initial_weights(experiment)
        assert '\n' not in str(error.value)

    missing, damaged = (str(tmp_path / f'{name}.safetensors') for name in ('missing', 'damaged'))
    content = (torch_twins.FOLDER / 'resnet8.safetensors').read_bytes()
    (tmp_path / 'damaged.safetensors').write_bytes(content[:-1])
    refused(r"restore_from='.*/missing.*': there is no such file", restore_from=missing)
    refused(r"restore_from='.*/damaged.*' is no safetensors file: ", restore_from=damaged)
    other, own = (str(torch_twins.FOLDER / f'{name}.safetensors') for name in ('cnn', 'resnet8'))
    refused(r"restore_from='.*' is of another model \(batch_stats/.*there", restore_from=other)
    refused(r'restore_from: .* none of this package.*names=torch', restore_from=own, names='')
    (tmp_path / 'own_names.py').write_text('def broken(arrays, paths):\n    return arrays["x"]\n')
    monkeypatch.syspath_prepend(tmp_path)
    refused(r"names='own_names:broken' does not work: KeyError", names='own_names:broken')
