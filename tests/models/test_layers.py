"""The layers that networks are made of, and a network of one's own named in a config."""

import sys
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from neptune_jax import models
from neptune_jax.errors import UserError
from neptune_jax.models.layers import BatchNorm, Conv, Dense, Dropout, Head

IMAGES = np.random.default_rng(0).normal(size=(6, 8, 8, 2)).astype(np.float32)


class TwoDropouts(nn.Module):
    """Returns the same features after each of two dropout layers."""

    @nn.compact
    def __call__(self, x, train=True):
        return Dropout(0.5)(x, train), Dropout(0.5)(x, train)


def drop(keys, x):
    return TwoDropouts().apply({'keys': {'dropout': keys}}, x)


def test_dropout_depends_on_the_example_and_the_layer_not_on_the_batch():
    keys, x = jax.random.split(jax.random.key(0), 4), jnp.ones((4, 1000))
    first, second = drop(keys, x)
    assert (first != second).any()
    assert (first[0] != first[1]).any()
    np.testing.assert_array_equal(first[2:], drop(keys[2:], x[2:])[0])
    assert set(np.unique(first)) == {0, 2}
    np.testing.assert_allclose(first.mean(), 1, atol=0.05)


def test_without_training_nothing_is_dropped():
    x = jnp.ones((2, 3))
    for kept in TwoDropouts().apply({}, x, train=False):
        np.testing.assert_array_equal(kept, x)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_layers_equal_those_of_flax(dtype):
    class Layers(nn.Module):
        conv: type
        dense: type
        norm: type
        dtype: object

        @nn.compact
        def __call__(self, x):
            x = self.conv(3, (3, 3), dtype=self.dtype, name='conv')(x)
            norm = self.norm(dtype=self.dtype, name='norm')
            x = norm(x, True) if self.norm is BatchNorm else norm(x, use_running_average=False)
            return self.dense(4, dtype=self.dtype, name='dense')(x.mean(axis=(1, 2)))

    ours = Layers(Conv, Dense, BatchNorm, dtype)
    with jax.numpy_dtype_promotion('standard'):  # Flax's batch normalisation needs it
        flax = Layers(nn.Conv, nn.Dense, _norm(), jnp.dtype(dtype))
        variables = ours.init(jax.random.key(0), IMAGES)
        found, updated = ours.apply(variables, IMAGES, mutable='batch_stats')
        expected, stats = flax.apply(variables, IMAGES, mutable='batch_stats')
    assert found.dtype == expected.dtype == dtype
    tolerance = 1e-5 if dtype == 'float32' else 0.05
    np.testing.assert_allclose(
        found.astype(jnp.float32), expected.astype(jnp.float32), rtol=tolerance, atol=tolerance
    )
    for name in ('mean', 'var'):
        np.testing.assert_allclose(
            updated['batch_stats']['norm'][name], stats['batch_stats']['norm'][name], rtol=tolerance
        )


def _norm():
    def norm(**options):
        return nn.BatchNorm(momentum=0.9, **options)

    return norm


def test_logits_are_float32_whatever_the_head_computes_in():
    head = Head(3, dtype='bfloat16')
    x = IMAGES.reshape(6, -1)
    variables = head.init(jax.random.key(0), x)
    logits = head.apply(variables, x)
    assert logits.dtype == jnp.float32
    exact = x @ np.asarray(variables['params']['kernel'])
    np.testing.assert_allclose(logits, exact, atol=0.2)
    assert (logits != exact).any()


class Plain(nn.Module):
    """A Flax module without anything of this package."""

    num_classes: int
    width: int = 5

    @nn.compact
    def __call__(self, images, train=False):
        return nn.Dense(self.num_classes)(nn.Dense(self.width)(images.mean(axis=(1, 2))))


@pytest.fixture
def own_module(monkeypatch):
    module = types.ModuleType('own_module')
    module.Plain = Plain
    monkeypatch.setitem(sys.modules, 'own_module', module)


def test_a_network_of_ones_own_is_named_in_the_config(own_module):
    config = ConfigDict({'name': 'own_module:Plain'})
    assert models.complete_fields(config).to_dict() == {'name': 'own_module:Plain', 'width': 5}
    config.width = 7
    model = models.create_model(config, 3, batch_norm_axis='device')
    assert (model.num_classes, model.width) == (3, 7)


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('own_module:Plane', r"model.name='own_module:Plane': own_module has no 'Plane'"),
        ('no_module:Net', r"model.name='no_module:Net': cannot import 'no_module': No module"),
        ('plain', r"model.name='plain' is unknown; choose one of: cnn, resnet; or write 'package"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(own_module, name, message):
    with pytest.raises(UserError, match=message):
        models.create_model(ConfigDict({'name': name}), 3)
